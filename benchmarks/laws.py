"""Measure every family of laws on the published swarms: held-out quality, seconds per fit, and how they scale.

    python -m benchmarks.laws [--data=DIR] [--seeds=N] [--families=a,b] [--quick] [--out=benchmarks/laws.md]

Writes the page and its plot. An interrupted run resumes with its saved measurements, unless the laws or the data have
changed.
"""

import argparse
import dataclasses
import hashlib
import importlib.util
import json
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from benchmarks import laws_page, laws_speed
from olmix_jax import laws
from olmix_jax.laws import intervals, quality, scores
from olmix_jax.swarm import task_groups
from olmix_jax.swarm.table import SwarmTable
from olmix_jax.utils import progress
from olmix_jax.utils.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]
FAMILIES = ("floored_gp", "warped_gp", "exposure", "log_linear", "bimix", "autoscale", "gp", "search", "lightgbm")
QUICK = ("floored_gp", "log_linear", "search")
# More starts do not pay: 16 scored within .004 of 4 (one split at each of four sizes), at four times the cost.
STARTS = {"bimix": 4, "autoscale": 4}
# Fewer splits for a family that takes seconds per fit.
MOST_SPLITS = {"lightgbm": 5}
# Families whose intervals are calibrated, by cross-validation within the training runs.
COVERED = ("floored_gp", "warped_gp", "log_linear")
FOLDS = 5


class Runs(NamedTuple):
    """Mixtures and scores of runs."""

    ratios_KM: np.ndarray
    bpb_KN: np.ndarray


class Split(NamedTuple):
    """Runs to fit a law to, and runs to score it on."""

    train: Runs
    held_out: Runs


@dataclasses.dataclass(frozen=True)
class Problem:
    """A swarm, and how it is split into training and held-out runs.

    Attributes:
      name: heading of its table.
      unit: unit of its scores.
      sizes: numbers K of training runs.
      swarm: the runs that training runs are drawn from.
      test: the held-out swarm; None if the runs that are not drawn are held out.
    """

    name: str
    unit: str
    sizes: tuple[int, ...]
    swarm: SwarmTable
    test: SwarmTable | None = None

    def split(self, size: int, seed: int) -> "Split":
        """Return the training runs (the first K of ``default_rng([seed, K]).permutation``) and the held-out runs."""
        order = np.random.default_rng([seed, size]).permutation(len(self.swarm.runs))
        train, rest = order[:size], order[size:]
        swarm = self.swarm
        held_out = Runs(swarm.ratios_KM[rest], swarm.bpb_KN[rest])
        if self.test is not None:
            held_out = Runs(self.test.ratios_KM, self.test.bpb_KN)
        return Split(Runs(swarm.ratios_KM[train], swarm.bpb_KN[train]), held_out)

    def splits(self, size: int, family: str, seeds: int) -> int:
        """Return the number of splits to measure: one if all runs are training runs."""
        return 1 if size == len(self.swarm.runs) else min(seeds, MOST_SPLITS.get(family, seeds))


def read_problems(data: pathlib.Path, quick: bool) -> list[Problem]:
    """Read the DCLM swarm with its 52 tasks, and RegMix's swarm of 1M-parameter models.

    Raises:
      UserError: a file is missing.
    """
    dclm, regmix = data / "olmix_dclm", data / "regmix_1m"
    swarm = SwarmTable.read(dclm / "ratios.csv", dclm / "metrics.csv", dclm / "meta.json")
    swarm = task_groups.grouped(swarm, mmlu_groups=True, granularity="task")
    train, test = (
        SwarmTable.read(regmix / f"{part}_mixture_1m.csv", regmix / f"{part}_pile_loss_1m.csv")
        for part in ("train", "test")
    )
    if train.domains != test.domains or train.tasks != test.tasks:
        raise UserError(f"{regmix}: the training and the test runs differ in domains or tasks")
    return [
        Problem("DCLM", "BPB", (30,) if quick else (30, 50, 75, 100), swarm),
        Problem("RegMix", "nats", (54,) if quick else (54, 128, 512), train, test),
    ]


class SavedMeasurements:
    """Measurements by name, saved to a file so that an interrupted run can resume. A complete run deletes the file.

    The file's name is a digest of the code, the data and ``settings``. If one of them changes, everything is measured
    again.

    Attributes:
      resumed: number of measurements read from the file.
    """

    def __init__(self, folder: str, problems: list[Problem], *settings):
        digest = hashlib.sha256(json.dumps(settings).encode())
        for file in sorted([*(ROOT / "olmix_jax/laws").glob("*.py"), *(ROOT / "benchmarks").glob("laws*.py")]):
            digest.update(file.read_bytes())
        for swarm in (swarm for problem in problems for swarm in (problem.swarm, problem.test) if swarm is not None):
            digest.update(swarm.ratios_KM.tobytes() + swarm.bpb_KN.tobytes())
        self.path = pathlib.Path(folder) / f"olmix-bench-laws-{digest.hexdigest()[:16]}.json"
        self.values = json.loads(self.path.read_text()) if self.path.exists() else {}
        self.resumed = len(self.values)

    def get(self, name: str, measure: Callable, *args):
        """Return ``measure(*args)`` as JSON values; call it only if the file does not have the result."""
        if name not in self.values:
            self.values[name] = json.loads(json.dumps(measure(*args)))
            part = self.path.with_suffix(".part")
            part.write_text(json.dumps(self.values))
            part.replace(self.path)
        return self.values[name]


class Bench:
    """Measures a family on a split. Times leave out compilation."""

    def __init__(self):
        self.compiled = set()

    def measure(self, problem: Problem, family: str, size: int, seed: int) -> dict:
        """Return held-out scores of a fit, its seconds, and the coverage of its 90 % intervals (None: not measured)."""
        law, starts = laws.LAWS[family], {"starts": STARTS[family]} if family in STARTS else {}
        train, (ratios_KM, bpb_KN) = problem.split(size, seed)
        if law.differentiable and (problem.name, family, size) not in self.compiled:
            law.fit(*train, **starts)
            self.compiled.add((problem.name, family, size))
        seconds, fitted = laws_speed.seconds(law.fit, *train, **starts)
        predicted_KN = laws.evaluate(law, fitted.params, ratios_KM)
        result = scores.score(predicted_KN, bpb_KN)
        coverage = None
        if family in COVERED:
            stretch_N = quality.cross_validate(law, *train, folds=FOLDS, seed=seed).stretch_N
            reach_KN = stretch_N * intervals.scale(law, fitted.params, ratios_KM, bpb_KN.shape[1])
            coverage = float((np.abs(predicted_KN - bpb_KN) <= reach_KN).mean())
        return {
            "spearman": float(result.spearman_N.mean()),
            "of_mean": result.spearman_of_mean,
            "rmse": float(result.rmse_N.mean()),
            "coverage": coverage,
            "seconds": seconds,
        }


def measure_quality(problems: list[Problem], families: list[str], seeds: int, saved: SavedMeasurements) -> list[dict]:
    """Return one row per problem, family and size.

    A row has ``problem``, ``family``, ``K``, ``splits``, ``starts`` (None for the default), and one list over splits
    for each measure of :meth:`Bench.measure`.
    """
    bench, plan = Bench(), []
    for problem in problems:
        for size in problem.sizes:
            plan += [(problem, family, size, problem.splits(size, family, seeds)) for family in families]
    rows = []
    with progress.Progress("quality", sum(splits for *_, splits in plan), "fits") as shown:
        for problem, family, size, splits in plan:
            results = []
            for seed in range(splits):
                name = f"{problem.name} {family} K={size} seed={seed}"
                results.append(saved.get(name, bench.measure, problem, family, size, seed))
                shown.advance(1, name)
            row = {"problem": problem.name, "family": family, "K": size, "splits": splits}
            rows.append(row | {"starts": STARTS.get(family)} | {key: [r[key] for r in results] for key in results[0]})
    return rows


def available(families: list[str]) -> tuple[list[str], list[str]]:
    """Return the families that can be measured, and a sentence about each that cannot.

    Raises:
      UserError: a family does not exist.
    """
    unknown = [family for family in families if family not in laws.LAWS]
    if unknown:
        raise UserError(f"--families: unknown {', '.join(unknown)}; choose from {', '.join(laws.LAWS)}")
    if "lightgbm" in families and importlib.util.find_spec("lightgbm") is None:
        return [f for f in families if f != "lightgbm"], [
            "`lightgbm` was skipped: its library is not installed (`pip install -r requirements-lightgbm.txt`)."
        ]
    return families, []


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    beside = os.environ.get("OLMIX_DATA", ROOT.parent / "shared/data")
    parser.add_argument("--data", type=pathlib.Path, default=beside, help="the folder with olmix_dclm and regmix_1m")
    parser.add_argument(
        "--seeds", type=int, default=None, help="random splits per size; default: 10, or 2 with --quick"
    )
    parser.add_argument("--families", default="", help="default: all; with --quick " + ",".join(QUICK))
    parser.add_argument("--quick", action="store_true", help="one size per swarm and a small plot, as a test")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "benchmarks/laws.md")
    args = parser.parse_args(arguments)
    progress.start_log(None)
    begun, load, seeds = time.monotonic(), os.getloadavg()[0], args.seeds or (2 if args.quick else 10)
    families, notes = available(args.families.split(",") if args.families else list(QUICK if args.quick else FAMILIES))
    problems = read_problems(args.data, args.quick)
    saved = SavedMeasurements(tempfile.gettempdir(), problems, args.quick)
    grid, fixed = laws_speed.QUICK if args.quick else (laws_speed.GRID, laws_speed.FIXED)
    resamples, large = (20, (32, 8, 8)) if args.quick else (laws_page.RESAMPLES, laws_page.LARGE)
    speed = saved.get("speed", laws_speed.headlines, problems[0].swarm, resamples, large)
    sweep = saved.get("sweep", laws_speed.sweep, grid, fixed)
    rows = measure_quality(problems, families, seeds, saved)
    picture = args.out.with_name(f"{args.out.stem}_speed.png")
    laws_speed.plot(sweep, grid, fixed, picture)
    if saved.resumed:
        notes.append(f"{saved.resumed} of the measurements are from an interrupted run.")
    notes.append(
        f"Load average at the start: {load:.1f}. Total wall time: {(time.monotonic() - begun) / 60:.1f} minutes."
    )
    command = " ".join(["python -m benchmarks.laws", *(arguments if arguments is not None else sys.argv[1:])])
    content = laws_page.Content(problems, rows, speed, sweep, grid, resamples, large, picture.name, command, notes)
    args.out.write_text(laws_page.page(content), encoding="utf-8")
    for row in laws_page.targets(content):
        print(" | ".join(row))
    print(f"written: {args.out}, {picture}")
    saved.path.unlink(missing_ok=True)


if __name__ == "__main__":
    try:
        main()
    except UserError as e:
        sys.exit(f"error: {e}")

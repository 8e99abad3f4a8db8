"""Judge proposals of some runs by a law of the other runs, on RegMix's swarm and where the truth is known.

OLMIX_DATA=… python -m experiments.laws_at_their_optimum.halves --scale=cpu --workdir=runs/halves

Published swarms have no truth at a proposal, so a law of the runs that the proposal did not see has to judge it. This
judge is a posterior mean, which is shrunk where it knows little. The synthetic truths tell how much of promised over
judged gain is the judge's own error. ``results.json`` has a row per proposal. Without OLMIX_DATA, which names a folder
with ``regmix_1m``, there are no rows of RegMix.
"""

import dataclasses
import os
import pathlib

import numpy as np

from benchmarks.laws_page import table
from experiments import common
from experiments.laws_at_their_optimum import worlds
from olmix_jax.laws import LAWS, FittedLaw
from olmix_jax.propose import make_proposal
from olmix_jax.propose.options import Options
from olmix_jax.propose.swarm_facts import SwarmFacts
from olmix_jax.swarm.table import SwarmTable
from olmix_jax.utils import rng
from olmix_jax.utils.progress import log

LAW = LAWS["floored_gp"]
SAMPLES = 100
# λ of the proposals: the default for RegMix, and that of the experiment for the worlds.
REGMIX_KL_WEIGHT, WORLDS_KL_WEIGHT = 0.05, 0.01
# The worlds have as many domains and runs as RegMix.
DOMAINS, RUNS = 17, 512


@dataclasses.dataclass(frozen=True)
class Scale:
    """Numbers of runs behind a proposal, splits of RegMix for each, and worlds per kind."""

    runs: tuple[int, ...]
    splits: int
    worlds: int
    domains: int = DOMAINS
    total: int = RUNS


SCALES = {
    "smoke": Scale((12,), 1, 1, 4, 24),
    "cpu": Scale((45, 128, 256), 3, 2),
    # More splits, without worlds.
    "regmix": Scale((45, 128, 256), 8, 0),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One proposal. Gains are over natural, averaged over tasks [BPB; nats a token for RegMix].

    Attributes:
      swarm: "RegMix" or the kind of truth.
      runs, seed: number of runs behind the proposal, and the split or world.
      promised: by the law of these runs.
      low, high: of the proposal's ``gain``, 5 % and 95 %.
      judged: by the law of the other runs.
      true: by the truth; None for RegMix.
    """

    swarm: str
    runs: int
    seed: int
    promised: float
    low: float
    high: float
    judged: float
    true: float | None


def judged(swarm: str, ratios_KM, bpb_KN, natural_M, chosen_K, seed: int, kl_weight: float, true) -> Row:
    """Propose from the chosen runs and judge by the others; ``true`` gives gains of mixtures, or is None."""
    names, tasks = [f"d{j}" for j in range(len(natural_M))], [f"t{i}" for i in range(bpb_KN.shape[1])]
    own, other = ((ratios_KM[rows], bpb_KN[rows]) for rows in (chosen_K, ~chosen_K))
    params, judge = LAW.fit(*own).params, FittedLaw(LAW, LAW.fit(*other).params)
    facts = SwarmFacts(tasks, names, natural_M, ratios_KM=own[0], bpb_KN=own[1])
    fitted = FittedLaw(LAW, params, LAW.sample(params, SAMPLES, seed))
    proposal = make_proposal.propose(fitted, facts, Options(kl_weight=kl_weight, explore=False), seed=seed)
    proposed_M = np.array([proposal.weights[name] for name in names])
    bpb_C = judge.predict(np.stack([natural_M, proposed_M])).mean(axis=1)
    return Row(
        swarm,
        int(chosen_K.sum()),
        seed,
        proposal.headline.natural - proposal.headline.proposed,
        proposal.gain.low,
        proposal.gain.high,
        float(bpb_C[0] - bpb_C[1]),
        None if true is None else float(true(proposed_M[None])[0]),
    )


def of_regmix(scale: Scale, data: pathlib.Path, seed: int) -> list[Row]:
    """Return rows of the training runs of RegMix, split at random. Natural is the mean of the runs."""
    folder, rows = data / "regmix_1m", []
    swarm = SwarmTable.read(folder / "train_mixture_1m.csv", folder / "train_pile_loss_1m.csv")
    natural_M = swarm.ratios_KM.mean(axis=0)
    for runs in scale.runs:
        for split in range(seed, seed + scale.splits):
            order_K = rng.generator(split, "halves").permutation(len(swarm.runs))
            facts = swarm.ratios_KM, swarm.bpb_KN, natural_M
            rows.append(judged("RegMix", *facts, order_K < runs, split, REGMIX_KL_WEIGHT, None))
            log.info("RegMix, %d runs, split %d", runs, split)
    return rows


def of_worlds(scale: Scale, seed: int) -> list[Row]:
    """Return rows of synthetic truths. Their worlds are of seeds from 9000, which served no choice."""
    rows = []
    for kind in worlds.KINDS[:-1]:
        for number in range(9000 + 100 * seed, 9000 + 100 * seed + scale.worlds):
            world = worlds.drawn(kind, scale.domains, scale.total, seed=number)
            facts = world.ratios_KM, world.bpb_KN, world.natural_M
            order_K = rng.generator(number, "halves").permutation(scale.total)
            for runs in scale.runs:
                rows.append(judged(kind, *facts, order_K < runs, number, WORLDS_KL_WEIGHT, world.gain))
            log.info("%s, world %d", kind, number)
    return rows


def summary(rows: list[Row]) -> str:
    """Return a table of means by swarm and number of runs. ± is over splits, which share runs."""
    lines = []
    kinds = [*dict.fromkeys(row.swarm for row in rows)]
    without = [kind for kind in kinds if kind not in ("RegMix", "repetition")]
    groups = {kind: [kind] for kind in kinds} | ({"all truths but repetition": without} if without else {})
    for name, swarms in groups.items():
        for runs in dict.fromkeys(row.runs for row in rows):
            of = [row for row in rows if row.runs == runs and row.swarm in swarms]
            if of:
                lines.append((name, str(runs), *_cells(of)))
    header = (
        "swarm",
        "runs",
        "proposals",
        "promised",
        "judged",
        "true",
        "promised/judged",
        "promised/true",
        "judged/true",
    )
    return table((*header, "5–95 % holds what is judged", "what is true"), lines)


def _cells(rows: list[Row]) -> list[str]:
    promised_P, judged_P = (np.array([getattr(row, name) for row in rows]) for name in ("promised", "judged"))
    promised, by_judge, ratio = promised_P.mean(), judged_P.mean(), promised_P.mean() / judged_P.mean()
    cells, text = [str(len(rows)), f"{promised:.4f}", f"{by_judge:.4f}"], f"{ratio:.2f}"
    if len(rows) > 2:
        error = (promised_P - ratio * judged_P).std(ddof=1) / len(rows) ** 0.5 / by_judge
        text += f" ± {error:.2f}"
    holds = np.mean([row.low <= row.judged <= row.high for row in rows])
    true_P = np.array([row.true for row in rows if row.true is not None])
    if not len(true_P):
        return [*cells, "–", text, "–", "–", f"{100 * holds:.0f} %", "–"]
    true = true_P.mean()
    cells += [f"{true:.4f}", text, f"{promised / true:.2f}", f"{by_judge / true:.2f}"]
    holds_true = np.mean([row.low <= value <= row.high for row, value in zip(rows, true_P)])
    return [*cells, f"{100 * holds:.0f} %", f"{100 * holds_true:.0f} %"]


def run(scale: Scale, workdir: pathlib.Path, seed: int) -> list[Row]:
    """Judge all proposals of a scale, and write the rows."""
    data = os.environ.get("OLMIX_DATA")
    rows = of_regmix(scale, pathlib.Path(data), seed) if data else []
    rows += of_worlds(scale, seed)
    common.write_results(workdir, {"rows": [dataclasses.asdict(row) for row in rows]})
    return rows


def main() -> None:
    flags = common.arguments(__doc__, tuple(SCALES))
    print(summary(run(SCALES[flags.scale], flags.workdir, flags.seed)))


if __name__ == "__main__":
    main()

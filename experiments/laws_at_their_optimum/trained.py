"""Compare what every law promises at its own optimum with models that are trained there.

python -m experiments.laws_at_their_optimum.trained --scale=cpu --workdir=runs/laws_at_their_optimum_trained

One swarm of the quickstart's proxies serves all laws. Each law's proposal, two points on the way to it from natural,
and mixtures that need no law are trained as new models, all in one program with the same seeds. ``results.json`` has a
row per mixture: what the law promised, and what the models gained over natural.
"""

import dataclasses
import pathlib
from collections.abc import Mapping

import numpy as np

from benchmarks.laws_page import table
from configs import quickstart
from experiments import common
from olmix_jax import config as configs
from olmix_jax.config import workdir as workdirs
from olmix_jax.config.schema import Config
from olmix_jax.laws import LAWS, FittedLaw, cpu
from olmix_jax.laws import quality as qualities
from olmix_jax.laws.held_out import HeldOut
from olmix_jax.pipeline import propose as propose_stage
from olmix_jax.pipeline import runner, validate
from olmix_jax.propose import make_proposal, support, uncertainty
from olmix_jax.propose.constraints import repetition_caps
from olmix_jax.proxy.validation_result import Validation
from olmix_jax.solver.projection import project

FAMILIES = ("floored_gp", "exposure", "log_linear")
SAMPLES, FOLDS = 100, 5
# Points on the way from natural to a proposal, and their names.
POINTS = {1 / 3: "a third of the way", 2 / 3: "two thirds", 1.0: "proposal"}


@dataclasses.dataclass(frozen=True)
class Scale:
    """The variant of the quickstart, and the number of seeds of each mixture."""

    variant: str
    seeds: int
    families: tuple[str, ...] = FAMILIES


SCALES = {"smoke": Scale("smoke", 2, ("floored_gp", "log_linear")), "cpu": Scale("", 6)}


@dataclasses.dataclass(frozen=True)
class Point:
    """A mixture and what a law promises there: gain over natural, averaged over tasks [BPB].

    Attributes:
      family: the law; empty for a mixture that no law proposed.
      name: which mixture.
      weights_M: the mixture.
      promised: by the law itself.
      low, high: 5 % and 95 % quantile; None if the law has no samples.
    """

    family: str
    name: str
    weights_M: np.ndarray
    promised: float | None = None
    low: float | None = None
    high: float | None = None


def unimax(caps_M) -> np.ndarray:
    """Return the mixture that is as uniform as the caps allow (UniMax, Chung et al. 2023): the one nearest to 0."""
    with cpu.float64():
        return np.asarray(project(np.zeros(len(caps_M)), np.zeros(len(caps_M)), caps_M))


def points(config: Config, workdir: pathlib.Path, families: tuple[str, ...]) -> list[Point]:
    """Return all mixtures to train besides natural."""
    swarm_table = workdirs.read_table(config, workdir)
    swarm = propose_stage.swarm_facts(config, workdir, swarm_table)
    options = dataclasses.replace(propose_stage.options_of(config, workdir, None), explore=False)
    caps_M = repetition_caps(swarm.tokens_M, options.target_tokens, options.max_repeats)
    best_run = int(swarm_table.bpb_KN.mean(axis=1).argmin())
    uniform_M = np.full(len(caps_M), 1 / len(caps_M))
    mixtures = {"uniform": uniform_M, "UniMax": unimax(caps_M), "best run": swarm_table.ratios_KM[best_run]}
    found = [Point("", name, weights_M) for name, weights_M in mixtures.items()]
    for family in families:
        law = LAWS[family]
        params = law.fit(swarm.ratios_KM, swarm.bpb_KN).params
        samples = None if law.sample is None else law.sample(params, SAMPLES, config.seed)
        judged = qualities.cross_validate(law, swarm.ratios_KM, swarm.bpb_KN, folds=FOLDS, seed=config.seed)
        held_out = HeldOut(swarm.bpb_KN, judged.predicted_KN, judged.fold_K)
        facts = dataclasses.replace(swarm, held_out=held_out)
        solved = make_proposal.solve(FittedLaw(law, params, samples), facts, options, seed=config.seed)
        found += [_promised(solved, family, share) for share in POINTS]
    return found


def _promised(solved: make_proposal.Solved, family: str, share: float) -> Point:
    """Return what the law promises at a share of the way from natural to its proposal."""
    natural_M, fitted, swarm = solved.formulation.natural_M, solved.fitted, solved.swarm
    weights_M = natural_M + share * (solved.weights_M - natural_M)
    mean_C = fitted.predict(np.stack([natural_M, weights_M])) @ solved.formulation.problem.weights
    point = Point(family, POINTS[share], weights_M, float(mean_C[0] - mean_C[1]))
    if fitted.samples is None:
        return point
    slope = uncertainty.held_out_slope(fitted, swarm, solved.formulation.problem.weights, solved.seed)
    ranges = support.ranges(swarm.ratios_KM)
    bars = uncertainty.prediction_intervals(
        solved.formulation, fitted.samples, weights_M, swarm.tasks, slope, ranges, solved.seed
    )
    return point if bars.gain is None else dataclasses.replace(point, low=bars.gain.low, high=bars.gain.high)


def rows(found: list[Point], validation: Validation) -> list[dict]:
    """Return promise and measurement of every mixture; the error is over seeds, which all mixtures share."""
    natural_S = np.array(validation.mixtures["natural"].per_seed)
    results = []
    for point in found:
        gain_S = natural_S - np.array(validation.mixtures[_key(point)].per_seed)
        results.append(
            {
                "family": point.family,
                "mixture": point.name,
                "weights": validation.mixtures[_key(point)].weights,
                "promised": point.promised,
                "low": point.low,
                "high": point.high,
                "gain": float(gain_S.mean()),
                "error": float(gain_S.std(ddof=1) / len(gain_S) ** 0.5),
            }
        )
    # Natural itself gains 0.
    best = max(0.0, *(row["gain"] for row in results))
    return [row | {"regret": best - row["gain"]} for row in results]


def _key(point: Point) -> str:
    return f"{point.family} {point.name}".strip()


def run(scale: Scale, workdir: pathlib.Path, seed: int) -> dict:
    """Train the swarm, then all mixtures, and write the results."""
    settings = quickstart.get_config(scale.variant)
    settings.seed, settings.validate.seeds = seed, scale.seeds
    config = configs.from_dict(settings)
    runner.run(config, workdir, ("prepare", "sample", "train"))
    found = points(config, workdir, scale.families)
    mixtures: Mapping[str, np.ndarray] = {_key(point): point.weights_M for point in found}
    natural_M = workdirs.read_domains(workdir).natural_M
    validation = validate.compare(config, workdir, {"natural": natural_M / natural_M.sum(), **mixtures})
    results = {
        "rows": rows(found, validation),
        "seeds": validation.seeds,
        "tokens": validation.tokens,
        "parameters": validation.parameters,
    }
    common.write_results(workdir, results)
    return results


def summary(results: dict) -> str:
    """Return a table of promises and measurements."""
    lines = []
    for row in results["rows"]:
        interval = "–" if row["low"] is None else f"{row['low']:+.4f} to {row['high']:+.4f}"
        promised = "–" if row["promised"] is None else f"{row['promised']:+.4f}"
        measured = f"{row['gain']:+.4f} ± {row['error']:.4f}"
        lines.append((row["family"] or "–", row["mixture"], promised, interval, measured, f"{row['regret']:.4f}"))
    return table(("law", "mixture", "promised", "5–95 %", "measured", "regret"), lines)


def main() -> None:
    flags = common.arguments(__doc__, tuple(SCALES))
    print(summary(run(SCALES[flags.scale], flags.workdir, flags.seed)))


if __name__ == "__main__":
    main()

"""Judge laws of a few real runs with and without cheap runs, where the truth is known.

python -m experiments.laws_at_their_optimum.cheap_runs --scale=cpu --workdir=runs/cheap_runs

Cheap runs show an effect divided by ATTENUATION, plus DISTORTION of effects of another truth, with less noise than real
runs. Unrelated ones show the other truth alone; then the law should leave them out. ``results.json`` has a row per
world, number of real runs, and design.
"""

import dataclasses
import pathlib

import numpy as np

from benchmarks.laws_page import table
from experiments import common
from experiments.laws_at_their_optimum import worlds
from olmix_jax.laws import FittedLaw, evaluate, floored_gp, quality, two_fidelity
from olmix_jax.laws.held_out import HeldOut
from olmix_jax.laws.scores import score
from olmix_jax.propose import make_proposal
from olmix_jax.propose.options import Options
from olmix_jax.propose.swarm_facts import SwarmFacts
from olmix_jax.utils import rng
from olmix_jax.utils.progress import log

ATTENUATION, DISTORTION = 2.0, 0.25
# Standard deviations of a measurement, relative to the BPB; .3 of the variance is common to the tasks of a run.
REAL_NOISE, CHEAP_NOISE, SHARED = 0.006, 0.003, 0.3
DOMAINS, JUDGED = 8, 60
KL_WEIGHT, SAMPLES, UNIQUE = 0.01, 100, 1e12
DESIGNS = ("real alone", "with cheap", "with unrelated")


@dataclasses.dataclass(frozen=True)
class Scale:
    """Worlds per kind, numbers of real runs, number of cheap ones, and kinds of truth."""

    worlds: int
    real: tuple[int, ...]
    cheap: int
    kinds: tuple[str, ...] = worlds.KINDS[:-1]


SCALES = {"smoke": Scale(1, (5,), 12, ("power",)), "cpu": Scale(4, (5, 8, 20), 40)}


@dataclasses.dataclass(frozen=True)
class Row:
    """One law in one world. Gains are over natural, averaged over tasks [BPB].

    Attributes:
      kind, seed, real: the world and its number of real runs.
      design: one of DESIGNS.
      used: whether the law uses the cheap runs.
      spearman: rank correlation with the truth at other mixtures, mean over tasks.
      promised: the law's difference between natural and its proposal.
      expected, low, high: of the proposal's ``gain``.
      true, best: true gain of the proposal, and the largest that was found.
    """

    kind: str
    seed: int
    real: int
    design: str
    used: bool
    spearman: float
    promised: float
    expected: float
    low: float
    high: float
    true: float
    best: float


def effects(world: worlds.World, params: worlds.Params) -> np.ndarray:
    """Return log f − log f(natural) of a truth at all mixtures of a world."""
    bpb_KN = evaluate(worlds.LAWS[world.kind], params, np.concatenate([world.natural_M[None], world.ratios_KM]))
    return np.log(bpb_KN[1:] / bpb_KN[:1])


def cheap_scores(world: worlds.World, related: bool, seed: int) -> np.ndarray:
    """Return what cheap runs measure at all mixtures of a world."""
    other = worlds.drawn(world.kind, DOMAINS, 20, seed=seed + 50_000).params
    shown_KN = effects(world, world.params)
    other_KN = effects(world, other._replace(natural_M=world.natural_M, epochs=world.params.epochs))
    other_KN = other_KN * shown_KN.std() / other_KN.std()
    draw = rng.generator(seed, "cheap_runs.noise")
    common_K1, own_KN = draw.normal(size=(len(shown_KN), 1)), draw.normal(size=shown_KN.shape)
    noise_KN = CHEAP_NOISE * (np.sqrt(SHARED) * common_K1 + np.sqrt(1 - SHARED) * own_KN)
    mixed_KN = shown_KN + DISTORTION * other_KN if related else other_KN
    return 1.2 * world.bpb_KN[0] * np.exp(mixed_KN / ATTENUATION + noise_KN)


def judged(kind: str, seed: int, real: int, design: str, cheap: int) -> Row:
    """Fit, propose, and let the truth judge."""
    world = worlds.drawn(kind, DOMAINS, real + cheap + JUDGED, noise=REAL_NOISE, shared=SHARED, seed=seed)
    ratios_KM, bpb_KN = world.ratios_KM[:real], world.bpb_KN[:real]
    law, at = two_fidelity.LAW, slice(real, real + cheap)
    if design == DESIGNS[0]:
        law = floored_gp.LAW
        params = law.fit(ratios_KM, bpb_KN).params
    else:
        cheap_KN = cheap_scores(world, design == DESIGNS[1], seed)
        params = law.fit(ratios_KM, bpb_KN, base=law.base(world.ratios_KM[at], cheap_KN[at])).params
    held_out = quality.cross_validate(law, ratios_KM, bpb_KN, folds=min(5, real), begin=params)
    names = tuple(f"d{j}" for j in range(DOMAINS))
    facts = SwarmFacts(
        tuple(f"t{i}" for i in range(bpb_KN.shape[1])),
        names,
        world.natural_M,
        UNIQUE * world.tokens_M,
        ratios_KM=ratios_KM,
        bpb_KN=bpb_KN,
        held_out=HeldOut(bpb_KN, held_out.predicted_KN, held_out.fold_K),
    )
    options = Options(
        kl_weight=KL_WEIGHT, max_repeats=worlds.REPEATS, target_tokens=UNIQUE * world.target, explore=False
    )
    fitted = FittedLaw(law, params, law.sample(params, SAMPLES, seed))
    proposal = make_proposal.propose(fitted, facts, options, seed=seed)
    proposed_1M, new_KM = np.array([[proposal.weights[name] for name in names]]), world.ratios_KM[-JUDGED:]
    true_KN = evaluate(worlds.LAWS[kind], world.params, new_KM)
    return Row(
        kind,
        seed,
        real,
        design,
        law == two_fidelity.LAW and two_fidelity.predicts_real(params),
        float(score(fitted.predict(new_KM), true_KN).spearman_N.mean()),
        proposal.headline.natural - proposal.headline.proposed,
        proposal.gain.mean,
        proposal.gain.low,
        proposal.gain.high,
        float(world.gain(proposed_1M)[0]),
        world.best_gain(proposed_1M),
    )


def summary(rows: list[Row]) -> str:
    """Return a table of means by number of real runs and design."""
    lines = []
    for real in dict.fromkeys(row.real for row in rows):
        for design in DESIGNS:
            of = [row for row in rows if (row.real, row.design) == (real, design)]
            if not of:
                continue
            lines.append((str(real), design, str(len(of)), *_cells(of)))
    header = ("real runs", "law", "worlds", "cheap used", "Spearman", "promised", "expected", "true", "best")
    return table((*header, "promised/true", "expected/true", "5–95 % holds the truth"), lines)


def _cells(rows: list[Row]) -> list[str]:
    """Return means over rows as text."""
    numbers = ("used", "spearman", "promised", "expected", "true", "best")
    mean = {name: float(np.mean([getattr(row, name) for row in rows])) for name in numbers}
    cells = [f"{100 * mean['used']:.0f} %", f"{mean['spearman']:.3f}"]
    cells += [f"{mean[name]:.4f}" for name in numbers[2:]]
    cells += [f"{mean[name] / mean['true']:.2f}" for name in ("promised", "expected")]
    return [*cells, f"{100 * np.mean([row.low <= row.true <= row.high for row in rows]):.0f} %"]


def run(scale: Scale, workdir: pathlib.Path, seed: int) -> list[Row]:
    """Judge all designs of a scale, and write the rows. The worlds are of seeds from 7000, which served no choice."""
    rows = []
    for kind in scale.kinds:
        for number in range(7000 + 100 * seed, 7000 + 100 * seed + scale.worlds):
            for real in scale.real:
                rows += [judged(kind, number, real, design, scale.cheap) for design in DESIGNS]
            log.info("%s, world %d", kind, number)
    common.write_results(workdir, {"rows": [dataclasses.asdict(row) for row in rows]})
    return rows


def main() -> None:
    flags = common.arguments(__doc__, tuple(SCALES))
    print(summary(run(SCALES[flags.scale], flags.workdir, flags.seed)))


if __name__ == "__main__":
    main()

"""Compare what every law promises at its own optimum with the truth, where the truth is known.

python -m experiments.laws_at_their_optimum --scale=cpu --workdir=runs/laws_at_their_optimum

Each world (:mod:`experiments.laws_at_their_optimum.worlds`) is a truth and a swarm that measured it with noise. Every
family fits the swarm and proposes a mixture, which the truth judges. ``results.json`` has one row per world and family.
"""

import dataclasses
import pathlib
import time

import numpy as np

from benchmarks.laws_page import table
from experiments import common
from experiments.laws_at_their_optimum import worlds
from olmix_jax.laws import LAWS, FittedLaw
from olmix_jax.propose import make_proposal
from olmix_jax.propose.next_runs import total_variation
from olmix_jax.propose.options import Options
from olmix_jax.propose.swarm_facts import SwarmFacts
from olmix_jax.utils.progress import log

FAMILIES = ("floored_gp", "warped_gp", "exposure", "log_linear")
KL_WEIGHT, SAMPLES = 0.01, 100
# Tokens of all domains together.
UNIQUE = 1e12
ALL = "all but nothing"


@dataclasses.dataclass(frozen=True)
class Scale:
    """Numbers of domains, sizes of the swarm in units of M + 1, worlds per kind and cell by number of domains."""

    domains: dict[int, int]
    sizes: tuple[float, ...]
    kinds: tuple[str, ...] = worlds.KINDS


SCALES = {
    "smoke": Scale({4: 1}, (3.0,), ("power", "nothing")),
    # 216 worlds.
    "cpu": Scale({8: 7, 24: 4, 64: 1}, (1.5, 3.0, 5.0)),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One law in one world. Gains are over natural, averaged over tasks [BPB].

    Attributes:
      kind, domains, runs, seed: the world.
      family: the law.
      status: how the solver ended.
      promised: predicted gain of the proposal, by the law that proposed it.
      expected, low, high, probability: of the proposal's ``gain``; None if the law has no samples.
      true: true gain of the proposal.
      best: largest true gain that was found.
      moved: total variation between the proposal and natural.
    """

    kind: str
    domains: int
    runs: int
    seed: int
    family: str
    status: str
    promised: float
    expected: float | None
    low: float | None
    high: float | None
    probability: float | None
    true: float
    best: float
    moved: float


def judged(world: worlds.World, seed: int) -> list[Row]:
    """Return a row for every family."""
    names = [f"d{j}" for j in range(len(world.natural_M))]
    tasks = [f"t{i}" for i in range(world.bpb_KN.shape[1])]
    facts = SwarmFacts(
        tasks, names, world.natural_M, UNIQUE * world.tokens_M, ratios_KM=world.ratios_KM, bpb_KN=world.bpb_KN
    )
    options = Options(
        kl_weight=KL_WEIGHT, max_repeats=worlds.REPEATS, target_tokens=UNIQUE * world.target, explore=False
    )
    proposals = {}
    for family in FAMILIES:
        law = LAWS[family]
        params = law.fit(world.ratios_KM, world.bpb_KN).params
        samples = None if law.sample is None else law.sample(params, SAMPLES, seed)
        proposals[family] = make_proposal.propose(FittedLaw(law, params, samples), facts, options, seed=seed)
    mixtures_QM = np.array([[p.weights[name] for name in names] for p in proposals.values()])
    true_Q, best = world.gain(mixtures_QM), world.best_gain(mixtures_QM)
    rows = []
    moved_Q = total_variation(mixtures_QM, world.natural_M[None])[:, 0]
    for (family, proposal), true, moved in zip(proposals.items(), true_Q.tolist(), moved_Q.tolist()):
        gain = proposal.gain
        rows.append(
            Row(
                world.kind,
                len(names),
                len(world.bpb_KN),
                seed,
                family,
                proposal.status.value,
                proposal.headline.natural - proposal.headline.proposed,
                *(4 * (None,) if gain is None else (gain.mean, gain.low, gain.high, gain.probability)),
                true,
                best,
                moved,
            )
        )
    return rows


def summary(rows: list[Row]) -> str:
    """Return a table of means by kind and law."""
    lines = []
    for kind in [*dict.fromkeys(row.kind for row in rows), ALL]:
        for family in dict.fromkeys(row.family for row in rows):
            of = [r for r in rows if r.family == family and (r.kind == kind or (kind == ALL and r.kind != "nothing"))]
            if of:
                lines.append((kind, family, *_cells(of)))
    header = (
        "kind",
        "law",
        "worlds",
        "promised",
        "expected",
        "true",
        "promised/true",
        "regret",
        "5–95 % covers",
        "P ≥ .95",
    )
    return table(header, lines)


def _cells(rows: list[Row]) -> list[str]:
    """Return means over rows as text."""
    promised, true, regret = (
        np.array(x) for x in zip(*((row.promised, row.true, row.best - row.true) for row in rows))
    )
    error = regret.std() / len(rows) ** 0.5
    sampled = [row for row in rows if row.expected is not None]
    cells = [str(len(rows)), f"{promised.mean():.4f}"]
    cells.append(f"{np.mean([row.expected for row in sampled]):.4f}" if sampled else "–")
    cells += [f"{true.mean():.4f}", f"{promised.mean() / true.mean():.2f}" if abs(true.mean()) > 1e-6 else "–"]
    cells.append(f"{regret.mean():.4f} ± {error:.4f}")
    if not sampled:
        return [*cells, "–", "–"]
    covers = np.mean([row.low - 1e-9 <= row.true <= row.high + 1e-9 for row in sampled])
    return [*cells, f"{100 * covers:.0f} %", f"{100 * np.mean([row.probability >= 0.95 for row in sampled]):.0f} %"]


def run(scale: Scale, workdir: pathlib.Path, seed: int) -> list[Row]:
    """Judge all laws in all worlds of a scale, and write the rows."""
    rows: list[Row] = []
    begun, total = time.monotonic(), len(scale.kinds) * len(scale.sizes) * sum(scale.domains.values())
    for domains, count in scale.domains.items():
        for size in scale.sizes:
            for kind in scale.kinds:
                for number in range(1000 * seed, 1000 * seed + count):
                    rows += judged(worlds.drawn(kind, domains, round(size * (domains + 1)), seed=number), number)
                done = len(rows) // len(FAMILIES)
                log.info("%d of %d worlds, %d domains, %s", done, total, domains, kind)
    results = {"rows": [dataclasses.asdict(row) for row in rows], "seconds": time.monotonic() - begun}
    common.write_results(workdir, results)
    return rows


def main() -> None:
    flags = common.arguments(__doc__, tuple(SCALES))
    print(summary(run(SCALES[flags.scale], flags.workdir, flags.seed)))


if __name__ == "__main__":
    main()

"""Leave a region of the mixtures out of DCLM's swarm, propose from the rest, and judge by the law of all runs.

OLMIX_DATA=… python -m experiments.laws_at_their_optimum.regions --scale=cpu --workdir=runs/regions

An optimiser may leave the region that the runs cover. Here it has to: the runs have little of a domain that a proposal
from all runs has much of, or less of it than natural. The judge has seen the runs of the region too, so it shares their
noise. ``results.json`` has a row per region. OLMIX_DATA names a folder with ``olmix_dclm``.
"""

import dataclasses
import os
import pathlib

import numpy as np

from benchmarks.laws_page import table
from experiments import common
from olmix_jax.laws import LAWS, FittedLaw
from olmix_jax.propose import make_proposal
from olmix_jax.propose.options import Options
from olmix_jax.propose.proposal import Proposal
from olmix_jax.propose.swarm_facts import SwarmFacts
from olmix_jax.swarm.table import SwarmTable
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import log

LAW = LAWS["floored_gp"]
KL_WEIGHT, SAMPLES = 0.05, 100


@dataclasses.dataclass(frozen=True)
class Region:
    """The runs whose weight of each of some domains is at most ``limit``; None: less than natural's.

    So that without a limit natural lies outside the runs.
    """

    domains: tuple[str, ...]
    limit: float | None = None


REGIONS = (
    Region(("software_development",), 0.10),
    Region(("health",)),
    Region(("politics",)),
    Region(("entertainment",)),
    Region(("health", "politics", "entertainment")),
)
# Number of tasks and of regions.
SCALES = {"smoke": (4, 1), "cpu": (None, len(REGIONS))}


@dataclasses.dataclass(frozen=True)
class Row:
    """One region. Gains are over natural, averaged over tasks [BPB].

    Attributes:
      domains: which domains the runs have little of.
      runs: number of runs in the region.
      proposed: the proposal's weight of these domains together.
      extrapolated: share of the gain that rests on weights beyond those of the runs.
      expected, low, high: of the proposal's ``gain``.
      judged: gain of the proposal by the law of all runs.
      tasks_held: share of tasks whose 5–95 % interval at the proposal holds what the law of all runs says.
      named: whether a warning of the proposal names one of the domains.
    """

    domains: tuple[str, ...]
    runs: int
    proposed: float
    extrapolated: float
    expected: float
    low: float
    high: float
    judged: float
    tasks_held: float
    named: bool


def judged(swarm: SwarmTable, region: Region, judge: FittedLaw, seed: int) -> Row:
    """Return the row of a region."""
    assert swarm.natural_M is not None
    columns = [swarm.domains.index(name) for name in region.domains]
    weight_KD, natural_D = swarm.ratios_KM[:, columns], swarm.natural_M[columns]
    in_KD = weight_KD < natural_D if region.limit is None else weight_KD <= region.limit
    in_K = in_KD.all(axis=1)
    proposal = _proposed(swarm, in_K, seed)
    proposed_M = np.array([proposal.weights[name] for name in swarm.domains])
    natural_N, all_N = judge.predict(np.stack([swarm.natural_M, proposed_M]))
    assert proposal.gain and proposal.support and proposal.predicted_low and proposal.predicted_high
    low_N, high_N = ([of[task] for task in swarm.tasks] for of in (proposal.predicted_low, proposal.predicted_high))
    return Row(
        region.domains,
        int(in_K.sum()),
        float(proposed_M[columns].sum()),
        proposal.support.extrapolated,
        proposal.gain.mean,
        proposal.gain.low,
        proposal.gain.high,
        float(np.mean(natural_N - all_N)),
        float(np.mean((low_N <= all_N) & (all_N <= high_N))),
        any(name in text for name in region.domains for text in proposal.warnings),
    )


def _proposed(swarm: SwarmTable, in_K: np.ndarray, seed: int) -> Proposal:
    """Propose from the runs ``in_K``."""
    ratios_KM, bpb_KN = swarm.ratios_KM[in_K], swarm.bpb_KN[in_K]
    params = LAW.fit(ratios_KM, bpb_KN, seed=seed).params
    fitted = FittedLaw(LAW, params, LAW.sample(params, SAMPLES, seed))  # type: ignore[misc]
    facts = SwarmFacts(swarm.tasks, swarm.domains, swarm.natural_M, ratios_KM=ratios_KM, bpb_KN=bpb_KN)
    return make_proposal.propose(fitted, facts, Options(kl_weight=KL_WEIGHT, explore=False), seed=seed)


def run(scale: str, workdir: pathlib.Path, seed: int, data: pathlib.Path) -> list[Row]:
    """Judge the regions of a scale, and write the rows."""
    tasks, number = SCALES[scale]
    folder = data / "olmix_dclm"
    swarm = SwarmTable.read(*(folder / name for name in ("ratios.csv", "metrics.csv", "meta.json")))
    swarm = dataclasses.replace(swarm, tasks=swarm.tasks[:tasks], bpb_KN=swarm.bpb_KN[:, :tasks])
    judge = FittedLaw(LAW, LAW.fit(swarm.ratios_KM, swarm.bpb_KN, seed=seed).params)
    rows = []
    for region in REGIONS[:number]:
        rows.append(judged(swarm, region, judge, seed))
        log.info("%s: %d runs", ", ".join(region.domains), rows[-1].runs)
    common.write_results(workdir, {"rows": [dataclasses.asdict(row) for row in rows]})
    return rows


def summary(rows: list[Row]) -> str:
    """Return a table of promises and what the law of all runs says."""
    lines = [
        (
            ", ".join(row.domains),
            str(row.runs),
            f"{row.proposed:.2f}",
            f"{100 * row.extrapolated:.0f} %",
            f"{row.expected:.3f}",
            f"{row.low:.3f} to {row.high:.3f}",
            f"{row.judged:.3f}",
            f"{100 * row.tasks_held:.0f} %",
            "yes" if row.named else "no",
        )
        for row in rows
    ]
    header = "few of", "runs", "proposed", "extrapolated", "expected", "5–95 %", "by all runs", "task intervals hold"
    return table((*header, "warned of"), lines)


def main() -> None:
    flags = common.arguments(__doc__, tuple(SCALES))
    data = os.environ.get("OLMIX_DATA")
    if not data:
        raise UserError("set OLMIX_DATA to the folder with olmix_dclm")
    print(summary(run(flags.scale, flags.workdir, flags.seed, pathlib.Path(data))))


if __name__ == "__main__":
    main()

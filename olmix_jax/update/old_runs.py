"""Runs from before an update: expressed on the new domains, and weighted by how well they predict the new runs."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from olmix_jax.laws import Law, quality
from olmix_jax.laws.fit_result import Over
from olmix_jax.propose.blocks import collapse, form_blocks
from olmix_jax.swarm import table
from olmix_jax.swarm.domains import DomainSet
from olmix_jax.update import changes, history
from olmix_jax.update.update_plan import UpdatePlan, read_if_any
from olmix_jax.utils.progress import log

# An old run is used if more than this share of its weight is on domains that the new set can express.
MIN_EXPRESSIBLE = 0.5
# Candidates for the weight of an old run relative to a new one. Held-out new runs decide between them.
TRUSTS = (0.1, 0.3, 1.0)
# Factor of the trust for each further update since the run.
FADE = 0.5
# Trust that is assumed before there are new runs.
EXPECTED_TRUST = 0.3


@dataclasses.dataclass(frozen=True)
class Runs:
    """Runs of one workdir, expressed on the domains of a later one.

    Attributes:
      ratios_KM: mixtures.
      bpb_KN: scores, corrected for lost domains.
      doubt_K: additional variance from this correction, in units of the noise variance.
      age: number of updates since.
    """

    ratios_KM: np.ndarray
    bpb_KN: np.ndarray
    doubt_K: np.ndarray
    age: int

    def __len__(self) -> int:
        return len(self.doubt_K)

    def trust(self, base: float) -> np.ndarray:
        """Return trust_K, the weights relative to a new run.

        Args:
          base: the trust in a run from one update ago that is expressed exactly.
        """
        return 1 / (1 / (base * FADE ** (self.age - 1)) + self.doubt_K)

    def select(self, keep_K: np.ndarray) -> "Runs":
        """Return the runs where ``keep_K`` is true."""
        return Runs(self.ratios_KM[keep_K], self.bpb_KN[keep_K], self.doubt_K[keep_K], self.age)


@dataclasses.dataclass(frozen=True)
class FitTable:
    """The table that the law of an update is fitted to.

    Attributes:
      table: the new runs over blocks or domains, with old runs if they help.
      over: whether it is over blocks or domains.
      trust: the trust in old runs; 0 if they are not used.
      error: cross-validated error of new runs by trust, in standard deviations of each task.
    """

    table: table.SwarmTable
    over: Over
    trust: float
    error: dict[float, float]


def read_runs(workdir: pathlib.Path, change: changes.Change, tokens_M: np.ndarray, tasks: Sequence[str]) -> list[Runs]:
    """Read all runs of ``workdir`` and its ancestors, expressed on the new domains of ``change``.

    If a run has weight on a lost domain, that weight is removed and the rest scaled up. Its scores change by as much as
    the law of that run's domain set predicts, and the square of this correction is added to its noise variance. Runs
    with most of their weight on lost domains are left out, and workdirs whose law lacks a task.

    Args:
      workdir: the parent.
      change: from its domains to the new ones.
      tokens_M: unique tokens of the new domains.
      tasks: N names, the order of the scores.
    """
    noise, plan, runs = history.read_noise(workdir), read_if_any(workdir), []
    missing = [task for task in tasks if task not in noise.std]
    if missing:
        log.info("update: the runs of %s are left out because they have no scores for %s", workdir, ", ".join(missing))
        return []
    swarm = history.trained_table(workdir)
    if swarm is not None:
        columns = [swarm.tasks.index(task) for task in tasks]
        runs.append(Runs(swarm.ratios_KM, swarm.bpb_KN[:, columns], np.zeros(len(swarm.runs)), 0))
    if plan is not None:
        domains = DomainSet.read(workdir / "domains.json")
        runs += read_runs(pathlib.Path(plan.parent), plan.change, domains.tokens_M, tasks)
    law, columns = history.read_law(workdir), [noise.tasks.index(task) for task in tasks]
    noise_N = np.array([noise.std[task] for task in tasks])

    def predict(ratios_KM):
        return law.predict(ratios_KM)[:, columns]

    expressed = [_express(old, change.mixture_matrix(tokens_M), predict, noise_N) for old in runs]
    return [old for old in expressed if len(old)]


def choose_table(plan: UpdatePlan, swarm: table.SwarmTable, runs: Sequence[Runs], law: Law, seed: int) -> FitTable:
    """Choose the table that the law of an update is fitted to.

    A law over blocks has the fewest weights, but old runs are mixtures of domains. So there is one table over blocks
    with new runs alone, and one over domains with old runs for each of TRUSTS. The table is taken whose law predicts
    held-out new runs best.

    Args:
      plan: the update plan, for its kept blocks.
      swarm: the new runs over domains.
      runs: old runs.
      law: the family.
      seed: of the cross-validation.
    """
    fresh, tables = without_new(runs, swarm), {0.0: _over_blocks(swarm, plan)}
    if fresh:
        tables |= {trust: with_old(swarm, fresh, trust) for trust in TRUSTS}
    error = {trust: _cross_validated_error(law, candidate, seed) for trust, candidate in tables.items()}
    best = min(error, key=lambda trust: error[trust])
    over = Over.DOMAINS if best or not plan.kept else Over.BLOCKS
    errors = ", ".join(f"{trust:g}: {value:.4f}" for trust, value in error.items())
    log.info("update: an old run has weight %g, a new run 1 (held-out error in std by weight: %s)", best, errors)
    return FitTable(tables[best], over, best, error)


def with_old(swarm: table.SwarmTable, runs: Sequence[Runs], trust: float) -> table.SwarmTable:
    """Return the new swarm with the old runs that it does not contain, with weights by :meth:`Runs.trust`."""
    runs = without_new(runs, swarm)
    ratios_JM, bpb_JN = (np.concatenate([getattr(r, f) for r in runs]) for f in ("ratios_KM", "bpb_KN"))
    inherited = table.Inherited(ratios_JM, bpb_JN, np.concatenate([old.trust(trust) for old in runs]))
    return dataclasses.replace(swarm, inherited=inherited)


def without_new(runs: Sequence[Runs], swarm: table.SwarmTable) -> list[Runs]:
    """Return the old runs without those that the new table contains too, which would count twice."""
    result = []
    for old in runs:
        fresh_K = ~(old.bpb_KN[:, None] == swarm.bpb_KN).all(axis=2).any(axis=1)
        result += [old.select(fresh_K)] if fresh_K.any() else []
    return result


def _over_blocks(swarm: table.SwarmTable, plan: UpdatePlan) -> table.SwarmTable:
    blocks = form_blocks(plan.kept, swarm.domains)
    return dataclasses.replace(
        swarm,
        domains=blocks.names,
        ratios_KM=collapse(swarm.ratios_KM, blocks),
        natural_M=None if swarm.natural_M is None else collapse(swarm.natural_M, blocks),
        tokens_M=None if swarm.tokens_M is None else collapse(swarm.tokens_M, blocks),
    )


def _cross_validated_error(law: Law, swarm: table.SwarmTable, seed: int) -> float:
    """Root mean squared cross-validated error of new runs, in standard deviations of each task."""
    result = quality.cross_validate(
        law,
        swarm.ratios_KM,
        swarm.bpb_KN,
        folds=min(5, len(swarm.runs)),
        seed=seed,
        starts=4,
        inherited=swarm.inherited,
    )
    return float(np.sqrt(np.mean((result.rmse_N / np.maximum(swarm.bpb_KN.std(axis=0), 1e-9)) ** 2)))


def _express(
    runs: Runs, matrix_OM: np.ndarray, predict: Callable[[np.ndarray], np.ndarray], noise_N: np.ndarray
) -> Runs:
    """Express runs on new domains.

    Args:
      runs: runs on the old domains.
      matrix_OM: maps old mixtures to new ones (:meth:`olmix_jax.update.changes.Change.mixture_matrix`).
      predict: the law over the old domains, ratios_KO → bpb_KN.
      noise_N: standard deviation of a score [BPB].
    """
    expressed_KM = runs.ratios_KM @ matrix_OM
    share_K = expressed_KM.sum(axis=1)
    keep_K = share_K > MIN_EXPRESSIBLE
    # The old mixtures without lost domains.
    remaining_KO = np.where(matrix_OM.any(axis=1), runs.ratios_KM, 0.0)[keep_K] / share_K[keep_K, None]
    correction_KN = np.zeros_like(runs.bpb_KN[keep_K])
    if (share_K[keep_K] < 1 - 1e-9).any():
        correction_KN = predict(remaining_KO) - predict(runs.ratios_KM[keep_K])
    doubt_K = runs.doubt_K[keep_K] + (correction_KN**2 / noise_N**2).mean(axis=1)
    ratios_KM = expressed_KM[keep_K] / share_K[keep_K, None]
    return Runs(ratios_KM, runs.bpb_KN[keep_K] + correction_KN, doubt_K, runs.age + 1)

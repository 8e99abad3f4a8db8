"""Rounds: runs that were trained to test a proposal, and the gain that they measured beside the promised one.

The gain of a proposal is the task-weighted BPB of natural minus that of the proposal. A fitted law promises it before
the round's runs are trained, as a mean with a 5–95 % interval. The runs measure it:

    G = mean of y over the n runs of natural − mean of y over the m runs of the proposal,   error² = s² (1/n + 1/m),

with s the standard deviation of a held-out run around the law's prediction. So s holds the noise of a run, and the
law's own error too, which makes the error rather too large than too small. The law that promises was fitted to the run
of natural that measures, from the second round on and in the first round too if the swarm has such a run. The run of
the proposal is new, unless the swarm or an earlier round has the same mixture.

G is compatible with the promise if it is within the promised interval, each half of it widened by 1.645 errors in
quadrature. It agrees if it also tells a gain from none: the widened interval does not hold 0, and G is more than one
error from 0.
"""

import dataclasses
import enum
import os
import pathlib

import numpy as np

from olmix_jax.swarm import fidelity
from olmix_jax.swarm.table import SwarmTable
from olmix_jax.utils import files, records
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.names import listed

# Paths below the workdir.
FOLDER = "rounds"
RECORD = "rounds/rounds.json"
# Mixtures that are closer than this in total variation are the same.
SAME = 1e-6
# Standard deviations from the mean to the 95 % quantile of a normal distribution.
Z = 1.645
TOO_LARGE = "compatible, but the error is too large to tell a gain from none"


class Verdict(enum.Enum):
    """How a measured gain compares with the promised one, in words for a table."""

    NOT_MEASURED = "not measured"
    AGREE = "agree"
    UNRESOLVED = "compatible, error too large"
    DISAGREE = "disagree"


@dataclasses.dataclass(frozen=True)
class Round:
    """A proposal, the gain that was promised for it, and the gain that its round measured.

    Attributes:
      natural, proposed: the mixtures as runs train them, in whole sequences: {domain: weight}.
      task_weights: weights of the tasks, of sum 1.
      promised: promised gain [BPB].
      low, high: 5 % and 95 % quantile of the promise [BPB]; None without error bars.
      run_error: standard deviation of a held-out run around the law's prediction [BPB]; None if unknown.
      runs: runs of this round that have scores; 0 before they are trained.
      tokens: tokens that they were trained on; None if they were trained elsewhere.
      measured: measured gain [BPB]; None if natural or the proposal has no score.
      error: its standard error [BPB].
      agrees: whether the measurement is compatible with the promise; None without a measurement.
      swarm: :func:`run_digests` of an external swarm that the proposal was made from; empty in files of earlier
        versions.
      settings: digest of the settings of fit and propose; empty in files of earlier versions.
    """

    natural: dict[str, float]
    proposed: dict[str, float]
    task_weights: dict[str, float]
    promised: float
    low: float | None = None
    high: float | None = None
    run_error: float | None = None
    runs: int = 0
    tokens: int | None = None
    measured: float | None = None
    error: float | None = None
    agrees: bool | None = None
    swarm: tuple[str, ...] = ()
    settings: str = ""

    @property
    def expected(self) -> tuple[float, float]:
        """Ends of the 5–95 % interval of a measurement, given the promise [BPB]."""
        ends = [self.promised if end is None else end for end in (self.low, self.high)]
        widening = Z * (self.error or 0.0)
        below, above = (float(np.hypot(self.promised - end, widening)) for end in ends)
        return self.promised - below, self.promised + above

    @property
    def verdict(self) -> Verdict:
        """Whether promise and measurement agree, disagree, or are compatible only because the error is large."""
        if self.measured is None:
            return Verdict.NOT_MEASURED
        if not self.agrees:
            return Verdict.DISAGREE
        low, high = self.expected
        unresolved = low <= 0 <= high or abs(self.measured) <= (self.error or 0.0)
        return Verdict.UNRESOLVED if unresolved else Verdict.AGREE

    @property
    def outcome(self) -> str:
        """Promise and measurement in words."""
        text = f"promised a gain of {self.promised:+.4f} BPB"
        if self.low is not None and self.high is not None:
            text += f" (5–95 %: {self.low:+.4f} to {self.high:+.4f})"
        if self.measured is None:
            return f"{text}, not measured"
        text += f", measured {self.measured:+.4f}" + ("" if self.error is None else f" ± {self.error:.4f}")
        comparison = {
            Verdict.AGREE: "they agree within the error",
            Verdict.UNRESOLVED: TOO_LARGE,
            Verdict.DISAGREE: "they disagree",
        }
        return f"{text}: {comparison[self.verdict]}"

    def measure(self, table: SwarmTable) -> "Round":
        """Return the round with the gain that the runs of a table measure; unchanged if the table has other tasks."""
        if set(table.tasks) != set(self.task_weights) or set(table.domains) != set(self.natural):
            return self
        bpb_K = table.bpb_KN @ np.array([self.task_weights[task] for task in table.tasks])
        natural, proposed = (bpb_K[_is_at(table, mixture)] for mixture in (self.natural, self.proposed))
        if not (len(natural) and len(proposed)):
            return dataclasses.replace(self, measured=None, error=None, agrees=None)
        gain = float(natural.mean() - proposed.mean())
        error = None if self.run_error is None else self.run_error * (1 / len(natural) + 1 / len(proposed)) ** 0.5
        result = dataclasses.replace(self, measured=gain, error=error)
        low, high = result.expected
        return dataclasses.replace(result, agrees=low <= gain <= high)


def _is_at(table: SwarmTable, mixture: dict[str, float]) -> np.ndarray:
    weights_M = np.array([mixture[domain] for domain in table.domains])
    return np.abs(table.ratios_KM - weights_M[None, :]).sum(axis=1) / 2 <= SAME


@dataclasses.dataclass(frozen=True)
class Rounds:
    """The content of ``rounds/rounds.json``: all rounds, the first one first."""

    SCHEMA = 1

    rounds: tuple[Round, ...] = ()

    @classmethod
    def read(cls, workdir: pathlib.Path) -> "Rounds":
        """Read the rounds of a workdir; none if it has none.

        Raises:
          UserError: the file does not hold rounds; the message names the field.
        """
        path = workdir / RECORD
        return records.read(path, cls, "rounds") if path.is_file() else cls()

    def write(self, workdir: pathlib.Path) -> None:
        """Write the file atomically."""
        records.write(workdir / RECORD, self)

    def with_round(self, number: int, changed: Round) -> "Rounds":
        """Return the rounds with another round ``number``, counted from 1, or with this one added at the end."""
        return Rounds((*self.rounds[: number - 1], changed, *self.rounds[number:]))


def folder(number: int) -> str:
    """Return the folder of a round's files, relative to the workdir; rounds count from 1."""
    return f"{FOLDER}/{number}"


def trained(workdir: str | os.PathLike) -> list[str]:
    """Return the folders of the recorded rounds that have scores, relative to the workdir, in order."""
    root = pathlib.Path(workdir)
    places = [folder(number) for number in range(1, len(Rounds.read(root).rounds) + 1)]
    return [place for place in places if (root / place / "metrics.csv").is_file()]


def tables(workdir: str | os.PathLike) -> tuple[str, ...]:
    """Return the files of these rounds that a law is fitted to."""
    return tuple(f"{place}/{name}" for place in trained(workdir) for name in ("ratios.csv", "metrics.csv"))


def run_digests(swarm: SwarmTable) -> tuple[str, ...]:
    """Return a digest of the id and the mixture of every run, whatever the order of the domains."""
    weights = [dict(zip(swarm.domains, ratios_M.round(6).tolist())) for ratios_M in swarm.ratios_KM]
    return tuple(files.digest([run, mixture]) for run, mixture in zip(swarm.runs, weights, strict=True))


def joined(one: SwarmTable, other: SwarmTable) -> SwarmTable:
    """Return ``one`` with the runs of ``other`` that it lacks. Both have the same domains and tasks, in any order.

    Raises:
      UserError: the runs of ``one`` differ in length, and those of ``other`` are not known.
    """
    if one.lengths is not None:
        raise UserError(
            f"the swarm has lengths of its runs (swarm.tokens), and {listed(other.runs)} of a round has none; add the "
            "runs of rounds to swarm.ratios, swarm.metrics and swarm.tokens"
        )
    other = other.ordered(one.domains)
    new = [k for k, run in enumerate(other.runs) if run not in one.runs]
    tasks = [other.tasks.index(task) for task in one.tasks]
    return dataclasses.replace(
        one,
        runs=one.runs + tuple(other.runs[k] for k in new),
        names=one.names + tuple(other.names[k] for k in new),
        ratios_KM=np.concatenate([one.ratios_KM, other.ratios_KM[new]]),
        bpb_KN=np.concatenate([one.bpb_KN, other.bpb_KN[new][:, tasks]]),
        diverged=one.diverged + other.diverged,
        warnings=one.warnings + other.warnings,
        cheap=fidelity.both(one.cheap, other.cheap, tasks),
    )

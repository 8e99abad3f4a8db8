"""The facts about a swarm that a proposal depends on."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from olmix_jax.laws.held_out import HeldOut
from olmix_jax.swarm.lengths import Lengths
from olmix_jax.swarm.table import SwarmTable
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import log


@dataclasses.dataclass(frozen=True, eq=False)
class SwarmFacts:
    """Names, sizes and runs of a swarm.

    Attributes:
      tasks: N names, in the order of the law's predictions.
      domains: M names, in column order.
      natural_M: natural distribution p0, of any positive sum.
      tokens_M: unique tokens per domain; None leaves repetition uncapped. Without ``token_counts``, those of the median
        run, if runs differ in length or pools.
      sizes_N: how many tasks each task stands for, if it is a mean of several; None for one each.
      families: {family: task names or patterns}, see :func:`olmix_jax.swarm.task_groups.families_of`.
      ratios_KM: the runs' mixtures: starting points, candidates, and data to choose λ from; None without runs.
      bpb_KN: the runs' measurements, to choose λ from; None disables that.
      held_out: the runs and what laws that have not seen them predict. By default a law that is cheap to fit is
        cross-validated.
      inherited_JM: mixtures of earlier runs that the law was fitted to as well, in an update.
      lengths: training tokens and unique tokens of the runs; None if they are alike.
    """

    tasks: Sequence[str]
    domains: Sequence[str]
    natural_M: Any
    tokens_M: Any = None
    sizes_N: Any = None
    families: Mapping[str, Sequence[str]] | None = None
    ratios_KM: Any = None
    bpb_KN: Any = None
    held_out: HeldOut | None = None
    inherited_JM: Any = None
    lengths: Lengths | None = None

    @property
    def tested_QM(self) -> np.ndarray | None:
        """Mixtures of all runs that the law was fitted to; None without runs."""
        parts = [np.asarray(x, np.float64) for x in (self.ratios_KM, self.inherited_JM) if x is not None and len(x)]
        return np.concatenate(parts) if parts else None

    @classmethod
    def from_table(cls, table: SwarmTable, families: Mapping[str, Sequence[str]] | None = None) -> "SwarmFacts":
        """Return the facts in a swarm's table.

        Raises:
          UserError: the table has no natural distribution.
        """
        if table.natural_M is None:
            raise UserError("the natural distribution is unknown; set swarm.meta to a file with `relative_sizes`")
        has_runs, tokens_M = len(table.runs) > 0, table.tokens_M
        if tokens_M is None and table.lengths is not None:
            tokens_M = np.median(table.lengths.unique_KM, axis=0)
            log.info("propose: no token_counts; repetition is that of the median run's unique tokens (swarm.tokens)")
        return cls(
            tasks=table.tasks,
            domains=table.domains,
            natural_M=table.natural_M,
            tokens_M=tokens_M,
            sizes_N=table.sizes_N,
            families=families,
            ratios_KM=table.ratios_KM if has_runs else None,
            bpb_KN=table.bpb_KN if has_runs else None,
            inherited_JM=None if table.inherited is None else table.inherited.ratios_JM,
            lengths=table.lengths if has_runs else None,
        )

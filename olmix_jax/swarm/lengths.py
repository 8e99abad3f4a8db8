"""How long each run was trained and how much unique text it had: the file ``swarm.tokens`` of an external swarm.

Columns ``run,tokens,‹domain…›``: the training tokens R_k of a run, and its unique tokens N_kj of each domain. A domain
without a column has its ``token_counts`` in every run. So a mixture p repeats domain j for p_j R_k / N_kj epochs.
"""

import os
from typing import NamedTuple

import numpy as np

from olmix_jax.swarm import csv_files
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.names import listed, shown


class Lengths(NamedTuple):
    """Training tokens of each run, R, and its unique tokens of each domain, N."""

    tokens_K: np.ndarray
    unique_KM: np.ndarray


def rows(ratios_KM, lengths: Lengths) -> np.ndarray:
    """Return what a law in exposures reads of runs: a row [p_M | N_M | R] each."""
    return np.concatenate([ratios_KM, pairs(lengths)], axis=1)


def pairs(lengths: Lengths) -> np.ndarray:
    """Return [N_M | R] of each run."""
    return np.concatenate([lengths.unique_KM, lengths.tokens_K[:, None]], axis=1)


def groups(lengths: Lengths) -> np.ndarray:
    """Return a number from 0 for each run, group_K; runs of equal R and N_M share it."""
    return np.ravel(np.unique(pairs(lengths), axis=0, return_inverse=True)[1])


def levels(lengths: Lengths, ratios_KM) -> np.ndarray:
    """Return what the level of BPB depends on whatever the mixture, level_KC: a quadratic in log R and log e.

    e are the epochs of the runs' mean mixture p̄, averaged over its tokens: Σ_j p̄_j · p̄_j R/N_j.
    """
    mean_M = np.asarray(ratios_KM).mean(axis=0)
    epochs_K = lengths.tokens_K * (mean_M**2 / lengths.unique_KM).sum(axis=1)
    log_K2 = np.log(np.stack([lengths.tokens_K, epochs_K], axis=1))
    x_K, y_K = (log_K2 - log_K2.mean(axis=0)).T
    return np.stack([x_K, y_K, x_K**2, x_K * y_K, y_K**2], axis=1)


def read_lengths(
    path: str | os.PathLike,
    known: csv_files.Sheet,
    runs: tuple[str, ...],
    domains: tuple[str, ...],
    tokens_M: np.ndarray | None,
) -> Lengths | None:
    """Read the lengths of ``runs``; None if all are alike, because then weights and epochs cannot be told apart.

    Args:
      path: the file; empty if all runs are alike.
      known: the mixtures; their other runs, which the table leaves out, may have rows too.
      runs: the table's runs.
      domains: the table's domains.
      tokens_M: ``token_counts`` of the domains, for those without a column; None if not known.

    Raises:
      UserError: a run or column is unknown, a run has no row, a value is not positive, or a pool is not known.
    """
    if not path:
        return None
    sheet = csv_files.read_sheet(path)
    if "tokens" not in sheet.columns:
        raise UserError(f"{sheet.path}: line 1: no column tokens; add it, with the training tokens of each run")
    if unknown := [c for c in sheet.columns if c != "tokens" and c not in domains]:
        raise UserError(
            f"{sheet.path}: line 1: unknown column {listed(list(map(shown, unknown)))}; columns are run, tokens, and "
            f"the domains of {known.path}: {', '.join(domains)}"
        )
    if unknown := [run for run in sheet.rows if run not in known.rows]:
        raise UserError(
            f"{sheet.path}: {listed(unknown)}: no such {known.key} in {known.path}; correct or delete the row"
        )
    if missing := [run for run in runs if run not in sheet.rows]:
        raise UserError(f"{sheet.path}: no row for {listed(missing)} of {known.path}; add the tokens of every run")
    without = [domain for domain in domains if domain not in sheet.columns]
    if without and tokens_M is None:
        raise UserError(
            f"{sheet.path}: no column for {listed(list(map(shown, without)))}, and no `token_counts` in swarm.meta; "
            "add the unique tokens of these domains to one of them"
        )

    def column(name: str) -> list[float]:
        if name in without and tokens_M is not None:
            return [float(tokens_M[domains.index(name)])] * len(runs)
        return [_positive(sheet, run, name) for run in runs]

    lengths = Lengths(np.array(column("tokens")), np.array([column(domain) for domain in domains]).T)
    return lengths if groups(lengths).max() else None


def _positive(sheet: csv_files.Sheet, run: str, column: str) -> float:
    value = sheet.number(run, column)
    if value is None or value <= 0:
        raise UserError(f"{sheet.where(run, column)}: {sheet.quoted(run, column)}; write a positive number of tokens")
    return value

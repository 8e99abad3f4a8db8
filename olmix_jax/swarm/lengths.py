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
from olmix_jax.utils.progress import log

# The column of training tokens.
TOKENS = "tokens"
# Training tokens that are more times or fewer than this the unique tokens of every domain are in other units.
UNITS = 1e6


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
    ratios: csv_files.Sheet,
    runs: tuple[str, ...],
    domains: tuple[str, ...],
    tokens_M: np.ndarray | None,
) -> Lengths | None:
    """Read the lengths of ``runs``; None if all are alike, because then weights and epochs cannot be told apart.

    Args:
      path: the file; empty if all runs are alike.
      ratios: the mixtures; their other runs, which the table leaves out, may have rows too.
      runs: the table's runs.
      domains: the table's domains.
      tokens_M: ``token_counts`` of the domains, for those without a column; None if not given.

    Raises:
      UserError: a run or column is unknown, a run has no row, a value is not positive, a pool is not given, or the
        units of lengths and pools differ.
    """
    if not path:
        return None
    sheet = csv_files.read_sheet(path)
    _check_columns(sheet, ratios, domains)
    if unknown := [run for run in sheet.rows if run not in ratios.rows]:
        raise UserError(
            f"{sheet.path}: {listed(unknown)}: no such {ratios.key} in {ratios.path}; correct or delete the row"
        )
    if missing := [run for run in runs if run not in sheet.rows]:
        raise UserError(f"{sheet.path}: no row for {listed(missing)} of {ratios.path}; add the tokens of every run")
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
    _check_units(sheet, lengths)
    if groups(lengths).max():
        return lengths
    caps = "; for caps on repetition, give `token_counts` in swarm.meta" if tokens_M is None else ""
    log.info("%s: no effect, because all runs have the same training tokens and unique tokens%s", sheet.path, caps)
    return None


def _check_columns(sheet: csv_files.Sheet, ratios: csv_files.Sheet, domains: tuple[str, ...]) -> None:
    """Raise an error unless the columns are ``tokens`` and domains."""
    if TOKENS in domains:
        raise UserError(
            f"{ratios.path}: a domain is called {TOKENS}, as the column of training tokens in {sheet.path}; rename it"
        )
    if TOKENS not in sheet.columns:
        similar = [c for c in sheet.columns if c.casefold() == TOKENS]
        remedy = f"rename {similar[0]}" if similar else "add it, with the training tokens of each run"
        raise UserError(f"{sheet.path}: line 1: no column {TOKENS}; {remedy}")
    if unknown := [c for c in sheet.columns if c != TOKENS and c not in domains]:
        raise UserError(
            f"{sheet.path}: line 1: unknown column {listed(list(map(shown, unknown)))}; columns are run, {TOKENS}, and "
            f"the domains of {ratios.path}: {', '.join(domains)}"
        )


def _check_units(sheet: csv_files.Sheet, lengths: Lengths) -> None:
    """Raise an error if no run can read a millionth of any domain, or if all read every domain a million times."""
    epochs_KM = lengths.tokens_K[:, None] / lengths.unique_KM
    if epochs_KM.max() < 1 / UNITS or epochs_KM.min() > UNITS:
        ranges = [f"{x.min():.3g} to {x.max():.3g}" for x in lengths]
        raise UserError(
            f"{sheet.path}: column {TOKENS} has {ranges[0]}, and the unique tokens of domains are {ranges[1]}; write "
            "both in tokens, not one of them in millions or billions"
        )


def _positive(sheet: csv_files.Sheet, run: str, column: str) -> float:
    text = sheet.rows[run].cells[column]
    if csv_files.number_in(text) is None and any(c.isdigit() for c in text):
        raise UserError(
            f"{sheet.where(run, column)}: {text!r} is not a finite number; write tokens as 4000000000 or 4e9, without "
            "units or separators"
        )
    value = sheet.number(run, column)
    if value is None or value <= 0:
        raise UserError(f"{sheet.where(run, column)}: {sheet.quoted(run, column)}; write a positive number of tokens")
    return value

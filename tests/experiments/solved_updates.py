"""Updates of a domain set that are solved exactly: before, after, and with reuse of the old ratios."""

from typing import NamedTuple

import numpy as np
import scipy.stats

from experiments.reuse_theory import cost_bounds
from olmix_jax.laws import log_linear
from olmix_jax.propose.blocks import Blocks, collapsed_anchor, collapsed_bounds
from olmix_jax.solver import batch
from olmix_jax.solver.bounds import box
from olmix_jax.solver.problem import Problem

# Columns of every problem: unaffected, new and old domains. Unused columns have no tokens, so all shapes are equal.
FIXED, NEW, GONE, TASKS = 8, 4, 4, 12
DOMAINS = FIXED + NEW + GONE
COLUMN = np.arange(DOMAINS)
CENTRED = (False, True)


class Case(NamedTuple):
    """An update of a domain set, before it is solved; masks mark the unaffected, new and old domains."""

    coef_NM: np.ndarray
    weights_N: np.ndarray
    tokens_M: np.ndarray
    upper_M: np.ndarray
    kl_weight: float
    fixed_M: np.ndarray
    new_M: np.ndarray
    gone_M: np.ndarray

    def natural_M(self, side):
        """Return the natural mixture before ("gone_M") or after ("new_M") the update."""
        tokens_M = np.where(self.fixed_M | getattr(self, side), self.tokens_M, 0.0)
        return tokens_M / tokens_M.sum()


class Solved(NamedTuple):
    """A solved update, its reuse gap, and its loss [BPB]."""

    update: cost_bounds.SolvedUpdate
    gap: float
    loss: float


def masks(fixed, new, gone):
    """Return the masks of ``fixed`` unaffected, ``new`` new and ``gone`` old domains."""
    return COLUMN < fixed, (FIXED <= COLUMN) & (COLUMN < FIXED + new), (FIXED + NEW <= COLUMN) & (COLUMN < 12 + gone)


def minimise(cases, natural_PM, upper_PM, coef_PNM):
    """Solve all problems, repeated to a fixed number so that the program is compiled once."""
    rows = np.arange(max(len(cases), batch.MANY)) % len(cases)
    natural_PM, upper_PM, coef_PNM = (np.array(x)[rows] for x in (natural_PM, upper_PM, coef_PNM))
    params = log_linear.Params(np.zeros((len(rows), TASKS)), coef_PNM)
    weights_PN, kl_weight_P = np.array([c.weights_N for c in cases])[rows], np.array([c.kl_weight for c in cases])[rows]
    starts_PM = natural_PM / natural_PM.sum(axis=1, keepdims=True)
    shared = Problem(
        log_linear.LAW, None, np.full(TASKS, 1 / TASKS), None, box(np.zeros(DOMAINS), np.ones(DOMAINS)), 1.0
    )
    varying = batch.Varying(params, weights_PN, natural_PM, upper_M=upper_PM, kl_weight=kl_weight_P, start_M=starts_PM)
    solution = batch.solve_each(shared, varying)
    assert (solution.gap < 1e-12).all()
    return solution


def optima(cases, side):
    """Solve all cases before ("gone_M") or after ("new_M") the update."""
    natural_PM = np.array([c.natural_M(side) for c in cases])
    upper_PM = np.where(natural_PM > 0, [c.upper_M for c in cases], 0.0)
    return minimise(cases, natural_PM, upper_PM, [c.coef_NM for c in cases])


def collapsed(case, ratios_M, kept_M):
    """Return anchor, caps and coefficients over the block of ``kept_M`` and the other domains; None if infeasible."""
    natural_M, row_M = case.natural_M("new_M"), np.where(kept_M, ratios_M, 0.0)
    alone = np.flatnonzero((natural_M > 0) & ~kept_M)
    blocks = Blocks(tuple(map(str, range(1 + len(alone)))), np.stack([row_M / row_M.sum(), *np.eye(DOMAINS)[alone]]))
    upper_D = collapsed_bounds(box(np.zeros(DOMAINS), case.upper_M), blocks).upper_M
    if upper_D.sum() < 1 - 1e-13:
        return None
    fill, coef_ND = (0, DOMAINS - len(upper_D)), case.coef_NM @ blocks.ratios_DM.T
    return (
        np.pad(collapsed_anchor(natural_M, blocks), fill),
        np.pad(upper_D, fill),
        np.pad(coef_ND, ((0, 0), fill)),
    )


def solve(cases):
    """Solve every case before the update, after it, and with reuse. Infeasible cases are dropped."""
    old, full = optima(cases, "gone_M"), optima(cases, "new_M")
    reduced = [collapsed(c, q_M, c.fixed_M) for c, q_M in zip(cases, old.weights_M)]
    rows = [i for i, problem in enumerate(reduced) if problem is not None]
    value_R = minimise([cases[i] for i in rows], *zip(*[reduced[i] for i in rows])).value
    return [solved(cases[i], old, full, i, value) for i, value in zip(rows, value_R)]


def solved(case, old, full, i, value):
    """Return case i as a :class:`Solved`; ``value`` is the objective with reuse."""
    here_M, tasks_N, fixed_M = case.fixed_M | case.new_M, case.weights_N > 0, case.fixed_M
    update = cost_bounds.SolvedUpdate(
        coef_NM=case.coef_NM[tasks_N][:, here_M],
        task_weights_N=case.weights_N[tasks_N],
        kl_weight=case.kl_weight,
        natural_M=case.natural_M("new_M")[here_M],
        upper_M=case.upper_M[here_M],
        fixed_M=fixed_M[here_M],
        full_M=full.weights_M[i][here_M],
        prices_M=full.multipliers_M[i][here_M],
        kept_F=old.weights_M[i][fixed_M] / old.weights_M[i][fixed_M].sum(),
        kept_prices_F=old.multipliers_M[i][fixed_M],
        gone_NG=case.coef_NM[tasks_N][:, case.gone_M],
        gone_G=old.weights_M[i][case.gone_M],
    )
    gap = cost_bounds.reuse_gap(update.kept_F, update.full_M, update.fixed_M)
    return Solved(update, gap, float(value - full.value[i]))


def random_case(rng):
    """Draw an update of random size: add (70 %), remove or revise. In 40 % the caps sum to only 1.05 to 1.5."""
    kind, fixed, tasks = rng.choice(3, p=[0.7, 0.15, 0.15]), rng.integers(2, FIXED + 1), rng.integers(2, TASKS + 1)
    new, gone = 0 if kind == 1 else rng.integers(1, NEW + 1), 0 if kind == 0 else rng.integers(1, GONE + 1)
    fixed_M, new_M, gone_M = masks(fixed, new, gone)
    coef_NM = 0.5 * rng.normal(size=(TASKS, 1)) + rng.choice([0.1, 0.3, 1, 2]) * rng.normal(size=(TASKS, DOMAINS))
    weights_N = np.pad(rng.dirichlet(np.ones(tasks)), (0, TASKS - tasks))
    tokens_M = np.exp(rng.normal(size=DOMAINS))
    room = rng.uniform(1.05, 1.5) if rng.uniform() < 0.4 else rng.uniform(3, 20)
    caps_M = tokens_M * room / min(tokens_M[fixed_M | gone_M].sum(), tokens_M[fixed_M | new_M].sum())
    kl_weight = float(rng.choice([0.01, 0.05, 0.3]))
    return Case(coef_NM, weights_N, tokens_M, np.minimum(caps_M, 1), kl_weight, fixed_M, new_M, gone_M)


def wanted_case(rng, new, help):
    """Draw 8 domains of 5T tokens in total, and new ones of 20B to 1T that multiply a third of the tasks by e^-help."""
    fixed_M, new_M, gone_M = masks(FIXED, new, 0)
    coef_NM = 0.5 * rng.normal(size=(TASKS, 1)) + 0.3 * rng.normal(size=(TASKS, DOMAINS))
    helped = rng.permutation(TASKS)[: TASKS // 3]
    coef_NM[np.ix_(helped, np.flatnonzero(new_M))] -= help
    tokens_M = np.exp(rng.normal(size=DOMAINS))
    tokens_M[fixed_M] *= 5 / tokens_M[fixed_M].sum()
    tokens_M[new_M] *= np.exp(rng.uniform(np.log(0.02), 0)) / tokens_M[new_M].sum()
    weights_N = np.full(TASKS, 1 / TASKS)
    return Case(coef_NM, weights_N, tokens_M, np.ones(DOMAINS), 0.05, fixed_M, new_M, gone_M), helped


def capped(case, target):
    """Set the caps to 4 repetitions in a run of ``target`` trillion tokens."""
    return case._replace(upper_M=np.minimum(1, 4 * case.tokens_M / target))


def spearman(x, y):
    """Return the rank correlation, after asserting that it is significant."""
    solution = scipy.stats.spearmanr(x, y)
    assert solution.pvalue < 1e-10
    return round(float(solution.statistic), 3)

"""Guards and caution: the mixture of least loss that no task pays for, and that is good on unlucky samples of the law.

    min over p of  T(p) + λ·KL(p ‖ natural)   subject to   g_f(p) = Σ_i r_fi f_i(p) ≤ limit_f,

T is Σ_i w_i f_i(p), or the mean of Σ_i w_i f_si(p) over the worst ``share`` of samples s of the law (all of them: the
expected value; the worst alone: the worst case; in between, the conditional value at risk, which bounds the quantile of
the same share from above and, unlike it, is convex). Both parts are maxima over dual weights of sums of tasks,

    max over u ≥ 0 of Σ_f u_f (g_f − limit_f),
    max over q ∈ {0 ≤ q_s ≤ 1/(share·S), Σ_s q_s = 1} of Σ_s q_s Σ_i w_i f_si,

so one method serves: the method of multipliers. It smooths each maximum around the duals of the round before, solves
the smooth problem, which is as convex as the law, and takes the duals that attain the maxima (Rockafellar 1976).

The certificate needs no trust in that: for whatever duals, min_p Σ (dual weights)·f + λKL − Σ_f u_f limit_f, solved and
certified by :mod:`olmix_jax.solver.solve`, is below any feasible value.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from olmix_jax.laws import cpu, evaluate, evaluate_each
from olmix_jax.solver import solve as solver
from olmix_jax.solver.objective import combination
from olmix_jax.solver.problem import Problem
from olmix_jax.solver.projection import fill, project
from olmix_jax.solver.solve import Solution

ROUNDS = 60
# How steeply a broken guard is paid for at first, and at most: beyond, slopes are too steep for the digits there are.
GENTLEST, STIFFEST = 10.0, 1e7
# Guards hold to this [BPB].
HOLDS = 1e-10
# A law that is not convex is solved to fewer digits, and so with limits lower by this [BPB], that guards hold as well.
TIGHTER = 1e-7


class Terms(NamedTuple):
    """What the smoothed objective is made of; a pytree.

    Attributes:
      task_weights_N: w.
      rows_FN: r of the guards; F may be 0.
      limit_F: of the guards [BPB].
      dual_F: u of the round before.
      stiff: how steeply a broken guard is paid for.
      centre_S: q of the round before; S = 0 for T = Σ w f.
      most: 1/(share·S).
      soft: how far q may move in a round.
    """

    task_weights_N: Any
    rows_FN: Any
    limit_F: Any
    dual_F: Any
    stiff: Any
    centre_S: Any
    most: Any
    soft: Any


@dataclasses.dataclass(frozen=True)
class Guard:
    """Σ_i rows_fi f_i(p) ≤ limit_f [BPB] for every f; see :func:`guard`."""

    names: tuple[str, ...]
    rows_FN: np.ndarray
    limit_F: np.ndarray


@dataclasses.dataclass(frozen=True)
class Saddle:
    """A guarded or cautious solution.

    Attributes:
      solution: as ever; ``value`` and ``gap`` are those of the problem above.
      dual_F: fall of the minimum per BPB of room given to a guard.
      dual_S: q; the weight of each sample.
      rise_F: g_f − limit_f at the solution [BPB]; ≤ 0 to rounding.
      tail: T at the solution [BPB].
    """

    solution: Solution
    dual_F: np.ndarray
    dual_S: np.ndarray
    rise_F: np.ndarray
    tail: float


def guard(tasks, natural_N, groups: dict[str, tuple[str, ...]], slack: float) -> Guard:
    """No group of tasks may be predicted worse than under natural by more than ``slack`` [BPB], on average over it.

    Args:
      tasks: N names.
      natural_N: what the law predicts under natural.
      groups: {name: its tasks}.
      slack: in BPB.
    """
    rows_FN = np.array([[(task in members) / len(members) for task in tasks] for members in groups.values()])
    return Guard(tuple(groups), rows_FN, rows_FN @ natural_N + slack)


def nothing(problem: Problem) -> Guard:
    """No guard at all."""
    return Guard((), np.zeros((0, len(problem.task_weights_N))), np.zeros(0))


def solve(problem: Problem, guard: Guard, samples=None, share: float = 1.0, *, starts_SM, safe_M=None) -> Saddle:
    """Solves the problem above, from every start, and keeps the best that keeps the guards.

    Args:
      problem: law, task weights, natural, bounds and λ.
      guard: see :func:`guard`.
      samples: parameters with a leading axis, for T over samples; None: the law itself.
      share: of the samples, the worst; 1 for their mean, and 0, or less than one of them, for the worst alone.
      starts_SM: mixtures to begin from; one is enough for a convex law.
      safe_M: a mixture that keeps the guards, to stay at, without proof, where no end is one.

    Returns:
      A Saddle; guards that no mixture keeps show in its status, and in ``rise_F``.
    """
    found = [_from(problem, guard, samples, share, start_M) for start_M in starts_SM]
    kept = [end for end in found if end.rise_F.max(initial=0.0) <= HOLDS]
    if not kept:
        nearest = min(found, key=lambda end: end.rise_F.max())
        return nearest if safe_M is None else _stay(problem, guard, samples, share, nearest, safe_M)
    best = min(kept, key=lambda end: end.solution.value)
    agreeing = sum(end.solution.value <= best.solution.value + solver.AGREE for end in kept)
    counted = {"starts": len(found), "agreeing": agreeing}
    if not problem.convex and best.solution.converged:
        counted["status"] = f"local optimum, best of {len(found)} starts"
    return dataclasses.replace(best, solution=dataclasses.replace(best.solution, **counted))


def _from(problem: Problem, guard: Guard, samples, share: float, p_M) -> Saddle:
    number = 0 if samples is None else len(jax.tree.leaves(samples)[0])
    most = 1 / max(share * number, 1.0)
    terms = _begin(problem, guard, samples, most, number, p_M)
    predict = _predict(problem.law.predict, samples is not None)
    terms, found, bpb_SN = _rounds(problem, predict, samples, terms, p_M)
    rise_F, tail = guard.rows_FN @ bpb_SN[0] - guard.limit_F, _tail(terms, bpb_SN)
    value, kept = tail + _pull(problem, found.kl), rise_F.max(initial=0.0) <= HOLDS
    lower = _lower(problem, predict, samples, terms, found.weights_M) if problem.convex else None
    gap = None if lower is None else max(value - lower, 0.0)
    small = solver.TOLERANCE * max(1.0, abs(value))
    status = "optimal" if gap is not None else "local optimum"
    if not kept:
        status = f"not converged (guards broken by {rise_F.max():.3g} BPB)"
    elif gap is not None and gap > small:
        status = f"not converged (gap {gap:.3g})"
    solution = dataclasses.replace(found, status=status, value=value, gap=gap, converged=not status.startswith("not"))
    return Saddle(solution, terms.dual_F, terms.centre_S, rise_F, tail)


def _stay(problem: Problem, guard: Guard, samples, share: float, end: Saddle, p_M) -> Saddle:
    """The mixture p, with what ``end``, which breaks guards, proves of the minimum."""
    own_N, kl = evaluate(problem.law, problem.params, p_M[None])[0], float(problem.kl(p_M[None])[0])
    tail = float(problem.task_weights_N @ own_N) if samples is None else tail_at(problem, samples, share, p_M)
    old, value = end.solution, tail + _pull(problem, kl)
    gap = None if old.gap is None else max(value - old.value + old.gap, 0.0)
    status = "not converged (the guards are kept, by a mixture that need not be the best)"
    solution = dataclasses.replace(old, status=status, weights_M=p_M, value=value, kl=kl, gap=gap, converged=False)
    return Saddle(solution, end.dual_F, end.dual_S, guard.rows_FN @ own_N - guard.limit_F, tail)


def _pull(problem: Problem, kl: float) -> float:
    return problem.kl_weight * kl if problem.kl_weight > 0 else 0.0


def _rounds(problem: Problem, predict, samples, terms: Terms, p_M):
    """(terms, solution, bpb_SN) after the last round of the method of multipliers.

    A round that the solver cannot finish is too stiff for it: it is done again at a quarter of that, which from then on
    is the most. Rounds at that need be more, and take next to no time each.
    """
    close, before, stiffest = HOLDS if problem.convex else TIGHTER + HOLDS, np.inf, STIFFEST
    for _ in range(ROUNDS):
        found = _solved(problem, predict, samples, terms, merged, p_M)
        bpb_SN = _bpb(problem, samples, found.weights_M)
        updated, off = _updated(terms, bpb_SN)
        if not found.converged and terms.stiff > GENTLEST:
            stiffest = terms.stiff / 4
            terms = terms._replace(stiff=stiffest, soft=terms.soft * 4)
            continue
        terms, p_M = updated, found.weights_M
        if off <= close and found.converged:
            break
        if off > 0.25 * before and terms.stiff * 4 <= stiffest:
            terms = terms._replace(stiff=terms.stiff * 4, soft=terms.soft / 4)
        before = off
    return terms, found, bpb_SN


def _begin(problem, guard, samples, most, number, p_M) -> Terms:
    """Duals of no opinion, and units in which a round moves them far, but not to where Newton's steps are lost."""
    bpb_SN = _bpb(problem, samples, np.asarray(p_M, np.float64))
    spread = float(np.std(bpb_SN[1:] @ problem.task_weights_N)) if number else 1.0
    return Terms(
        problem.task_weights_N,
        guard.rows_FN,
        guard.limit_F - (0.0 if problem.convex else TIGHTER),
        np.zeros(len(guard.limit_F)),
        GENTLEST,
        np.full(number, 1 / max(number, 1)),
        most,
        max(spread, 1e-6) * number,
    )


def merged(terms: Terms, bpb_SN):
    """The smoothed objective of a round; row 0 of ``bpb_SN`` is the law's own, the others the samples'."""
    pushed_F = jnp.maximum(terms.rows_FN @ bpb_SN[0] - terms.limit_F + terms.dual_F / terms.stiff, 0.0)
    guards = 0.5 * terms.stiff * (pushed_F**2).sum() - 0.5 * (terms.dual_F**2).sum() / terms.stiff
    if not len(terms.centre_S):
        return terms.task_weights_N @ bpb_SN[0] + guards
    value_S = bpb_SN[1:] @ terms.task_weights_N
    q_S = _weights(terms, value_S)
    return q_S @ value_S - 0.5 * terms.soft * ((q_S - terms.centre_S) ** 2).sum() + guards


def _weights(terms: Terms, value_S):
    """argmax over q of q·value − soft/2·‖q − centre‖²."""
    size = len(terms.centre_S)
    return project(terms.centre_S + value_S / terms.soft, jnp.zeros(size), jnp.full(size, terms.most))


def _updated(terms: Terms, bpb_SN) -> tuple[Terms, float]:
    """The duals that attain the maxima, and how far from done: guards' violation, or what smoothing hides [BPB]."""
    over_F = terms.rows_FN @ bpb_SN[0] - terms.limit_F
    dual_F = np.maximum(terms.dual_F + terms.stiff * over_F, 0.0)
    # A guard with room and a dual is not done either.
    off = np.maximum(over_F, -terms.dual_F / terms.stiff)
    off = np.where(dual_F > 0, np.abs(off), np.maximum(over_F, 0.0)).max(initial=0.0)
    if len(terms.centre_S):
        value_S = bpb_SN[1:] @ terms.task_weights_N
        with cpu.float64():
            q_S = np.asarray(_jitted_weights(terms, value_S))
        off = max(off, _tail(terms, bpb_SN) - float(q_S @ value_S))
        terms = terms._replace(centre_S=q_S)
    return terms._replace(dual_F=dual_F), float(off)


_jitted_weights = jax.jit(_weights)


def _tail(terms: Terms, bpb_SN) -> float:
    """T: the weighted BPB, or its mean over the worst share of samples."""
    if not len(terms.centre_S):
        return float(terms.task_weights_N @ bpb_SN[0])
    value_S, size = bpb_SN[1:] @ terms.task_weights_N, len(terms.centre_S)
    with cpu.float64():
        worst_S = np.asarray(jax.jit(fill)(-value_S, np.zeros(size), np.full(size, terms.most)))
    return float(worst_S @ value_S)


def tail_at(problem: Problem, samples, share: float, p_M) -> float:
    """T at a mixture [BPB]: the mean over the worst ``share`` of samples."""
    value_S = np.sort(_bpb(problem, samples, p_M)[1:] @ problem.task_weights_N)[::-1]
    worst = max(share * len(value_S), 1.0)
    return float(np.clip(worst - np.arange(len(value_S)), 0.0, 1.0) @ value_S / worst)


def _lower(problem, predict, samples, terms: Terms, p_M) -> float:
    """A bound on the minimum from below, by the duals as they are."""
    weights_SN = np.outer(np.concatenate([[not len(terms.centre_S)], terms.centre_S]), terms.task_weights_N)
    weights_SN[0] += terms.dual_F @ terms.rows_FN
    found = _solved(problem, predict, samples, weights_SN, combination, p_M)
    return found.value - found.gap - float(terms.dual_F @ terms.limit_F)


def _solved(problem: Problem, predict, samples, weights, merge, p_M) -> Solution:
    params = (problem.params, samples)
    posed = weights, problem.anchor_M, problem.bounds, problem.kl_weight
    return solver.solve(predict, params, *posed, merge=merge, starts_SM=p_M[None], convex=problem.convex)


def _bpb(problem: Problem, samples, p_M) -> np.ndarray:
    """bpb_SN of the law, and of the samples."""
    own_1N = evaluate(problem.law, problem.params, p_M[None])
    return own_1N if samples is None else np.concatenate([own_1N, evaluate_each(problem.law, samples, p_M[None])[:, 0]])


@functools.lru_cache(maxsize=32)
def _predict(predict, sampled: bool):
    """(law's params, samples' params), ratios_KM → bpb_KSN, the law first."""

    def both(params, ratios_KM):
        own_K1N = predict(params[0], ratios_KM)[:, None]
        if not sampled:
            return own_K1N
        each_KSN = jax.vmap(predict, in_axes=(0, None), out_axes=1)(params[1], ratios_KM)
        return jnp.concatenate([own_K1N, each_KSN], axis=1)

    return both

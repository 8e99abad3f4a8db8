"""Guards on tasks, and the tail objective.

A guard keeps a task, or the mean over a group of tasks, from getting worse. The tail objective is the mean
over the worst samples of the law.

    min over p of  T(p) + λ·KL(p ‖ anchor)   subject to   g_f(p) = Σ_i r_fi f_i(p) ≤ limit_f

T is Σ_i w_i f_i(p), or the mean of Σ_i w_i f_si(p) over the worst ``share`` of samples s of the law. A share of 1 is
the expected value, and the smallest share is the worst case. In between, T is the conditional value at risk: it is
convex, and an upper bound on the quantile of the same share. Both parts are maxima over multipliers,

    max over u ≥ 0 of Σ_f u_f (g_f − limit_f),
    max over q ∈ {0 ≤ q_s ≤ 1/(share·S), Σ_s q_s = 1} of Σ_s q_s Σ_i w_i f_si,

so the method of multipliers solves both (:mod:`olmix_jax.propose.guard_rounds`).

The certificate does not depend on that method. For any multipliers,

    min_p [Σ_s q_s Σ_i w_i f_si + Σ_f u_f g_f + λKL] − Σ_f u_f limit_f

is a lower bound on every feasible value. :func:`olmix_jax.solver.solve.solve` computes and certifies this minimum.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from olmix_jax.laws import evaluate
from olmix_jax.propose import guard_rounds
from olmix_jax.propose.guard_rounds import SmoothedTerms
from olmix_jax.solver import solve as solver
from olmix_jax.solver.objective import combination
from olmix_jax.solver.problem import Problem
from olmix_jax.solver.solution import Solution, count_agreeing, tolerance
from olmix_jax.solver.status import GUARD_TOLERANCE, Status


@dataclasses.dataclass(frozen=True)
class Guards:
    """Constraints g_f(p) = Σ_i rows_fi f_i(p) ≤ limit_f [BPB], one for each name."""

    names: tuple[str, ...]
    rows_FN: np.ndarray
    limit_F: np.ndarray


@dataclasses.dataclass(frozen=True)
class GuardedSolution:
    """A solution with guards, a tail objective, or both.

    Attributes:
      solution: the solution; ``value`` and ``gap`` refer to T(p) + λ·KL with the guards.
      multipliers_F: u, fall of the minimum per BPB by which a guard's limit is raised.
      sample_weights_S: q, the weights of the samples; empty without samples.
      excess_F: g_f − limit_f at the solution [BPB]; ≤ 0 up to rounding.
      tail: T at the solution [BPB].
    """

    solution: Solution
    multipliers_F: np.ndarray
    sample_weights_S: np.ndarray
    excess_F: np.ndarray
    tail: float


def no_guards(problem: Problem) -> Guards:
    """Return an empty set of guards."""
    return Guards((), np.zeros((0, len(problem.weights))), np.zeros(0))


def group_guards(tasks: Sequence[str], natural_N, groups: Mapping[str, tuple[str, ...]], slack: float) -> Guards:
    """Return guards that let no group's mean BPB exceed its value under natural by more than ``slack``.

    Args:
      tasks: N names.
      natural_N: the law's prediction under natural [BPB].
      groups: {name: its tasks}.
      slack: in BPB.
    """
    rows_FN = np.array([[(task in members) / len(members) for task in tasks] for members in groups.values()])
    return Guards(tuple(groups), rows_FN, rows_FN @ natural_N + slack)


def solve(
    problem: Problem, guards: Guards, samples=None, share: float = 1.0, *, starts_SM, safe_M=None
) -> GuardedSolution:
    """Solve with guards, a tail objective or both from every start; return the best end point at which all guards hold.

    Args:
      problem: a problem with task weights.
      guards: the constraints; :func:`no_guards` for a tail objective alone.
      samples: parameters of the law with a leading axis, for T over samples; None for T of the law itself.
      share: share of the samples that count, worst first. 1 is the mean over all; less than 1/S is the worst alone.
      starts_SM: starting points; one is enough for a convex law.
      safe_M: a mixture at which the guards hold. It is returned, as not converged, if they hold at no end point.

    Returns:
      The solution. If the guards do not hold, ``status`` is MAX_ITERATIONS and ``excess_F`` says by how much.
    """
    ends = [_solve_from(problem, guards, samples, share, start_M) for start_M in starts_SM]
    kept = [end for end in ends if end.excess_F.max(initial=0.0) <= GUARD_TOLERANCE]
    if not kept:
        nearest = min(ends, key=lambda end: end.excess_F.max())
        return nearest if safe_M is None else _fall_back(problem, guards, samples, share, nearest, safe_M)
    best = min(kept, key=lambda end: end.solution.value)
    agreeing = count_agreeing(
        [end.solution.value for end in kept],
        [end.solution.weights_M for end in kept],
        best.solution.value,
        best.solution.weights_M,
    )
    solution = dataclasses.replace(best.solution, starts=len(ends), agreeing=agreeing)
    return dataclasses.replace(best, solution=solution)


def tail_at(problem: Problem, samples, share: float, weights_M) -> float:
    """Return T at a mixture [BPB]: the mean over the worst ``share`` of samples."""
    value_S = np.sort(guard_rounds.bpb_rows(problem, samples, weights_M)[1:] @ problem.weights)[::-1]
    worst = max(share * len(value_S), 1.0)
    return float(np.clip(worst - np.arange(len(value_S)), 0.0, 1.0) @ value_S / worst)


def _solve_from(problem: Problem, guards: Guards, samples, share: float, start_M) -> GuardedSolution:
    first = guard_rounds.first_terms(problem, guards.rows_FN, guards.limit_F, samples, share, start_M)
    terms, solution, bpb_SN, _, converged = guard_rounds.run(problem, first, samples, start_M)
    excess_F, tail = guards.rows_FN @ bpb_SN[0] - guards.limit_F, guard_rounds.tail_value(terms, bpb_SN)
    value, gap = tail + _penalty(problem, solution.kl), None
    weights_SN, multipliers_F = guard_rounds.combination_of(terms, bpb_SN)
    status = Status.LOCAL_OPTIMUM if converged else Status.MAX_ITERATIONS
    if problem.convex:
        bound = _least(problem, samples, terms, weights_SN, solution.weights_M) - float(multipliers_F @ terms.limit_F)
        gap = max(value - bound, 0.0)
        status = Status.OPTIMAL if gap <= tolerance(problem.convex, value) else Status.MAX_ITERATIONS
    if excess_F.max(initial=0.0) > GUARD_TOLERANCE:
        status = Status.MAX_ITERATIONS
    solution = dataclasses.replace(solution, status=status, value=value, gap=gap, guard_excess=_largest(excess_F))
    return GuardedSolution(solution, multipliers_F, terms.sample_weights_S, excess_F, tail)


def _fall_back(
    problem: Problem, guards: Guards, samples, share: float, end: GuardedSolution, weights_M
) -> GuardedSolution:
    """Return the mixture ``weights_M``, with the lower bound on the minimum that ``end`` gives."""
    bpb_N, kl = evaluate(problem.law, problem.params, weights_M[None])[0], float(problem.kl(weights_M[None])[0])
    tail = float(problem.weights @ bpb_N) if samples is None else tail_at(problem, samples, share, weights_M)
    value, excess_F = tail + _penalty(problem, kl), guards.rows_FN @ bpb_N - guards.limit_F
    gap = None if end.solution.gap is None else max(value - end.solution.value + end.solution.gap, 0.0)
    solution = dataclasses.replace(
        end.solution,
        status=Status.MAX_ITERATIONS,
        weights_M=weights_M,
        value=value,
        kl=kl,
        gap=gap,
        guard_excess=_largest(excess_F),
    )
    return GuardedSolution(solution, end.multipliers_F, end.sample_weights_S, excess_F, tail)


def _largest(excess_F) -> float | None:
    return float(excess_F.max()) if len(excess_F) else None


def _penalty(problem: Problem, kl: float) -> float:
    return problem.kl_weight * kl if problem.kl_weight > 0 else 0.0


def _least(problem: Problem, samples, terms: SmoothedTerms, weights_SN, start_M) -> float:
    """Return a lower bound on the weighted rows plus λKL at every mixture [BPB]. It is convex, because all rows are."""
    rows = guard_rounds.with_samples(problem, samples, guard_rounds.measured_by(problem, terms.rows_FN))
    end = solver.solve(dataclasses.replace(rows, weights=weights_SN, merge=combination), starts_SM=start_M[None])
    return end.value - (np.inf if end.gap is None else end.gap)

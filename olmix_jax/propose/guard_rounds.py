"""The method of multipliers for :mod:`olmix_jax.propose.guards`: a sequence of smooth problems.

Each round smooths both maxima around the multipliers of the previous round, solves the smooth problem, and takes the
multipliers that attain the maxima (Rockafellar 1976). The smooth problem is convex if the law is.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from olmix_jax.laws import cpu, evaluate, evaluate_each
from olmix_jax.solver.problem import Problem
from olmix_jax.solver.projection import fill, project
from olmix_jax.solver.solution import Solution
from olmix_jax.solver.solve import solve
from olmix_jax.solver.status import GUARD_TOLERANCE
from olmix_jax.utils.progress import Progress

ROUNDS = 60
# Stiffness of the first round, and the largest one. Steeper slopes exceed the precision of float64.
FIRST_STIFFNESS, LAST_STIFFNESS = 10.0, 1e7
# For a law that is not convex the solver is less exact. Limits are lowered by this [BPB], so that guards still hold.
TIGHTER = 1e-7


class SmoothedTerms(NamedTuple):
    """The terms of a round's smoothed objective; a pytree. Without samples (S = 0), T = Σ_i w_i f_i.

    Attributes:
      task_weights_N: w.
      rows_FN: r of the guards; F may be 0.
      limit_F: limits of the guards [BPB].
      multipliers_F: u of the previous round.
      stiffness: factor of the squared excess of a guard.
      sample_weights_S: q of the previous round.
      largest_weight: upper bound of q, 1/(share·S).
      softness: factor of the squared change of q.
    """

    task_weights_N: Any
    rows_FN: Any
    limit_F: Any
    multipliers_F: Any
    stiffness: Any
    sample_weights_S: Any
    largest_weight: Any
    softness: Any


class LastRound(NamedTuple):
    """The state after the last round.

    Attributes:
      terms: with the multipliers.
      solution: of the smooth problem. ``iterations`` is the sum over rounds; ``residual`` is at least ``distance``.
      bpb_SN: prediction at the solution: the law's row, then the samples'.
      distance: distance from a solution [BPB] (:func:`_updated`).
      converged: whether the distance is small enough and the last smooth problem is solved.
    """

    terms: SmoothedTerms
    solution: Solution
    bpb_SN: np.ndarray
    distance: float
    converged: bool


def with_samples(problem: Problem, samples) -> Problem:
    """Return the problem with a law that predicts bpb_KSN: row 0 is the law, the others are its samples.

    Arrays that are equal in all samples are passed once, so that their part of the law is computed once.
    """
    axes = None if samples is None else _axes(samples)
    if axes is not None:
        samples = jax.tree.map(lambda x, axis: np.asarray(x)[0] if axis is None else x, samples, axes)
    law = dataclasses.replace(problem.law, predict=_predict_all(problem.law.predict, axes), convex=problem.convex)
    return dataclasses.replace(problem, law=law, params=(problem.params, samples))


def bpb_rows(problem: Problem, samples, weights_M) -> np.ndarray:
    """Return bpb_SN at a mixture: row 0 is the law, the others are its samples."""
    law_1N = evaluate(problem.law, problem.params, weights_M[None])
    if samples is None:
        return law_1N
    return np.concatenate([law_1N, evaluate_each(problem.law, samples, weights_M[None])[:, 0]])


def run(problem: Problem, terms: SmoothedTerms, samples, start_M) -> LastRound:
    """Run rounds until the guards hold and T equals its smoothed value, at most ROUNDS.

    If the solver does not converge, the round is too stiff for it. It is repeated with a quarter of the stiffness,
    which is the limit from then on. More rounds are then needed, but each takes little time.
    """
    close = GUARD_TOLERANCE if problem.convex else TIGHTER + GUARD_TOLERANCE
    previous, largest, iterations = np.inf, LAST_STIFFNESS, 0
    smoothed, weights_M = with_samples(problem, samples), start_M
    # A round gains about as many digits as the one before it.
    with Progress("guards or tail", round(-np.log10(close)), "digits") as progress:
        for number in range(1, ROUNDS + 1):
            this_round = dataclasses.replace(smoothed, weights=terms, merge=smoothed_value)
            solution = solve(this_round, starts_SM=weights_M[None])
            iterations += solution.iterations
            bpb_SN = bpb_rows(problem, samples, solution.weights_M)
            updated, distance = _updated(terms, bpb_SN)
            digits = np.clip(-np.log10(max(distance, close)), 0, progress.total) if np.isfinite(distance) else 0
            progress.advance(max(round(digits) - progress.done, 0), f"{distance:.0e} BPB off after {number} rounds")
            if not solution.converged and terms.stiffness > FIRST_STIFFNESS:
                largest = terms.stiffness / 4
                terms = terms._replace(stiffness=largest, softness=terms.softness * 4)
                continue
            terms, weights_M = updated, solution.weights_M
            if distance <= close and solution.converged:
                break
            if distance > 0.25 * previous and terms.stiffness * 4 <= largest:
                terms = terms._replace(stiffness=terms.stiffness * 4, softness=terms.softness / 4)
            previous = distance
    converged = solution.converged and distance <= close
    residual = max(solution.residual or 0.0, distance)
    solution = dataclasses.replace(solution, iterations=iterations, residual=residual)
    return LastRound(terms, solution, bpb_SN, distance, converged)


def first_terms(problem: Problem, rows_FN, limit_F, samples, share: float, start_M) -> SmoothedTerms:
    """Return the terms of the first round: no multipliers, equal weights of samples.

    The softness is in units of the samples' spread. A round moves q far, but not so far that Newton's method fails.
    """
    number = 0 if samples is None else len(jax.tree.leaves(samples)[0])
    bpb_SN = bpb_rows(problem, samples, np.asarray(start_M, np.float64))
    spread = float(np.std(bpb_SN[1:] @ problem.weights)) if number else 1.0
    return SmoothedTerms(
        task_weights_N=problem.weights,
        rows_FN=rows_FN,
        limit_F=limit_F - (0.0 if problem.convex else TIGHTER),
        multipliers_F=np.zeros(len(limit_F)),
        stiffness=FIRST_STIFFNESS,
        sample_weights_S=np.full(number, 1 / max(number, 1)),
        largest_weight=1 / max(share * number, 1.0),
        softness=max(spread, 1e-6) * number,
    )


def smoothed_value(terms: SmoothedTerms, bpb_SN):
    """Return the smoothed objective of a round without KL [BPB]; the ``merge`` of its problem."""
    excess_F = terms.rows_FN @ bpb_SN[0] - terms.limit_F
    pushed_F = jnp.maximum(excess_F + terms.multipliers_F / terms.stiffness, 0.0)
    guards = 0.5 * terms.stiffness * (pushed_F**2).sum() - 0.5 * (terms.multipliers_F**2).sum() / terms.stiffness
    if not len(terms.sample_weights_S):
        return terms.task_weights_N @ bpb_SN[0] + guards
    value_S = bpb_SN[1:] @ terms.task_weights_N
    q_S = _sample_weights(terms, value_S)
    return q_S @ value_S - 0.5 * terms.softness * ((q_S - terms.sample_weights_S) ** 2).sum() + guards


def tail_value(terms: SmoothedTerms, bpb_SN) -> float:
    """Return T [BPB]: Σ_i w_i f_i, or its mean over the worst share of samples."""
    if not len(terms.sample_weights_S):
        return float(terms.task_weights_N @ bpb_SN[0])
    value_S, size = bpb_SN[1:] @ terms.task_weights_N, len(terms.sample_weights_S)
    with cpu.float64():
        worst_S = np.asarray(_fill(-value_S, np.zeros(size), np.full(size, terms.largest_weight)))
    return float(worst_S @ value_S)


def _sample_weights(terms: SmoothedTerms, value_S):
    """Return argmax over q of q·value − softness/2·‖q − q_previous‖²."""
    size = len(terms.sample_weights_S)
    target_S = terms.sample_weights_S + value_S / terms.softness
    return project(target_S, jnp.zeros(size), jnp.full(size, terms.largest_weight))


_sample_weights_jit, _fill = jax.jit(_sample_weights), jax.jit(fill)


def _updated(terms: SmoothedTerms, bpb_SN) -> tuple[SmoothedTerms, float]:
    """Return the multipliers that attain the maxima, and the distance from a solution [BPB].

    The distance is the largest of three: the excess of a guard, the room of a guard with a positive multiplier, and T
    minus its smoothed value.
    """
    excess_F = terms.rows_FN @ bpb_SN[0] - terms.limit_F
    multipliers_F = np.maximum(terms.multipliers_F + terms.stiffness * excess_F, 0.0)
    off_F = np.maximum(excess_F, -terms.multipliers_F / terms.stiffness)
    distance = np.where(multipliers_F > 0, np.abs(off_F), np.maximum(excess_F, 0.0)).max(initial=0.0)
    if len(terms.sample_weights_S):
        value_S = bpb_SN[1:] @ terms.task_weights_N
        with cpu.float64():
            q_S = np.asarray(_sample_weights_jit(terms, value_S))
        distance = max(distance, tail_value(terms, bpb_SN) - float(q_S @ value_S))
        terms = terms._replace(sample_weights_S=q_S)
    return terms._replace(multipliers_F=multipliers_F), float(distance)


def _axes(samples):
    """Return the axis of samples of each array: None if all samples have the same array."""

    def axis(x_S):
        x_S = np.asarray(x_S)
        return None if len(x_S) > 1 and (x_S == x_S[:1]).all() else 0

    return jax.tree.map(axis, samples)


@functools.lru_cache(maxsize=32)
def _predict_all(predict, axes):
    """Return ((params, samples), ratios_KM) → bpb_KSN, the law first. Cached, so that it is compiled once.

    ``axes`` is None without samples.
    """

    def predict_all(params, ratios_KM):
        law_K1N = predict(params[0], ratios_KM)[:, None]
        if axes is None:
            return law_K1N
        each_KSN = jax.vmap(predict, in_axes=(axes, None), out_axes=1)(params[1], ratios_KM)
        return jnp.concatenate([law_K1N, each_KSN], axis=1)

    return predict_all

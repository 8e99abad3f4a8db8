"""The method of multipliers for :mod:`olmix_jax.propose.guards`: a sequence of smooth problems.

Each round smooths both maxima around the multipliers of the previous round, solves the smooth problem, and takes the
multipliers that attain the maxima (Rockafellar 1976). The smooth problem is convex if the law is and guards are in BPB.

A law that is a constant plus a rise, such as c + e^(Aᵀp), can be so flat at the limit that 1e-8 BPB of a guard cost
more than 0.001 BPB of T: then u is 10⁵, and the rounds do not end. So guards are measured by the logarithm of the rise,

    h_f(p) = unit_f · (ln Σ_i r_fi rise_i(p) − ln(limit_f − Σ_i r_fi c_i)) ≤ 0,

which for one task of the law above is a linear constraint, and is convex for a mean. The unit makes the slope of h_f
about 1, so h_f is a distance in the mixture's weights. Where log_linear continues as a tangent, beyond all runs, ln
rise is concave, and a round may not be convex. The certificate of :mod:`olmix_jax.propose.guards` does not depend on
it.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from olmix_jax.laws import cpu, evaluate, evaluate_each
from olmix_jax.solver.problem import Problem
from olmix_jax.solver.projection import TINY, fill, project
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
      limit_F: limits of the guards [BPB]; with ``unit_F``, their height above the constants Σ_i r_i c_i.
      unit_F: unit of h; None to measure guards in BPB.
      multipliers_F: u of the previous round [BPB per unit of the measure].
      stiffness: factor of the squared excess of a guard.
      sample_weights_S: q of the previous round.
      largest_weight: upper bound of q, 1/(share·S).
      softness: factor of the squared change of q.
    """

    task_weights_N: Any
    rows_FN: Any
    limit_F: Any
    unit_F: Any
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
      bpb_SN: prediction at the solution (:func:`bpb_rows`).
      distance: distance from a solution (:func:`_updated`).
      converged: whether the distance is small enough and the last smooth problem is solved.
    """

    terms: SmoothedTerms
    solution: Solution
    bpb_SN: np.ndarray
    distance: float
    converged: bool


def with_samples(problem: Problem, samples, rise: Callable | None = None) -> Problem:
    """Return the problem with a law that predicts the rows of :func:`bpb_rows`, bpb_KSN.

    Arrays that are equal in all samples are passed once, so that their part of the law is computed once.
    """
    axes = None if samples is None else _axes(samples)
    if axes is not None:
        samples = jax.tree.map(lambda x, axis: np.asarray(x)[0] if axis is None else x, samples, axes)
    predict = _predict_all(problem.law.predict, rise, axes)
    law = dataclasses.replace(problem.law, predict=predict, convex=problem.convex, prepare=None)
    return dataclasses.replace(problem, law=law, params=(problem.params, samples))


def bpb_rows(problem: Problem, samples, weights_M, rise: Callable | None = None) -> np.ndarray:
    """Return bpb_SN at a mixture: the law, then its samples, and last the rise, if given."""
    rows = [evaluate(problem.law, problem.params, weights_M[None])]
    if samples is not None:
        rows.append(evaluate_each(problem.law, samples, weights_M[None])[:, 0])
    if rise is not None:
        rows.append(evaluate(dataclasses.replace(problem.law, predict=rise), problem.params, weights_M[None]))
    return np.concatenate(rows)


def run(problem: Problem, terms: SmoothedTerms, samples, start_M) -> LastRound:
    """Run rounds until the guards hold and T equals its smoothed value, at most ROUNDS.

    If the solver does not converge, the round is too stiff for it. It is repeated with a quarter of the stiffness,
    which is the limit from then on. The limit doubles with each slow round, because a round nearer to the solution can
    be stiffer.
    """
    close = GUARD_TOLERANCE if problem.convex else TIGHTER + GUARD_TOLERANCE
    previous, largest, iterations = np.inf, LAST_STIFFNESS, 0
    rise = measured_by(problem, terms.rows_FN)
    smoothed, weights_M = with_samples(problem, samples, rise), start_M
    # A round gains about as many digits as the one before it.
    with Progress("guards or tail", round(-np.log10(close)), "digits") as progress:
        for number in range(1, ROUNDS + 1):
            this_round = dataclasses.replace(smoothed, weights=terms, merge=smoothed_value)
            solution = solve(this_round, starts_SM=weights_M[None])
            iterations += solution.iterations
            bpb_SN = bpb_rows(problem, samples, solution.weights_M, rise)
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
            if distance > 0.25 * previous:
                if terms.stiffness * 4 <= largest:
                    terms = terms._replace(stiffness=terms.stiffness * 4, softness=terms.softness / 4)
                largest = min(largest * 2, LAST_STIFFNESS)
            previous = distance
    converged = solution.converged and distance <= close
    residual = max(solution.residual or 0.0, distance)
    solution = dataclasses.replace(solution, iterations=iterations, residual=residual)
    return LastRound(terms, solution, bpb_SN, distance, converged)


def first_terms(problem: Problem, rows_FN, limit_F, samples, share: float, start_M) -> SmoothedTerms:
    """Return the terms of the first round: no multipliers, equal weights of samples.

    The softness is in units of the samples' spread. A round moves q far, but not so far that Newton's method fails.
    """
    start_M, unit_F, rise = np.asarray(start_M, np.float64), None, measured_by(problem, rows_FN)
    number = 0 if samples is None else len(jax.tree.leaves(samples)[0])
    bpb_SN = bpb_rows(problem, samples, start_M, rise)
    spread = float(np.std(bpb_SN[1 : 1 + number] @ problem.weights)) if number else 1.0
    if not problem.convex:
        limit_F = limit_F - TIGHTER
    if rise is not None:
        # A limit below the constants cannot be met. At the constants, it can be met to within the tolerance.
        limit_F = np.maximum(limit_F - rows_FN @ (bpb_SN[0] - bpb_SN[-1]), 0.5 * GUARD_TOLERANCE)
        with cpu.float64():
            slope_FM = np.asarray(_log_slopes(rise, problem.params, rows_FN, start_M))
        # Along the simplex. A guard of little slope is left as it is.
        unit_F = 1 / np.maximum(np.linalg.norm(slope_FM - slope_FM.mean(axis=1, keepdims=True), axis=1), 1.0)
    return SmoothedTerms(
        task_weights_N=problem.weights,
        rows_FN=rows_FN,
        limit_F=limit_F,
        unit_F=unit_F,
        multipliers_F=np.zeros(len(limit_F)),
        stiffness=FIRST_STIFFNESS,
        sample_weights_S=np.full(number, 1 / max(number, 1)),
        largest_weight=1 / max(share * number, 1.0),
        softness=max(spread, 1e-6) * number,
    )


def combination_of(terms: SmoothedTerms, bpb_SN) -> tuple[np.ndarray, np.ndarray]:
    """Return (weights_SN, u_F): the weights of the rows in Σ_s q_s Σ_i w_i f_si + Σ_f u_f g_f, and u [BPB per BPB].

    g_f, like ``terms.limit_F``, is above the constants if guards are measured by the rise.
    """
    number, multipliers_F = len(terms.sample_weights_S), terms.multipliers_F
    weights_SN = np.zeros_like(bpb_SN)
    rows_S = np.concatenate([[not number], terms.sample_weights_S])
    weights_SN[: 1 + number] = np.outer(rows_S, terms.task_weights_N)
    if terms.unit_F is not None:
        multipliers_F = multipliers_F * terms.unit_F / np.maximum(terms.rows_FN @ bpb_SN[-1], TINY)
    weights_SN[0 if terms.unit_F is None else -1] += multipliers_F @ terms.rows_FN
    return weights_SN, multipliers_F


def _measure(terms: SmoothedTerms, bpb_SN):
    """Return by how much each guard is exceeded [BPB], or h with ``unit_F``; for :func:`smoothed_value`."""
    if terms.unit_F is None:
        return terms.rows_FN @ bpb_SN[0] - terms.limit_F
    return terms.unit_F * (jnp.log(jnp.maximum(terms.rows_FN @ bpb_SN[-1], TINY)) - jnp.log(terms.limit_F))


def smoothed_value(terms: SmoothedTerms, bpb_SN):
    """Return the smoothed objective of a round without KL [BPB]; the ``merge`` of its problem."""
    pushed_F = jnp.maximum(_measure(terms, bpb_SN) + terms.multipliers_F / terms.stiffness, 0.0)
    guards = 0.5 * terms.stiffness * (pushed_F**2).sum() - 0.5 * (terms.multipliers_F**2).sum() / terms.stiffness
    if not len(terms.sample_weights_S):
        return terms.task_weights_N @ bpb_SN[0] + guards
    value_S = _sampled(terms, bpb_SN)
    q_S = _sample_weights(terms, value_S)
    return q_S @ value_S - 0.5 * terms.softness * ((q_S - terms.sample_weights_S) ** 2).sum() + guards


def tail_value(terms: SmoothedTerms, bpb_SN) -> float:
    """Return T [BPB]: Σ_i w_i f_i, or its mean over the worst share of samples."""
    if not len(terms.sample_weights_S):
        return float(terms.task_weights_N @ bpb_SN[0])
    value_S, size = _sampled(terms, bpb_SN), len(terms.sample_weights_S)
    with cpu.float64():
        worst_S = np.asarray(_fill(-value_S, np.zeros(size), np.full(size, terms.largest_weight)))
    return float(worst_S @ value_S)


def _sampled(terms: SmoothedTerms, bpb_SN):
    """Return Σ_i w_i f_si of each sample [BPB]."""
    return bpb_SN[1 : 1 + len(terms.sample_weights_S)] @ terms.task_weights_N


def _sample_weights(terms: SmoothedTerms, value_S):
    """Return argmax over q of q·value − softness/2·‖q − q_previous‖²."""
    size = len(terms.sample_weights_S)
    target_S = terms.sample_weights_S + value_S / terms.softness
    return project(target_S, jnp.zeros(size), jnp.full(size, terms.largest_weight))


_sample_weights_jit, _fill, _measure_jit = jax.jit(_sample_weights), jax.jit(fill), jax.jit(_measure)


def _updated(terms: SmoothedTerms, bpb_SN) -> tuple[SmoothedTerms, float]:
    """Return the multipliers that attain the maxima, and the distance from a solution.

    The distance is the largest of three: the excess of a guard, the room of a guard with a positive multiplier, and T
    minus its smoothed value [BPB]. With ``unit_F``, excess and room are the larger of BPB and weight.
    """
    with cpu.float64():
        excess_F = np.asarray(_measure_jit(terms, bpb_SN))
    multipliers_F = np.maximum(terms.multipliers_F + terms.stiffness * excess_F, 0.0)
    off_F = np.maximum(excess_F, -terms.multipliers_F / terms.stiffness)
    distance_F = np.where(multipliers_F > 0, np.abs(off_F), np.maximum(excess_F, 0.0))
    if terms.unit_F is not None:
        distance_F = distance_F * np.maximum(terms.limit_F / terms.unit_F, 1.0)
    distance = distance_F.max(initial=0.0)
    if len(terms.sample_weights_S):
        value_S = _sampled(terms, bpb_SN)
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


def measured_by(problem: Problem, rows_FN) -> Callable | None:
    """Return the law's rise if guards are measured by it; None without guards, and for problems that are not convex."""
    return problem.law.rise if problem.convex and len(rows_FN) else None


@functools.partial(jax.jit, static_argnums=0)
def _log_slopes(rise, params, rows_FN, weights_M):
    """Return the derivatives of ln Σ_i r_fi rise_i by weight, slope_FM."""
    return jax.jacfwd(lambda p_M: jnp.log(jnp.maximum(rows_FN @ rise(params, p_M[None, :])[0], TINY)))(weights_M)


@functools.lru_cache(maxsize=32)
def _predict_all(predict, rise, axes):
    """Return ((params, samples), ratios_KM) → bpb_KSN, as :func:`bpb_rows`. Cached, so that it is compiled once.

    ``axes`` is None without samples.
    """

    def predict_all(params, ratios_KM):
        rows = [predict(params[0], ratios_KM)[:, None]]
        if axes is not None:
            rows.append(jax.vmap(predict, in_axes=(axes, None), out_axes=1)(params[1], ratios_KM))
        if rise is not None:
            rows.append(rise(params[0], ratios_KM)[:, None])
        return jnp.concatenate(rows, axis=1)

    return predict_all

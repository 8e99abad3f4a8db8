"""The mixture that minimises an objective within bounds, with proof (METHOD §2, step 4).

    min F(p) = f(p) + λ·KL(p ‖ natural)   over   {lower ≤ p ≤ upper, Σ_j p_j = 1},   f = Σ_i w_i f_i

Each iteration takes a proximal projected-gradient step with line search, which finds the bounds that bind (or, where
that does better, a step to the minimiser of the linearised problem), and then a Newton step over the entries strictly
inside their bounds (conjugate gradients on Hessian-vector products, so no M × M matrix is formed), projected back and
kept only as far as F falls. For λ > 0 both live in the geometry of the KL divergence, where the proximal step is
argmin_p ⟨∇f, p⟩ + λKL(p ‖ natural) + KL(p ‖ p_t)/η and is one projection; for λ = 0 in the Euclidean one, which can
reach and leave weight 0.

The certificate linearises f alone. For convex f and every feasible v, F(v) ≥ f(p) + ⟨∇f(p), v − p⟩ + λKL(v ‖ natural);
the minimum of the right side over the set has a closed form (a KL projection; a greedy fill for λ = 0). So
``gap`` = F(p) − that minimum bounds F(p) − min F from above, whatever way p was found.

For other laws the same steps find a local minimum: F never rises, and ``gap``, zero at and only at a stationary point,
still says when to stop, but bounds nothing. So they are solved from several starts, and none is called optimal.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from olmix_jax.errors import UserError
from olmix_jax.laws import inputs
from olmix_jax.propose import geometry as geometries
from olmix_jax.propose import newton
from olmix_jax.propose.geometry import TINY
from olmix_jax.propose.objective import Objective
from olmix_jax.propose.projection import project

# Converged: gap ≤ TOLERANCE · max(1, |value|).
TOLERANCE = 1e-9
# Iterations after that. A gap bounds weights by its root, TV² ≤ gap/(2λ); two Newton steps more make them as exact.
POLISH = 2
MAX_ITERATIONS = 500
# The same for a law that is not convex. It is of no use to find its minimum to more digits than its slopes have: those
# of a Gaussian process are differences of large terms.
LOCAL_TOLERANCE, LOCAL_ITERATIONS = 1e-7, 100
# End points this near to the best value [BPB] agree with it.
AGREE = 1e-6
# A solve takes milliseconds and its compilation seconds, half of them spent on making it faster.
COMPILER = {"xla_backend_optimization_level": 0}


@dataclasses.dataclass(frozen=True)
class Solution:
    """A minimiser and how it is known to be one. What a search over candidates does not know is None.

    Attributes:
      status: "optimal", "local optimum, best of … starts", "search over …", or "not converged (gap …)". Optimal means
        gap ≤ 1e-9 · max(1, |value|) for a convex law; a local optimum is good to 1e-7.
      weights_M: the mixture; within the bounds exactly, sum 1 to rounding.
      value: F [BPB].
      kl: KL(p ‖ natural) [nats].
      gap: duality gap, an upper bound on how far ``value`` is above the minimum [BPB]; None for a law that is not
        convex.
      iterations: of the solver.
      residual: max_j |p − project(p − ∇F(p))|_j, zero at and only at a stationary point.
      multipliers_M: of the upper bounds, ≥ 0: fall of the minimum per unit by which the bound is raised [BPB].
      converged: whether the status is not the last.
      starts: end points, or candidates, that this one is the best of.
      agreeing: how many of them are within 1e-6 BPB of it, itself included.
    """

    status: str
    weights_M: np.ndarray
    value: float
    kl: float
    gap: float | None
    iterations: int
    residual: float | None
    multipliers_M: np.ndarray | None
    converged: bool = True
    starts: int = 1
    agreeing: int | None = 1


class Minimum(NamedTuple):
    """What :func:`minimise` returns: the arrays of a :class:`Solution`."""

    weights_M: jax.Array
    value: jax.Array
    kl: jax.Array
    gap: jax.Array
    iterations: jax.Array
    residual: jax.Array
    multipliers_M: jax.Array


def solve(
    predict,
    params,
    task_weights_N,
    natural_M,
    lower_M,
    upper_M,
    kl_weight: float,
    *,
    starts_SM=None,
    convex: bool = True,
    max_iterations: int | None = None,
) -> Solution:
    """Solves one problem in float64, from every start, and keeps the best end point.

    Args:
      predict: a law's ``predict(params, ratios_KM) -> bpb_KN``; compiled once per function and shapes.
      params: its parameters.
      task_weights_N: w ≥ 0, normalised here to sum 1.
      natural_M: p0. A domain of natural weight 0 gets none, if λ > 0.
      lower_M: lower bounds.
      upper_M: upper bounds; the set must not be empty (:func:`olmix_jax.propose.caps.check_feasible`).
      kl_weight: λ ≥ 0 [BPB per nat].
      starts_SM: mixtures to start from, which need not be within the bounds; natural alone where there are none.
      convex: whether the law is, so that ``gap`` is a bound and one start enough.
      max_iterations: after which the solver gives up and says so; 500, or 100 per start for a law that is not convex.

    Raises:
      UserError: an input or the law's prediction is not finite, or a domain of natural weight 0 has a lower bound.
    """
    task_weights_N = np.asarray(task_weights_N, np.float64)
    natural_M, lower_M, upper_M = (np.asarray(x, np.float64) for x in (natural_M, lower_M, upper_M))
    leaves = jax.tree.leaves(params)
    if not all(np.isfinite(x).all() for x in [task_weights_N, natural_M, lower_M, upper_M, kl_weight, *leaves]):
        raise UserError("the problem to solve has a value that is not finite in its law, weights or bounds")
    if not (task_weights_N >= 0).all() or not task_weights_N.any() or not kl_weight >= 0:
        raise UserError("task weights must be 0 or more and not all 0, and propose.kl_weight 0 or more")
    if kl_weight > 0:
        if (lower_M[natural_M <= 0] > 0).any():
            raise UserError(
                "a domain of natural weight 0 has a positive lower bound; with propose.kl_weight > 0 it "
                "cannot be in the mixture"
            )
        upper_M = np.where(natural_M > 0, upper_M, 0.0)
    objective = (params, task_weights_N / task_weights_N.sum(), natural_M, float(kl_weight))
    starts_SM = natural_M[None] if starts_SM is None else np.asarray(starts_SM, np.float64)
    run = compiled(predict, kl_weight > 0)
    if max_iterations is None:
        max_iterations = MAX_ITERATIONS if convex else LOCAL_ITERATIONS
    with inputs.float64():
        ends = [run(*objective, lower_M, upper_M, max_iterations, start_M) for start_M in starts_SM]
    ends = [jax.tree.map(np.asarray, end) for end in ends]
    ends = [end for end in ends if all(np.isfinite(x).all() for x in end)]
    if not ends:
        raise UserError("the law predicts no finite BPB around the natural distribution: fit it on more runs")
    return _best(ends, convex)


def _best(ends: list["Minimum"], convex: bool) -> Solution:
    """The end point of least value; of those as good to rounding, one that converged."""
    least = min(float(end.value) for end in ends)
    small = (TOLERANCE if convex else LOCAL_TOLERANCE) * max(1.0, abs(least))
    good_ends = [end for end in ends if end.gap <= small and end.value <= least + TOLERANCE * max(1.0, abs(least))]
    found, good = min(good_ends or ends, key=lambda end: float(end.value)), bool(good_ends)
    status = "optimal" if convex else f"local optimum, best of {len(ends)} starts"
    if not good:
        status = f"not converged (gap {found.gap:.3g} after {found.iterations} iterations)"
    scalars = {name: getattr(found, name).item() for name in ("value", "kl", "iterations", "residual")}
    return Solution(
        status=status,
        weights_M=found.weights_M,
        multipliers_M=found.multipliers_M,
        gap=found.gap.item() if convex else None,
        converged=good,
        starts=len(ends),
        agreeing=sum(bool(end.value <= found.value + AGREE) for end in ends),
        **scalars,
    )


@functools.lru_cache(maxsize=32)
def compiled(predict, entropic: bool):
    """The program that solves a law's problems; call it under :func:`olmix_jax.laws.inputs.float64`."""

    def minimum(params, task_weights_N, natural_M, kl_weight, lower_M, upper_M, max_iterations, start_M):
        objective = Objective(predict, params, task_weights_N, natural_M, kl_weight)
        return minimise(objective, lower_M, upper_M, entropic, max_iterations, start_M)

    return jax.jit(minimum, compiler_options=COMPILER)


class _State(NamedTuple):
    p_M: jax.Array
    slope_M: jax.Array  # ∇f
    bound_M: jax.Array  # where the linearised problem has its minimum
    value: jax.Array
    gap: jax.Array
    eta: jax.Array
    iterations: jax.Array
    polished: jax.Array  # iterations since the gap was first small enough


def minimise(
    objective: Objective, lower_M, upper_M, entropic: bool, max_iterations: int = MAX_ITERATIONS, start_M=None
) -> Minimum:
    """Minimises ``objective`` within bounds, from the projection of a start (of natural, without one).

    Pure JAX, for float64 and ``jax.vmap``; ``entropic`` says that λ > 0.
    """
    geometry = (geometries.entropic if entropic else geometries.euclidean)(objective, lower_M, upper_M)
    slope_of, both_of = jax.grad(objective.law), jax.value_and_grad(objective.law)

    def certified(p_M, eta, iterations, polished):
        law, slope_M = both_of(p_M)
        v_M, penalty = geometry.bound(slope_M), objective.penalty(p_M)
        gap = slope_M @ (p_M - v_M) + penalty - objective.penalty(v_M)
        return _State(p_M, slope_M, v_M, law + penalty, jnp.maximum(gap, 0.0), eta, iterations, polished)

    def loose(state):
        # Half the tolerance, so that nothing hangs on the last bit of the value.
        return state.gap > 0.5 * TOLERANCE * jnp.maximum(1.0, jnp.abs(state.value))

    def body(state):
        p_M, eta = _line_search(objective, geometry, both_of, state)
        pair_CM = jnp.stack([p_M, _leap(slope_of, state)])
        value_C = jax.vmap(objective.value)(pair_CM)
        p_M = jnp.where(value_C[1] < value_C[0], pair_CM[1], pair_CM[0])
        p_M = newton.step(objective, geometry, slope_of, p_M, lower_M, upper_M)
        return certified(p_M, eta, state.iterations + 1, jnp.where(loose(state), 0, state.polished + 1))

    def unfinished(state):
        going = loose(state) | ((state.polished < POLISH) & (state.gap > 0))
        return going & jnp.isfinite(state.value) & (state.iterations < max_iterations)

    begin_M = geometry.start(objective.natural_M if start_M is None else start_M)
    state = jax.lax.while_loop(unfinished, body, certified(begin_M, jnp.ones(()), 0, 0))
    residual, multipliers_M = _stationarity(objective, state, lower_M, upper_M)
    return Minimum(
        state.p_M, state.value, objective.kl(state.p_M), state.gap, state.iterations, residual, multipliers_M
    )


def _line_search(objective: Objective, geometry: geometries.Geometry, both_of, state: _State):
    """The proximal step, with η divided until the slope changes by no more than D/η allows and F does not rise.

    For convex f the first implies the second. Returns (p⁺, the η to go on from).
    """

    def divide(carry):
        _, eta, _ = carry
        eta = eta / 4
        new_M = geometry.step(state.p_M, state.slope_M, eta)
        law, slope_M = both_of(new_M)
        # ⟨∇f(p⁺) − ∇f(p), p⁺ − p⟩ bounds what the usual test on f measures, and has no cancellation in it.
        turn = (slope_M - state.slope_M) @ (new_M - state.p_M)
        rise = law + objective.penalty(new_M) - state.value
        allowed = geometry.distance(new_M, state.p_M) / eta + 1e-17
        return new_M, eta, (turn <= allowed) & (rise <= 1e-13 * jnp.maximum(1.0, jnp.abs(state.value)))

    # The first trial is at four times the last η.
    start = state.p_M, state.eta * 16, jnp.array(False)
    new_M, eta, good = jax.lax.while_loop(lambda c: ~c[2] & (c[1] > 1e-30), divide, start)
    return jnp.where(good, new_M, state.p_M), eta


def _leap(slope_of, state: _State):
    """The step to the certificate's minimiser v, shortened to where the curvature of f says that it pays.

    F falls by at least γ·gap − γ²·dᵀ∇²f d/2 along d = v − p. Weights that the entropic geometry has driven to almost 0
    come back in one such step, and in it alone: a proximal step can only multiply them.
    """
    toward_M = state.bound_M - state.p_M
    curve = toward_M @ jax.jvp(slope_of, (state.p_M,), (toward_M,))[1]
    new_M = state.p_M + jnp.minimum(1.0, state.gap / jnp.maximum(curve, TINY)) * toward_M
    # Rounding must not carry an entry past a bound.
    return jnp.clip(new_M, jnp.minimum(state.p_M, state.bound_M), jnp.maximum(state.p_M, state.bound_M))


def _stationarity(objective, state, lower_M, upper_M):
    """The projected-gradient residual, and the multipliers μ of the upper bounds.

    Stationarity is ∇F_j = ν − μ_j + σ_j, with μ on entries at their cap and σ on those at their lower bound. ν is the
    slope of the entries in between; at a vertex, the slope at which the next bit of room would be paid for.
    """
    p_M, slope_M = state.p_M, state.slope_M + newton.penalty_slope(objective, state.p_M)
    residual = jnp.abs(p_M - project(p_M - slope_M, lower_M, upper_M)).max()
    inside_M = jnp.minimum(p_M - lower_M, upper_M - p_M)
    inner = (inside_M @ slope_M) / jnp.maximum(inside_M.sum(), TINY)
    vertex = jnp.where(p_M > lower_M, slope_M, -jnp.inf).max()
    level = jnp.where(inside_M.sum() > 1e-12, inner, vertex)
    # A domain without natural weight is kept out by the KL term, not by its cap.
    capped_M = (p_M >= upper_M) & (upper_M > 0)
    return residual, jnp.where(capped_M, jnp.maximum(level - slope_M, 0.0), 0.0)

"""The mixture that minimises an objective within bounds, with proof (METHOD §2, step 4).

    min F(p) = f(p) + λ·KL(p ‖ natural)   over   {lower ≤ p ≤ upper, Σ_j p_j = 1, groups' bounds},   f = Σ_i w_i f_i

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
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from olmix_jax.laws import cpu
from olmix_jax.solver import geometry as geometries
from olmix_jax.solver import kkt, newton, projection
from olmix_jax.solver.bounds import Bounds, within
from olmix_jax.solver.objective import Objective, mean
from olmix_jax.solver.projection import TINY
from olmix_jax.utils.errors import UserError

# Converged: gap ≤ TOLERANCE · max(1, |value|).
TOLERANCE = 1e-9
# Iterations after that. A gap bounds weights by its root, TV² ≤ gap/(2λ); Newton steps more make them as exact.
POLISH = 1
MAX_ITERATIONS = 500
# The same for a law that is not convex. It is of no use to find its minimum to more digits than its slopes have: those
# of a Gaussian process are differences of large terms.
LOCAL_TOLERANCE, LOCAL_ITERATIONS = 1e-7, 100
# End points this near to the best value [BPB] agree with it.
AGREE = 1e-6


@dataclasses.dataclass(frozen=True)
class Solution:
    """A minimiser and how it is known to be one. What a search over candidates does not know is None.

    Attributes:
      status: "optimal", "local optimum, best of … starts", "search over …", or "not converged (gap …)". Optimal means
        gap ≤ 1e-9 · max(1, |value|) for a convex law; a local optimum is good to 1e-7.
      weights_M: the mixture; within the bounds exactly, sum 1 to rounding.
      value: F [BPB].
      kl: KL(p ‖ natural) [nats]; infinite for weight where natural has none, which λ = 0 allows.
      gap: duality gap, an upper bound on how far ``value`` is above the minimum [BPB]; None for a law that is not
        convex.
      iterations: of the solver.
      residual: how far the optimality conditions are from holding, max_j of an entry's distance to the bound that its
        slope points to, or of that slope, whichever is less; zero at and only at a stationary point.
      multipliers_M: of the upper bounds, ≥ 0: fall of the minimum per unit by which the bound is raised [BPB].
      group_multipliers_G: of the groups; ≥ 0 at a group's most weight, as above; ≤ 0 at its least.
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
    group_multipliers_G: np.ndarray | None = None
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
    group_multipliers_G: jax.Array


def solve(
    predict: Callable,
    params,
    weights,
    natural_M,
    bounds: Bounds,
    kl_weight: float,
    *,
    merge: Callable = mean,
    starts_SM=None,
    convex: bool = True,
    max_iterations: int | None = None,
) -> Solution:
    """Solves one problem in float64, from every start, and keeps the best end point.

    Args:
      predict: a law's ``predict(params, ratios_KM) -> bpb_KN``; compiled once per function and shapes.
      params: its parameters.
      weights: what ``merge`` takes; task weights of sum 1, or −1 to maximise.
      natural_M: p0. A domain of natural weight 0 gets none, if λ > 0.
      bounds: where mixtures may be, not empty (:func:`olmix_jax.propose.feasibility.check_feasible`).
      kl_weight: λ ≥ 0 [BPB per nat].
      merge: see :class:`olmix_jax.solver.objective.Objective`.
      starts_SM: mixtures to start from, which need not be within the bounds; natural alone where there are none.
      convex: whether ``merge`` of the law is, so that ``gap`` is a bound and one start enough.
      max_iterations: after which the solver gives up and says so; 500, or 100 per start for a law that is not convex.

    Raises:
      UserError: an input or the law's prediction is not finite, or a domain of natural weight 0 has a lower bound.
    """
    if merge is mean and not np.isclose(abs(np.sum(weights)), 1, atol=1e-9):
        raise UserError(
            f"task weights must sum to 1, not {np.sum(weights):.6g}: else propose.kl_weight means another thing"
        )
    objective, bounds = checked(params, weights, natural_M, bounds, kl_weight)
    starts_SM = objective[2][None] if starts_SM is None else np.asarray(starts_SM, np.float64)
    run = compiled(predict, merge, kl_weight > 0)
    if max_iterations is None:
        max_iterations = MAX_ITERATIONS if convex else LOCAL_ITERATIONS
    with cpu.float64():
        ends = [run(*objective, bounds, max_iterations, start_M) for start_M in starts_SM]
    return best([jax.tree.map(np.asarray, end) for end in ends], convex)


def checked(params, weights, natural_M, bounds: Bounds, kl_weight: float):
    """((params, weights, natural_M, λ), bounds) as the compiled program takes them.

    Raises:
      UserError: as :func:`solve`.
    """
    natural_M = np.asarray(natural_M, np.float64)
    leaves = jax.tree.leaves((params, weights, natural_M, bounds, kl_weight))
    if not all(np.isfinite(x).all() for x in leaves):
        raise UserError("the problem to solve has a value that is not finite in its law, weights or bounds")
    if not kl_weight >= 0:
        raise UserError("propose.kl_weight must be 0 or more")
    bounds = jax.tree.map(np.asarray, bounds)
    if kl_weight > 0:
        if (bounds.lower_M[natural_M <= 0] > 0).any():
            raise UserError(
                "a domain of natural weight 0 has a positive lower bound; with propose.kl_weight > 0 it "
                "cannot be in the mixture"
            )
        bounds = bounds._replace(upper_M=np.where(natural_M > 0, bounds.upper_M, 0.0))
    return (params, weights, natural_M, float(kl_weight)), bounds


def best(ends: list[Minimum], convex: bool) -> Solution:
    """The end point of least value; of those as good to rounding, one that converged.

    Raises:
      UserError: none is finite.
    """
    # The divergence counts in the value for λ > 0 alone. Else it is infinite for weight where natural has none.
    numbers = [end._replace(kl=0.0) for end in ends]
    ends = [end for end, own in zip(ends, numbers) if all(np.isfinite(x).all() for x in own)]
    ends = [end for end in ends if abs(end.weights_M.sum() - 1) < 1e-9]
    if not ends:
        raise UserError("the law predicts no finite BPB around the natural distribution: fit it on more runs")
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
        group_multipliers_G=found.group_multipliers_G,
        gap=found.gap.item() if convex else None,
        converged=good,
        starts=len(ends),
        agreeing=sum(bool(end.value <= found.value + AGREE) for end in ends),
        **scalars,
    )


@functools.lru_cache(maxsize=32)
def compiled(predict: Callable, merge: Callable, entropic: bool):
    """The program that solves a law's problems; call it under :func:`olmix_jax.laws.cpu.float64`."""

    def minimum(params, weights, natural_M, kl_weight, bounds, max_iterations, start_M):
        objective = Objective(predict, merge, params, weights, natural_M, kl_weight)
        return minimise(objective, bounds, entropic, max_iterations, start_M)

    return jax.jit(minimum, compiler_options=cpu.QUICK)


class _State(NamedTuple):
    p_M: jax.Array
    next_M: jax.Array
    slope_M: jax.Array  # ∇f at p, as are value and gap
    value: jax.Array
    gap: jax.Array
    eta: jax.Array
    iterations: jax.Array
    tight: jax.Array  # how often in a row the gap was small enough
    done: jax.Array


def minimise(objective: Objective, bounds: Bounds, entropic: bool, max_iterations, start_M) -> Minimum:
    """Minimises ``objective`` within bounds, from the point within them that is near ``start_M``.

    Pure JAX, for float64 and ``jax.vmap``; ``entropic`` says that λ > 0.
    """
    geometry = (geometries.entropic if entropic else geometries.euclidean)(objective, bounds)
    slope_of, both_of = jax.grad(objective.law), jax.value_and_grad(objective.law)

    def advance(state, v_M):
        p_M, eta = _line_search(objective, geometry, both_of, state)
        pair_CM = jnp.stack([p_M, _leap(slope_of, state, v_M)])
        value_C = objective.values(pair_CM)
        p_M = jnp.where(value_C[1] < value_C[0], pair_CM[1], pair_CM[0])
        return newton.step(objective, geometry, slope_of, p_M, bounds), eta

    def body(state):
        p_M = state.next_M
        law, slope_M = both_of(p_M)
        v_M, penalty = geometry.bound(slope_M), objective.penalty(p_M)
        gap = jnp.maximum(slope_M @ (p_M - v_M) + penalty - objective.penalty(v_M), 0.0)
        value = law + penalty
        # Half the tolerance, so that nothing hangs on the last bit of the value.
        tight = jnp.where(gap <= 0.5 * TOLERANCE * jnp.maximum(1.0, jnp.abs(value)), state.tight + 1, 0)
        done = (tight > POLISH) | (gap == 0) | ~jnp.isfinite(value) | (state.iterations >= max_iterations)
        state = _State(p_M, p_M, slope_M, value, gap, state.eta, state.iterations + ~done, tight, done)
        # Also once when done, for nothing: a condition would give each of many problems a copy of the law.
        next_M, eta = advance(state, v_M)
        return state._replace(next_M=next_M, eta=eta)

    begin_M = within(projection.inside, start_M, bounds)
    nothing = jnp.zeros(())
    begin = _State(begin_M, begin_M, jnp.zeros_like(begin_M), nothing, nothing, jnp.ones(()), 0, 0, False)
    state = jax.lax.while_loop(lambda state: ~state.done, body, begin)
    return Minimum(
        state.p_M,
        state.value,
        objective.kl(state.p_M),
        state.gap,
        state.iterations,
        *kkt.of(state.slope_M + newton.penalty_slope(objective, state.p_M), state.p_M, bounds),
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


def _leap(slope_of, state: _State, v_M):
    """The step to the certificate's minimiser v, shortened to where the curvature of f says that it pays.

    F falls by at least γ·gap − γ²·dᵀ∇²f d/2 along d = v − p. Weights that the entropic geometry has driven to almost 0
    come back in one such step, and in it alone: a proximal step can only multiply them.
    """
    toward_M = v_M - state.p_M
    curve = toward_M @ jax.jvp(slope_of, (state.p_M,), (toward_M,))[1]
    share = jnp.minimum(1.0, state.gap / jnp.maximum(curve, TINY))
    # Rounding must neither carry an entry past a bound nor keep it from one.
    new_M = jnp.clip(state.p_M + share * toward_M, jnp.minimum(state.p_M, v_M), jnp.maximum(state.p_M, v_M))
    return jnp.where(share < 1, new_M, v_M)

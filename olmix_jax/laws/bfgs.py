"""Unconstrained minimisation by BFGS, with one evaluation per step."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

# Largest change of a variable in one step. The variables are logarithms.
LONGEST = 1.5


def minimise(value_and_gradient: Callable, start_P, inverse_P, steps: int, tolerance: float = 0.0):
    """Return the best point x_P, its value, and the decrease that one more step promises; see :func:`descend`."""
    return descend(value_and_gradient, start_P, jnp.diag(inverse_P), steps, tolerance)[:3]


def descend(value_and_gradient: Callable, start_P, first_PP, steps: int, tolerance: float = 0.0):
    """Return :func:`minimise`, and the last estimate of the inverse Hessian.

    The promised decrease is half the Newton decrement with the last estimate of the curvature: exact for a quadratic
    function. The descent ends when it is at most ``tolerance``, or after ``steps`` evaluations.

    A step that does not lower the value is retried at a third of its length. It does not update the curvature, which
    may be quite different where the value rose.

    Args:
      value_and_gradient: x_P → (value, gradient_P). A value that is not finite counts as too high.
      start_P: the starting point.
      first_PP: a first estimate of the inverse Hessian; :func:`minimise` takes its diagonal.
      steps: upper bound on the evaluations after the first.
      tolerance: in units of the value.
    """

    def promised(state):
        _, _, gradient_P, inverse_PP, *_ = state
        return 0.5 * gradient_P @ inverse_PP @ gradient_P

    def body(state):
        x_P, value, gradient_P, inverse_PP, trial_P, length, count = state
        new_value, new_gradient_P = value_and_gradient(trial_P)
        better = new_value < value
        learns = better & (count > 0)
        inverse_PP = jnp.where(learns, _updated(inverse_PP, trial_P - x_P, new_gradient_P - gradient_P), inverse_PP)
        x_P, value = jnp.where(better, trial_P, x_P), jnp.where(better, new_value, value)
        gradient_P, length = jnp.where(better, new_gradient_P, gradient_P), jnp.where(better, 1.0, length / 3)
        step_P = -length * (inverse_PP @ gradient_P)
        step_P = jnp.where(step_P @ gradient_P < 0, step_P, -length * jnp.diag(first_PP) * gradient_P)
        step_P = step_P * jnp.minimum(1.0, LONGEST / jnp.maximum(jnp.abs(step_P).max(), 1e-300))
        return x_P, value, gradient_P, inverse_PP, x_P + step_P, length, count + 1

    def unfinished(state):
        # The first evaluation is at the starting point.
        return (state[-1] == 0) | ((state[-1] <= steps) & (promised(state) > tolerance))

    begin = start_P, jnp.inf, jnp.zeros_like(start_P), first_PP, start_P, jnp.ones(()), 0
    end = jax.lax.while_loop(unfinished, body, begin)
    return end[0], end[1], promised(end), end[3]


def _updated(inverse_PP, step_P, change_P):
    """Return the inverse Hessian, updated by a step and its change of gradient; unchanged if the curvature is ≤ 0."""
    curved = step_P @ change_P > 1e-10 * jnp.linalg.norm(step_P) * jnp.linalg.norm(change_P)
    scale = 1 / jnp.where(curved, step_P @ change_P, 1.0)
    bent_P = inverse_PP @ change_P
    rank_PP = jnp.outer(step_P, bent_P)
    square = 1 + scale * (change_P @ bent_P)
    update_PP = scale * (square * jnp.outer(step_P, step_P) - rank_PP - rank_PP.T)
    return inverse_PP + jnp.where(curved, update_PP, 0.0)

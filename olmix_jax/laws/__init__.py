"""From mixtures and their BPB to a law: one file per family, and how good a law is on runs it has not seen.

A family is a module with

    Params             a NamedTuple of arrays; resamples and samples are leading axes
    DIFFERENTIABLE     whether ``predict`` is pure JAX
    SLOW               there and true where a refit costs so much that quality is by cross-validation alone, no samples
    parameters(M)      what a fit needs fewer of than it has runs
    fit                (ratios_KM, bpb_KN, weight_K) → Fit: ``params``, the in-sample ``loss_N``, ``unseen`` domains
    fit_weighted       (ratios_KM, bpb_KN, weight_RK) → Params of R refits; from one fit alone where ``near`` gives it
    predict            (params, ratios_KM) → bpb_KN
    describe           (params, task, domains) → one task's parameters, for people

and, where it knows its own uncertainty, ``spread(params, ratios_KM)`` → the standard deviation std_KN of a new run, and
``sample(params, number, seed)`` → Params drawn from the posterior; and ``leave_one_out(params)`` → predicted_KN where
that has a closed form. Families know nothing of tables, files or proposals.
"""

import functools
import operator
import types

import jax
import numpy as np

from olmix_jax.laws import autoscale, bimix, gp, lightgbm, log_linear, numerics, search, warped_gp

LAWS = {
    "warped_gp": warped_gp,
    "log_linear": log_linear,
    "bimix": bimix,
    "autoscale": autoscale,
    "gp": gp,
    "lightgbm": lightgbm,
    "search": search,
}


def evaluate(law, params, ratios_KM, of: str = "predict") -> np.ndarray:
    """A law's predictions (or ``of`` what else it has to say of mixtures) as a float64 array, bpb_KN [BPB]."""
    ratios_KM, function = np.asarray(ratios_KM, np.float64), getattr(law, of)
    with numerics.float64():
        return np.asarray((_compiled(function) if law.DIFFERENTIABLE else function)(params, ratios_KM))


def evaluate_each(law, params_R, ratios_KM, of: str = "predict") -> np.ndarray:
    """:func:`evaluate` for every resample, bpb_RKN; ``ratios_KM`` may have an axis R too, each resample's own.

    Resamples run in turn, through one program, which bounds memory.
    """
    ratios_KM, params_R = np.asarray(ratios_KM, np.float64), jax.tree.map(np.asarray, params_R)
    resamples = len(jax.tree.leaves(params_R)[0])
    each = ratios_KM if ratios_KM.ndim == 3 else [ratios_KM] * resamples
    ones = (jax.tree.map(operator.itemgetter(r), params_R) for r in range(resamples))
    return np.stack([evaluate(law, params, own_KM, of) for params, own_KM in zip(ones, each)])


def through(law) -> types.SimpleNamespace:
    """``law`` as one over other weights, which a matrix maps to its own: Params are (its own, matrix_DM).

    Such as blocks of domains that keep their ratios, or another set of domains. It is convex where ``law`` is.
    """
    return types.SimpleNamespace(
        predict=_through(law.predict), DIFFERENTIABLE=law.DIFFERENTIABLE, CONVEX=getattr(law, "CONVEX", False)
    )


@functools.lru_cache(maxsize=32)
def _through(predict):
    """(params, matrix_DM), ratios_KD → bpb_KN; cached, so that it is one function to compile."""
    return lambda params, ratios_KD: predict(params[0], ratios_KD @ params[1])


@functools.lru_cache(maxsize=32)
def _compiled(function):
    return jax.jit(function, compiler_options=numerics.QUICK)

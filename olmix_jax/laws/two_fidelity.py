"""A law of two fidelities: many cheap runs give the shape, a few real runs give its scale.

f_i(p) = g_i(p) · exp(ρ_i (m_i(p) − m̄_i)),  m_i(p) = log of what the law of the cheap runs predicts,

with m̄_i the mean over the real runs. Cheap runs, such as merged models, branches of a trunk or shorter runs, show a
mixture's effects attenuated, so ρ_i is learnt from the real runs: per task by least squares of log f_i on m_i, shrunk
towards a slope that all tasks share, by as much as the tasks' slopes agree.

g_i is what the real runs add: a Gaussian process (:mod:`~olmix_jax.laws.warped_gp`) of f_i / exp(…), whose prior says
how little a few runs can tell. Where the real runs do not confirm the cheap ones (the shared slope is not above 0 with
95 % confidence) ρ = 0 and g_i is :mod:`~olmix_jax.laws.floored_gp` of the real runs alone. So is the whole law without
cheap runs.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from olmix_jax.laws import floored_gp, gp_posterior, inputs, quality, warped_gp
from olmix_jax.laws.law import Fit, evaluate
from olmix_jax.utils import rng

# Mean and standard deviation of the prior of the slope that tasks share.
PRIOR = 1.0, 1.0
# Confidence with which the real runs must show that cheap runs predict them.
SURE = 0.95
# Weight of the mean noise variance of all tasks in that of one task, in degrees of freedom.
POOLED = 4.0
# Mixtures of which a smaller share differs are one, in whole sequences of short and of long runs.
SAME = 0.01


class Params(NamedTuple):
    """Two laws and the slopes between them. Resamples or samples, if any, are leading axes.

    Attributes:
      own: g, a posterior, or prepared for many predictions.
      slope_N: ρ; zeros where the law is that of the real runs alone.
      common_error_N: standard deviation of ρ by the error of the shared slope, which moves all tasks together.
      own_error_N: standard deviation of ρ by the errors of the tasks' own slopes.
      centre_N: m̄.
      shared: the shared slope as the real runs alone estimate it, whether it is used or not.
      shared_error: its standard error.
      cheap: the law of the cheap runs, likewise; None without them.
    """

    own: gp_posterior.Params
    slope_N: np.ndarray
    common_error_N: np.ndarray
    own_error_N: np.ndarray
    centre_N: np.ndarray
    shared: np.ndarray
    shared_error: np.ndarray
    cheap: gp_posterior.Params | None = None


class Slopes(NamedTuple):
    """Slopes of log BPB of real runs on that of cheap runs, fields as in Params.

    ``sure`` says whether the cheap runs predict the real ones.
    """

    slope_N: np.ndarray
    common_error_N: np.ndarray
    own_error_N: np.ndarray
    shared: float
    shared_error: float
    sure: bool


def base(ratios_JM, bpb_JN, *, seed: int = 0, tasks=None) -> gp_posterior.Params:
    """Return the law of the cheap runs, which ``fit`` takes. Errors as of ``floored_gp.fit``."""
    return floored_gp.LAW.fit(ratios_JM, bpb_JN, seed=seed, tasks=tasks).params


def slopes(log_KN, shape_KN, weight_K, mixtures: int) -> Slopes:
    """Return the slopes of ``log_KN`` on ``shape_KN`` over runs with weights ω, shrunk towards a shared one.

    The shared slope is the mean of the tasks' slopes, weighted by their precision. Its error is taken over runs,
    because tasks share the noise of a run. The variance of true slopes around it is that of DerSimonian and Laird.

    Args:
      log_KN: log BPB of the real runs.
      shape_KN: m, what the law of cheap runs predicts for them.
      weight_K: ω ≥ 0.
      mixtures: number of different mixtures among the runs of positive weight.
    """
    degrees, share_K = mixtures - 2, weight_K / weight_K.sum()
    x_KN, y_KN = shape_KN - share_K @ shape_KN, log_KN - share_K @ log_KN
    square_N = weight_K @ x_KN**2
    nothing_N = np.zeros(len(square_N))
    if degrees < 1 or not (square_N > 1e-18).any():
        return Slopes(nothing_N, nothing_N, nothing_N, 0.0, 0.0, False)
    square_N = np.maximum(square_N, 1e-18)
    each_N = weight_K @ (x_KN * y_KN) / square_N
    left_N = weight_K @ (y_KN - each_N * x_KN) ** 2
    noise_N = (left_N + POOLED * left_N.mean() / degrees) / (degrees + POOLED)
    variance_N = np.maximum(noise_N / square_N, 1e-18)
    between = _between(each_N, variance_N)
    part_N = 1 / (variance_N + between)
    part_N /= part_N.sum()
    shared = float(part_N @ each_N)
    score_K = weight_K * ((y_KN - shared * x_KN) * x_KN / square_N @ part_N)
    variance = float(score_K @ score_K) * mixtures / degrees + between * float(part_N @ part_N)
    sure = shared > scipy.stats.t.ppf(SURE, degrees) * variance**0.5
    kept_N, trust = between / (between + variance_N), PRIOR[1] ** 2 / (PRIOR[1] ** 2 + variance)
    likely = trust * shared + (1 - trust) * PRIOR[0]
    return Slopes(
        likely + kept_N * (each_N - likely),
        (1 - kept_N) * (trust * variance) ** 0.5,
        np.sqrt(kept_N * variance_N),
        shared,
        variance**0.5,
        bool(sure),
    )


def _between(each_N, variance_N) -> float:
    """Return the variance of true slopes, from estimates and the variances of their errors."""
    precision_N = 1 / variance_N
    total = precision_N.sum()
    excess = precision_N @ (each_N - precision_N @ each_N / total) ** 2 - (len(each_N) - 1)
    scale = total - precision_N @ precision_N / total
    return max(float(excess / scale), 0.0) if scale > 1e-9 * total else 0.0


def fit(ratios_KM, bpb_KN, *, starts: int = 1, seed: int = 0, tasks=None, weight_K=None, base=None) -> Fit:
    """Fit every task to the real runs, given the law of the cheap ones.

    Args:
      ratios_KM: mixtures of the real runs.
      bpb_KN: their BPB.
      starts: no effect.
      seed: of the law of the real runs.
      tasks: names for messages.
      weight_K: ω, weights of the runs; ones by default.
      base: the result of :func:`base`; None without cheap runs.

    Returns:
      A Fit. ``loss_N`` is the weighted mean square of the runs' relative errors.

    Raises:
      UserError: a value is not finite, or the shapes disagree.
    """
    ratios_KM, bpb_KN, weight_1K = inputs.check(ratios_KM, bpb_KN, inputs.one_row(weight_K), tasks)
    params = jax.tree.map(lambda x: x[0], fit_weighted(ratios_KM, bpb_KN, weight_1K, seed=seed, tasks=tasks, base=base))
    error_KN = (evaluate(LAW, params, ratios_KM) - bpb_KN) / np.abs(bpb_KN).mean(axis=0)
    # Where the cheap runs are used, they tell the effects of domains that no real run samples.
    read_KM = np.concatenate([ratios_KM, params.cheap.ratios_KM]) if predicts_real(params) else ratios_KM
    return Fit(params, weight_1K[0] @ error_KN**2 / weight_1K[0].sum(), inputs.unseen(read_KM))


def fit_weighted(
    ratios_KM, bpb_KN, weight_RK, *, starts=1, seed: int = 0, tasks=None, near=None, begin=None, base=None
) -> Params:
    """Fit every task R times with run weights ω. Arguments and errors as of :func:`fit`.

    ``near`` and ``begin`` are Params of a fit to all real runs, whose law of the cheap runs is the default of ``base``.
    Cheap runs on the mixture of a run of weight 0 are then left out too: where both kinds have seeds or text in common,
    they tell its error, as they cannot for a new mixture.
    With ``near``, the hyperparameters of g are kept where g is of the same kind; slopes are always learnt again.
    Returns Params with a leading axis R.
    """
    ratios_KM, bpb_KN, weight_RK = inputs.check(ratios_KM, bpb_KN, weight_RK, tasks)
    earlier, given = begin if near is None else near, base
    which_K, fits, bases = quality.mixtures(ratios_KM), [], []
    for weight_K in weight_RK:
        base = _without(earlier.cheap, ratios_KM[weight_K <= 0]) if given is None and earlier is not None else given
        bases.append(base)
        shape_KN = _shape(base, ratios_KM, bpb_KN)
        relation = _relation(bpb_KN, shape_KN, weight_K, len(np.unique(which_K[weight_K > 0])))
        centre_N = weight_K @ shape_KN / weight_K.sum()
        rest_KN = bpb_KN / np.exp(relation.slope_N * (shape_KN - centre_N))
        law = warped_gp.LAW if relation.sure else floored_gp.LAW
        kept = {
            name: of.own
            for name, of in (("near", near), ("begin", begin))
            if of is not None and predicts_real(of) == relation.sure
        }
        own = law.fit_weighted(ratios_KM, rest_KN, weight_K[None], seed=seed, tasks=tasks, **kept)
        shared = np.asarray(relation.shared), np.asarray(relation.shared_error)
        fits.append(Params(jax.tree.map(lambda x: x[0], own), *relation[:3], centre_N, *shared))
    cheap: Any = jax.tree.map(lambda *x: np.stack(x), *bases)
    return jax.tree.map(lambda *x: np.stack(x), *fits)._replace(cheap=cheap)


def _without(cheap: gp_posterior.Params | None, ratios_QM) -> gp_posterior.Params | None:
    """Return the law of the cheap runs without those on any of the mixtures; its hyperparameters are kept."""
    if cheap is None:
        return None
    out_J = (np.abs(cheap.ratios_KM[:, None] - ratios_QM).sum(axis=2) < 2 * SAME).any(axis=1)
    return floored_gp.without(cheap, out_J) if out_J.any() else cheap


def predicts_real(params: Params) -> bool:
    """Return whether the real runs confirm the cheap ones, so that the law uses both."""
    return bool((np.asarray(params.slope_N) != 0).any())


def _shape(cheap: gp_posterior.Params | None, ratios_KM, bpb_KN) -> np.ndarray:
    """Return m, the log of what the law of the cheap runs predicts, shape_KN; 0 for tasks without a logarithm."""
    if cheap is None:
        return np.zeros_like(bpb_KN)
    usable_N = (bpb_KN > 0).all(axis=0) & (np.asarray(cheap.logged_N) > 0)
    return np.log(np.where(usable_N, evaluate(warped_gp.LAW, cheap, ratios_KM), 1.0))


def _relation(bpb_KN, shape_KN, weight_K, mixtures: int) -> Slopes:
    """Return the slopes of all tasks. Tasks without a shape, and all where none is confirmed, have slope 0."""
    shaped_N = (shape_KN != 0).any(axis=0)
    relation = slopes(np.log(bpb_KN[:, shaped_N]), shape_KN[:, shaped_N], weight_K, mixtures)
    wide_3N = np.zeros((3, len(shaped_N)))
    if relation.sure:
        wide_3N[:, shaped_N] = relation[:3]
    slope_N, common_error_N, own_error_N = wide_3N
    return relation._replace(slope_N=slope_N, common_error_N=common_error_N, own_error_N=own_error_N)


def predict(params: Params, ratios_KM):
    """Return bpb_KN [BPB]. Pure JAX."""
    own_KN = gp_posterior.predict(params.own, ratios_KM)
    if params.cheap is None:
        return own_KN
    return own_KN * _factor(params, gp_posterior.predict(params.cheap, ratios_KM))


def _factor(params: Params, cheap_KN):
    """Return exp(ρ (m − m̄)), 1 where the slope is 0."""
    used_N = jnp.asarray(params.slope_N) != 0
    shape_KN = jnp.log(jnp.where(used_N[None, :], cheap_KN, 1.0))
    return jnp.exp(params.slope_N[None, :] * (shape_KN - params.centre_N[None, :]))


def spread(params: Params, ratios_KM):
    """Return the standard deviation of a new real run's measurement, noise included, std_KN [BPB]. Pure JAX.

    It holds the errors of g, of the slopes, and of the law of the cheap runs without the noise of its runs.
    """
    own_KN, own_std_KN = gp_posterior.predict(params.own, ratios_KM), gp_posterior.spread(params.own, ratios_KM)
    cheap = params.cheap
    if cheap is None:
        return own_std_KN
    cheap_KN, cheap_std_KN = gp_posterior.predict(cheap, ratios_KM), gp_posterior.spread(cheap, ratios_KM)
    above_KN = cheap.scale_N[None, :] * (cheap_KN - cheap.floor_N[None, :])
    noise2_KN = jnp.exp(cheap.theta_NP[:, -2])[None, :] * above_KN**2
    known_KN = jnp.where(cheap.logged_N[None, :] > 0, cheap_KN, 1.0)
    shape2_KN = jnp.maximum(cheap_std_KN**2 - noise2_KN, 0.0) / known_KN**2
    moved2_KN = (jnp.log(known_KN) - params.centre_N[None, :]) ** 2
    slope2_N = params.common_error_N**2 + params.own_error_N**2
    relative2_KN = params.slope_N[None, :] ** 2 * shape2_KN + slope2_N[None, :] * moved2_KN
    return _factor(params, cheap_KN) * jnp.sqrt(own_KN**2 * relative2_KN + own_std_KN**2)


def sample(params: Params, number: int, seed: int = 0) -> Params:
    """Draw both laws from their posteriors, and slopes whose errors tasks share in part; a leading axis S."""
    draw = rng.generator(seed, "two_fidelity.sample")
    common_S1, each_SN = draw.normal(size=(number, 1)), draw.normal(size=(number, len(params.slope_N)))
    slope_SN = params.slope_N + params.common_error_N * common_S1 + params.own_error_N * each_SN
    own: Any = gp_posterior.sample(params.own, number, seed)
    cheap: Any = None
    if params.cheap is not None:
        cheap = gp_posterior.sample(params.cheap, number, rng.derive(seed, "two_fidelity.cheap"))
    wide = jax.tree.map(lambda x: np.broadcast_to(x, (number, *np.shape(x))), params)
    return wide._replace(own=own, slope_N=slope_SN, cheap=cheap)


def prepare(params: Params) -> Params:
    """Return the parameters with both laws prepared for many predictions."""
    own: Any = gp_posterior.prepare(params.own)
    cheap: Any = None if params.cheap is None else gp_posterior.prepare(params.cheap)
    return params._replace(own=own, cheap=cheap)


def describe(params: Params, task: int, domains: tuple[str, ...]) -> dict:
    """Return one task's slope ρ with its error, and θ of both laws by name. A slope of 0: the real runs alone."""
    error = float(np.hypot(params.common_error_N[task], params.own_error_N[task]))
    laws = {"own": warped_gp.describe(params.own, task, domains)}
    if params.cheap is not None:
        laws["cheap"] = warped_gp.describe(params.cheap, task, domains)
    return {"slope": float(params.slope_N[task]), "slope_error": error, **laws}


LAW = dataclasses.replace(
    warped_gp.LAW,
    name="two_fidelity",
    Params=Params,
    fit=fit,
    fit_weighted=fit_weighted,
    predict=predict,
    describe=describe,
    spread=spread,
    sample=sample,
    leave_one_out=None,
    prepare=prepare,
    base=base,
)

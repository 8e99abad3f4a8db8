"""A Gaussian process on warped weights that learns, per task, which domains matter.

log f_i(p) = offset_i + scale_i · g_i(z),  z_j = log(1 + p_j/τ_i) / log(1 + 1/τ_i),  with g_i drawn from the kernel

    k(z, z') = a Σ_j w_j z_j z'_j + b (1 + √3 d) exp(−√3 d),  d² = ℓ Σ_j w_j (z_j − z'_j)²

Every run is measured with noise s² (s²/ω_k for a run of weight ω_k). So a task is a log-linear law in warped weights,
plus a smooth residual. Per task, θ = log (w_1…w_M, a, b, ℓ, s², τ) maximises the marginal likelihood times a normal
prior. Nothing is tuned by hand or by cross-validation. If no run samples a domain, its w keeps the prior's value, that
of an average domain. The log-linear law lacks the warp: the first percent of a domain is worth more than the last
(docs/log.md has the figures).

The default law, :mod:`~olmix_jax.laws.floored_gp`, subtracts a floor from the BPB first.

A task with a measurement ≤ 0, which is not a BPB, is modelled without the logarithm.
"""

from typing import NamedTuple

import jax
import numpy as np

from olmix_jax.laws import curves, gp_learning, inputs, per_task
from olmix_jax.laws.curves import CurvedParams
from olmix_jax.laws.gp_posterior import Params, leave_one_out, predict, prepare, sample, spread
from olmix_jax.laws.law import Fit, Law
from olmix_jax.swarm.lengths import Lengths, rows
from olmix_jax.utils import rng

# Largest number of runs that θ is learnt from, drawn at random. The law is then conditioned on every run.
LEARNT_ON = 256
# Number of runs from which a floor is used. With fewer runs the data prefer none, slightly (docs/log.md).
FLOOR_RUNS = 9


def parameters(domains: int) -> int:
    """Return 3: a fit needs more runs than that. The prior determines what the runs do not."""
    del domains
    return 3


def describe(params: Params | CurvedParams, task: int, domains: tuple[str, ...]) -> dict:
    """Return one task's θ by name.

    ``relevance`` is w by domain, ``linear`` a, ``rough`` b, ``inverse_length`` ℓ, ``noise`` s² (as a share of the
    variance of log(f − c)), ``warp`` τ (the weight up to which a domain's effect is linear), and ``floor`` c [BPB].
    ``curves`` is v. If the runs differ in length, ``length`` is the trend, the change of log(f − c) per unit of log R,
    and ``tokens`` is ρ.
    """
    theta_P = np.exp(np.asarray(params.theta_NP[task]))
    if isinstance(params, CurvedParams):
        plain_NP = params.theta_NP[:, 1 if params.trend_N is None else 2 :]
        plain = Params(*params[: len(Params._fields)])._replace(theta_NP=plain_NP)
        curved = {"curves": float(theta_P[0]), "floor": float(params.floor_N[task])}
        if params.trend_N is not None:
            curved["length"] = float(params.scale_N[task] * params.trend_N[task] / params.level_2[1])
            curved["tokens"] = float(params.theta_NP[task, 1])
        return curved | describe(plain, task, domains)
    names = "linear", "rough", "inverse_length", "noise", "warp"
    relevance = dict(zip(domains, theta_P[: len(domains)].tolist(), strict=True))
    shared = dict(zip(names, theta_P[len(domains) :].tolist(), strict=True))
    return {"relevance": relevance, **shared, "floor": float(params.floor_N[task])}


def fit(
    ratios_KM,
    bpb_KN,
    *,
    starts: int = 1,
    seed: int = 0,
    tasks=None,
    weight_K=None,
    lengths=None,
    with_curves=False,
    floor=0.0,
) -> Fit:
    """Fit every task to all runs.

    Args:
      ratios_KM: mixtures, rows on the simplex.
      bpb_KN: measured BPB, finite.
      starts: no effect. One descent, from the prior's mean, finds the maximum that more starts find.
      seed: of the choice of runs that θ is learnt from, if there are more than LEARNT_ON.
      tasks: names for messages; column numbers by default.
      weight_K: ω, weights of the runs; ones by default.
      lengths: the runs' lengths and pools, for a law with curves; None if they are alike.
      with_curves: whether the kernel and the learnt floor are those of :mod:`~olmix_jax.laws.exposure`.
      floor: see :mod:`~olmix_jax.laws.floored_gp`.

    Returns:
      A Fit. ``loss_N`` is −log (marginal likelihood × prior) of the standardised measurements, up to a constant.
      ``promised_N`` exceeds TOLERANCE only where STEPS were not enough.

    Raises:
      UserError: a value is not finite, or the shapes disagree.
    """
    ratios_KM, bpb_KN, weight_RK = inputs.check(ratios_KM, bpb_KN, inputs.one_row(weight_K), tasks)
    how = _How(seed, None, None, lengths, with_curves, floor)
    params, loss_RN, promised_RN = _fit(ratios_KM, bpb_KN, weight_RK, how)
    return Fit(jax.tree.map(lambda x: x[0], params), loss_RN[0], inputs.unseen(ratios_KM), promised_N=promised_RN[0])


def fit_weighted(
    ratios_KM,
    bpb_KN,
    weight_RK,
    *,
    starts=1,
    seed: int = 0,
    tasks=None,
    near=None,
    begin=None,
    lengths=None,
    with_curves=False,
    floor=0.0,
) -> Params | CurvedParams:
    """Fit every task R times with run weights ω. Weight 0 leaves a run out exactly; ω divides the run's noise by ω.

    Arguments and errors as for :func:`fit`. With ``near``, the Params of the fit to all runs, its θ is kept and only
    the linear algebra is repeated. With ``begin``, also the Params of a fit to all runs, θ is learnt from there, in a
    third of the steps, if there are LEARNT_ON runs. In smaller swarms a fold's θ would keep too much of the runs that
    it leaves out (docs/log.md). Returns Params with a leading axis R.
    """
    ratios_KM, bpb_KN, weight_RK = inputs.check(ratios_KM, bpb_KN, weight_RK, tasks)
    begin = begin if len(ratios_KM) >= LEARNT_ON else None
    return _fit(ratios_KM, bpb_KN, weight_RK, _How(seed, near, begin, lengths, with_curves, floor))[0]


class _How(NamedTuple):
    """Arguments of :func:`fit_weighted`."""

    seed: int
    near: Params | CurvedParams | None
    begin: Params | None
    lengths: Lengths | None
    with_curves: bool
    floor: float


def _fit(ratios_KM, bpb_KN, weight_RK, how: _How):
    """Return Params with a leading axis R, loss_RN and promised_RN."""
    seed, near, begin, lengths, with_curves, floor = how
    resamples, domains = len(weight_RK), ratios_KM.shape[1]
    scale = curves.scale(ratios_KM, weight_RK, lengths) if with_curves else None
    ratios_KM = ratios_KM if lengths is None else rows(ratios_KM, lengths)
    if near is not None:
        theta_RNP = np.broadcast_to(near.theta_NP, (resamples, *near.theta_NP.shape))
        # The law without a floor has none to keep.
        keeps = with_curves or floor > 0
        floor_RN = np.broadcast_to(near.floor_N if keeps else 0.0, theta_RNP.shape[:2])
        floor_RN = gp_learning.below_all_runs(floor_RN, bpb_KN, weight_RK)
        loss_RN = promised_RN = np.zeros((resamples, bpb_KN.shape[1]))
    else:
        chosen_RH = _chosen(weight_RK, seed)
        learnt_from = ratios_KM[chosen_RH], np.take_along_axis(weight_RK, chosen_RH, axis=1), scale
        theta_RNP, floor_RN, loss_RN, promised_RN = _learnt(bpb_KN, weight_RK, chosen_RH, learnt_from, floor, begin)
    target_RNK, offset_RN, scale_RN, logged_N = gp_learning.standardised(bpb_KN, weight_RK, floor_RN)
    wide_RKM = np.broadcast_to(ratios_KM, (resamples, *ratios_KM.shape))
    conditioned_on = wide_RKM, weight_RK, scale
    alpha_RNK, feature_RNF = per_task.mapped(gp_learning.condition, (target_RNK, theta_RNP), conditioned_on)
    tasks = theta_RNP.shape[1]
    params = Params(
        wide_RKM,
        weight_RK,
        theta_RNP,
        target_RNK,
        alpha_RNK,
        offset_RN,
        scale_RN,
        np.broadcast_to(logged_N, offset_RN.shape),
        np.zeros((resamples, 0, domains)),
        np.zeros((resamples, 0)),
        np.zeros((resamples, tasks, 0)),
        np.zeros((resamples, tasks, domains)),
        floor_RN,
    )
    if scale is None:
        return params, loss_RN, promised_RN
    curved = CurvedParams(*params, **scale._asdict(), curve_NMQ=np.zeros(0))
    return curves.with_weights(curved, feature_RNF), loss_RN, promised_RN


def _learnt(bpb_KN, weight_RK, chosen_RH, learnt_from, floor: float, begin: Params | None):
    """Return theta_RNP, floor_RN, loss_RN and promised_RN, learnt from the chosen runs."""
    least_RN, logged_N = gp_learning.least_of(bpb_KN, weight_RK), (bpb_KN > 0).all(axis=0) * 1.0
    if learnt_from[-1] is None:
        # Refits to a part of the runs have a floor if the fit to all of them has.
        enough = len(bpb_KN) >= FLOOR_RUNS
        floor_RN = floor * np.where(enough & (logged_N > 0) & np.isfinite(least_RN), least_RN, 0.0)
        target_RNK, *_ = gp_learning.standardised(bpb_KN, weight_RK, floor_RN)
        learnt_RNH = np.take_along_axis(target_RNK, chosen_RH[:, None, :], axis=2)
        begin_NP = None if begin is None else begin.theta_NP
        theta_RNP, loss_RN, promised_RN = gp_learning.learn_each(learnt_RNH, learnt_from, begin_NP)
        return theta_RNP, floor_RN, loss_RN, promised_RN
    bpb_RNH = bpb_KN.T[:, chosen_RH].swapaxes(0, 1)
    logged_RN = np.broadcast_to(logged_N, bpb_RNH.shape[:2])
    return per_task.mapped(gp_learning.learn_with_floor, (bpb_RNH, logged_RN, least_RN), learnt_from)


def _chosen(weight_RK, seed: int) -> np.ndarray:
    """Choose LEARNT_ON runs per resample, chosen_RH: of positive weight first, then of weight 0."""
    order_K = rng.generator(seed, "warped_gp.learnt_on").permutation(weight_RK.shape[1])
    first_RK = np.argsort(weight_RK[:, order_K] <= 0, axis=1, kind="stable")
    return np.sort(order_K[first_RK][:, :LEARNT_ON], axis=1)


LAW = Law(
    name="warped_gp",
    Params=Params,
    fit=fit,
    fit_weighted=fit_weighted,
    predict=predict,
    parameters=parameters,
    describe=describe,
    differentiable=True,
    spread=spread,
    sample=sample,
    leave_one_out=leave_one_out,
    prepare=prepare,
    begins=True,
)

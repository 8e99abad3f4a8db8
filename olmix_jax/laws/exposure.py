"""A law in exposures: the Gaussian process of warped weights, a curve per domain, and a floor that no mixture reaches.

log (f_i(p) − c_i) = offset_i + scale_i · (g_i(z) + Σ_j h_ij(u_j)),  c_i < f_i of every run,

with g_i and z as in :mod:`~olmix_jax.laws.warped_gp`. h_ij is a random walk in the exposure u_j to domain j
(:mod:`~olmix_jax.laws.curves`), with variance v_i·w_ij. Per task, c_i and v_i are learnt together with θ.

- Curves represent thresholds, saturation, and the harm of repetition. Without them all domains share one warp.
- The floor represents that benefits do not add up for ever. Without it the law promises too much at its own optimum,
  where many benefits come together.

experiments/laws_at_their_optimum compares promised and true gains: this law is better than the default on thresholds,
and worse with repetition.

With R tokens in a run and N_j unique ones of domain j, the exposure is e_j = p_j R/N_j epochs. Where runs differ in R
or N_j (:mod:`olmix_jax.swarm.lengths`), u_j is a function of e_j, z_j one of p_j (R/R̄)^ρ, and g_i has a trend in log R.
R̄ is the runs' geometric mean, and ρ is learnt: benefits follow weights at 0, and tokens of the domain at 1. The law
then reads a mixture at a target, by default the runs' median R and N_j; :func:`aim` moves it to another, without a new
fit.
"""

import dataclasses
import functools

import numpy as np

from olmix_jax.laws import curves, warped_gp


def aim(params: curves.CurvedParams, tokens: float, unique_M) -> curves.CurvedParams:
    """Return Params that read mixtures at R training tokens and N_j unique ones. They may have leading axes.

    No effect if the lengths of the runs are alike, because their weights and epochs cannot be told apart.
    """
    if params.target_X is None:
        return params
    return params._replace(target_X=np.broadcast_to(np.append(unique_M, tokens), np.shape(params.target_X)))


LAW = dataclasses.replace(
    warped_gp.LAW,
    name="exposure",
    Params=curves.CurvedParams,
    fit=functools.partial(warped_gp.fit, with_curves=True),
    fit_weighted=functools.partial(warped_gp.fit_weighted, with_curves=True),
    begins=False,
    aim=aim,
)

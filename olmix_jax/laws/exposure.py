"""A law in exposures: the Gaussian process of warped weights, a curve per domain, and a floor that no mixture reaches.

log (f_i(p) − c_i) = offset_i + scale_i · (g_i(z) + Σ_j h_ij(u_j)),  c_i < f_i of every run,

with g_i and z as in :mod:`~olmix_jax.laws.warped_gp`. h_ij is a random walk in the exposure u_j to domain j
(:mod:`~olmix_jax.laws.curves`), with variance v_i·w_ij. Per task, c_i and v_i are learnt together with θ.

- Curves represent thresholds, saturation, and the harm of repetition. Without them all domains share one warp.
- The floor represents that benefits do not add up for ever. Without it the law promises too much at its own optimum,
  where many benefits come together.

experiments/laws_at_their_optimum compares promised and true gains: this law is better than the default on thresholds,
and worse with repetition.
"""

import dataclasses
import functools

from olmix_jax.laws import curves, warped_gp

LAW = dataclasses.replace(
    warped_gp.LAW,
    name="exposure",
    Params=curves.CurvedParams,
    fit=functools.partial(warped_gp.fit, with_curves=True),
    fit_weighted=functools.partial(warped_gp.fit_weighted, with_curves=True),
    begins=False,
)

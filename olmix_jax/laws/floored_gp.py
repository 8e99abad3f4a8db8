"""The default law: the Gaussian process of warped weights on log (f − c), with an assumed floor c below all mixtures.

log (f_i(p) − c_i) = offset_i + scale_i · g_i(z),  c_i = FLOOR times the least BPB of the runs

with g_i and z as in :mod:`~olmix_jax.laws.warped_gp`. Without a floor the benefits of many domains add up for ever, and
the law promises too much at its own optimum, where they come together. With fewer than nine runs c = 0.
"""

import functools

from olmix_jax.laws import gp_posterior, warped_gp
from olmix_jax.laws.law import Law

# Values from .5 to .8 predict held-out runs about as well as no floor, and .9 does worse with few runs (docs/log.md).
FLOOR = 0.7

LAW = Law(
    name="floored_gp",
    Params=gp_posterior.Params,
    fit=functools.partial(warped_gp.fit, floor=FLOOR),
    fit_weighted=functools.partial(warped_gp.fit_weighted, floor=FLOOR),
    predict=gp_posterior.predict,
    parameters=warped_gp.parameters,
    describe=warped_gp.describe,
    differentiable=True,
    spread=gp_posterior.spread,
    sample=gp_posterior.sample,
    leave_one_out=gp_posterior.leave_one_out,
    prepare=gp_posterior.prepare,
    begins=True,
)

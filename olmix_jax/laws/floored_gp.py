"""The default law: the Gaussian process of warped weights on log (f − c), with an assumed floor c below all mixtures.

log (f_i(p) − c_i) = offset_i + scale_i · g_i(z),  c_i = FLOOR times the least BPB of the runs

with g_i and z as in :mod:`~olmix_jax.laws.warped_gp`. Without a floor the benefits of many domains add up for ever, and
the law promises too much at its own optimum, where they come together. With fewer than nine runs c = 0.
"""

import dataclasses
import functools

import jax
import numpy as np

from olmix_jax.laws import gp_posterior, warped_gp

# Values from .5 to .8 predict held-out runs about as well as no floor, and .9 does worse with few runs (docs/log.md).
FLOOR = 0.7

LAW = dataclasses.replace(
    warped_gp.LAW,
    name="floored_gp",
    fit=functools.partial(warped_gp.fit, floor=FLOOR),
    fit_weighted=functools.partial(warped_gp.fit_weighted, floor=FLOOR),
)


def without(params: gp_posterior.Params, out_K: np.ndarray) -> gp_posterior.Params:
    """Return the law of the remaining runs, given hyperparameters; of all runs if not even two remain."""
    weight_K = np.where(out_K, 0.0, params.weight_K)
    if (weight_K > 0).sum() < 2:
        return params
    fitted = LAW.fit_weighted(params.ratios_KM, gp_posterior.measured(params), weight_K[None], near=params)
    return jax.tree.map(lambda x: x[0], fitted)

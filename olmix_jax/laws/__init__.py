"""From mixtures and their BPB to a law: one file per family, and how good a law is on runs it has not seen.

A family is a module with ``Params``, ``fit``, ``fit_weighted``, ``predict`` and ``describe``, as in
:mod:`olmix_jax.laws.log_linear`. Its ``predict`` is pure JAX and computes in the precision it is called under;
:func:`evaluate` is float64 from anywhere.
"""

import jax
import numpy as np

from olmix_jax.laws import log_linear

LAWS = {"log_linear": log_linear}


def evaluate(predict, params, ratios_KM) -> np.ndarray:
    """A law's predictions as a float64 array, bpb_KN [BPB]."""
    with jax.enable_x64(True):
        return np.asarray(jax.jit(predict)(params, np.asarray(ratios_KM, np.float64)))

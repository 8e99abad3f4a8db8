"""Gradient-boosted trees by the LightGBM library, with RegMix's settings (METHOD §2; arXiv 2407.01492).

The library is optional (requirements-lightgbm.txt). Predictions are in NumPy, not JAX, as trees have no useful slopes.
RegMix stops early on 128 held-out runs, and the released comparison on the training runs themselves. Here all of
RegMix's 1,000 trees are grown, and all runs are fitted.
"""

import warnings
from typing import NamedTuple

import numpy as np

from olmix_jax.laws import inputs
from olmix_jax.laws.law import Fit, Law
from olmix_jax.utils.errors import UserError

SETTINGS = {"objective": "regression", "boosting": "gbdt", "learning_rate": 1e-2, "seed": 42, "verbosity": -1}
# The same trees on any number of cores. All else is the library's default: 31 leaves with at least 20 runs each.
REPEATABLE = {"deterministic": True, "force_row_wise": True, "num_threads": 1}
TREES = 1000


class Params(NamedTuple):
    """model_N: the trees of each task in LightGBM's text format, as bytes. Resamples, if any, are leading axes."""

    model_N: np.ndarray


def predict(params: Params, ratios_KM) -> np.ndarray:
    """Return bpb_KN [BPB], piecewise constant in the mixture. NumPy; needs the library."""
    booster, ratios_KM = load_library().Booster, np.asarray(ratios_KM, np.float64)
    columns = [booster(model_str=model.decode()).predict(ratios_KM, num_threads=1) for model in params.model_N]
    return np.stack(columns, axis=1)


def parameters(domains: int) -> int:
    """Return 1: trees can be grown on any number of runs. With too few, each is a single leaf, the task's mean."""
    del domains
    return 1


def describe(params: Params, task: int, domains: tuple[str, ...]) -> dict:
    """Return one task's number of ``trees``, and its ``splits`` by domain."""
    booster = load_library().Booster(model_str=params.model_N[task].decode())
    return {"trees": booster.num_trees(), "splits": dict(zip(domains, booster.feature_importance().tolist()))}


def fit(ratios_KM, bpb_KN, *, starts: int = 16, seed: int = 0, tasks=None, weight_K=None) -> Fit:
    """Fit every task to all runs. Arguments as for :func:`olmix_jax.laws.log_linear.fit`.

    ``loss_N`` is half the sum of squares [BPB²]. No tree splits on a domain that no run samples. ``starts`` and
    ``seed`` have no effect.

    Raises:
      UserError: the inputs are not valid, or the library is not installed.
    """
    ratios_KM, bpb_KN, weight_RK = inputs.check(ratios_KM, bpb_KN, inputs.one_row(weight_K), tasks)
    params = Params(_grow(ratios_KM, bpb_KN, weight_RK[0]))
    loss_N = 0.5 * ((predict(params, ratios_KM) - bpb_KN) ** 2).sum(axis=0)
    return Fit(params, loss_N, inputs.unseen(ratios_KM))


def fit_weighted(
    ratios_KM, bpb_KN, weight_RK, *, starts: int = 16, seed: int = 0, tasks=None, near: Params | None = None
) -> Params:
    """Fit every task R times. A weight is a count: the run is repeated that many times.

    Trees cannot start from a fit, so ``near`` has no effect and a resample costs as much as a fit.

    Raises:
      UserError: as for :func:`fit`, or a weight is not a whole number.
    """
    ratios_KM, bpb_KN, weight_RK = inputs.check(ratios_KM, bpb_KN, weight_RK, tasks)
    if (weight_RK != np.round(weight_RK)).any():
        raise UserError("fit.law=lightgbm needs whole numbers as weights of runs; use another fit.law")
    return Params(np.stack([_grow(ratios_KM, bpb_KN, weight_K) for weight_K in weight_RK]))


def _grow(ratios_KM, bpb_KN, weight_K) -> np.ndarray:
    """Grow the trees of one resample, model_N."""
    library, rows = load_library(), np.repeat(np.arange(len(weight_K)), weight_K.astype(int))
    models = []
    for bpb_K in bpb_KN.T:
        data = library.Dataset(ratios_KM[rows], bpb_K[rows], params=SETTINGS | REPEATABLE)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a constant task, or too few runs for a split
            models.append(library.train(SETTINGS | REPEATABLE, data, TREES).model_to_string().encode())
    return np.array(models)


def load_library():
    try:
        import lightgbm
    except ImportError as e:
        raise UserError("fit.law=lightgbm needs its library: run pip install -r requirements-lightgbm.txt") from e
    return lightgbm


LAW = Law(
    name="lightgbm",
    Params=Params,
    fit=fit,
    fit_weighted=fit_weighted,
    predict=predict,
    parameters=parameters,
    describe=describe,
    differentiable=False,
    cheap_refits=False,
)

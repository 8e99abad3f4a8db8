"""Gradient-boosted trees by the LightGBM library, with RegMix's settings (METHOD §2; arXiv 2407.01492).

An optional extra (requirements-lightgbm.txt), and the one family in NumPy instead of JAX: trees are constant between
their thresholds. RegMix stops early on 128 held-out runs that it sets aside, and the released comparison on the
training runs themselves; here all of RegMix's 1,000 trees are grown and no run is set aside.
"""

import warnings
from typing import NamedTuple

import numpy as np

from olmix_jax.laws import inputs
from olmix_jax.laws.law import Fit, Law
from olmix_jax.utils.errors import UserError

SETTINGS = {"objective": "regression", "boosting": "gbdt", "learning_rate": 1e-2, "seed": 42, "verbosity": -1}
# Same trees whatever the machine's cores; the rest is the library's default: 31 leaves, 20 runs or more in each.
REPEATABLE = {"deterministic": True, "force_row_wise": True, "num_threads": 1}
TREES = 1000


class Params(NamedTuple):
    """model_N: LightGBM's text of each task's trees, as bytes; leading axes are resamples, where there are any."""

    model_N: np.ndarray


def predict(params: Params, ratios_KM) -> np.ndarray:
    """bpb_KN [BPB], in NumPy; piecewise constant. Needs the library."""
    booster, ratios_KM = _library().Booster, np.asarray(ratios_KM, np.float64)
    columns = [booster(model_str=model.decode()).predict(ratios_KM, num_threads=1) for model in params.model_N]
    return np.stack(columns, axis=1)


def parameters(domains: int) -> int:
    """Parameters that need a run each: none. Trees of too few runs are single leaves, the task's mean."""
    del domains
    return 1


def describe(params: Params, task: int, domains: tuple[str, ...]) -> dict:
    """One task's number of ``trees``, and ``splits`` on each domain."""
    booster = _library().Booster(model_str=params.model_N[task].decode())
    return {"trees": booster.num_trees(), "splits": dict(zip(domains, booster.feature_importance().tolist()))}


def fit(ratios_KM, bpb_KN, *, starts: int = 16, seed: int = 0, tasks=None, weight_K=None) -> Fit:
    """Fits every task on all runs. Arguments and errors as for :func:`olmix_jax.laws.log_linear.fit`; the seed is
    RegMix's, and nothing is drawn from it.

    Raises:
      UserError: also, the library is not installed.
    """
    ratios_KM, bpb_KN, weight_RK = inputs.check(ratios_KM, bpb_KN, inputs.one_row(weight_K), tasks)
    params = Params(_grow(ratios_KM, bpb_KN, weight_RK[0]))
    loss_N = 0.5 * ((predict(params, ratios_KM) - bpb_KN) ** 2).sum(axis=0)
    return Fit(params, loss_N, inputs.unseen(ratios_KM))


def fit_weighted(
    ratios_KM, bpb_KN, weight_RK, *, starts: int = 16, seed: int = 0, tasks=None, near: Params | None = None
) -> Params:
    """Fits every task R times. Weights are counts: a run is repeated, one of weight 0 left out. ``near`` is no use to
    trees, so a resample costs as much as a fit.

    Raises:
      UserError: also, a weight is not a whole number.
    """
    ratios_KM, bpb_KN, weight_RK = inputs.check(ratios_KM, bpb_KN, weight_RK, tasks)
    if (weight_RK != np.round(weight_RK)).any():
        raise UserError("lightgbm counts runs: weights must be whole numbers; use another fit.law for others")
    return Params(np.stack([_grow(ratios_KM, bpb_KN, weight_K) for weight_K in weight_RK]))


def _grow(ratios_KM, bpb_KN, weight_K) -> np.ndarray:
    """model_N of one resample."""
    library, rows = _library(), np.repeat(np.arange(len(weight_K)), weight_K.astype(int))
    models = []
    for bpb_K in bpb_KN.T:
        data = library.Dataset(ratios_KM[rows], bpb_K[rows], params=SETTINGS | REPEATABLE)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a task is constant, or runs too few for a split
            models.append(library.train(SETTINGS | REPEATABLE, data, TREES).model_to_string().encode())
    return np.array(models)


def _library():
    try:
        import lightgbm
    except ImportError as e:
        raise UserError("fit.law = lightgbm needs its library: pip install -r requirements-lightgbm.txt") from e
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

"""Search, the baseline without a law: propose the best run of the swarm (METHOD §2).

f_i(p) is the measured BPB of the run nearest to p. So the minimum over the simplex is the best run's BPB. The released
code predicts ∞ between runs; here every mixture has a finite prediction.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from olmix_jax.laws import inputs
from olmix_jax.laws.law import Fit, Law


class Params(NamedTuple):
    """The runs. Resamples, if any, are leading axes.

    Attributes:
      bpb_NK: their BPB.
      present_K: 1 for runs of positive weight, else 0.
      ratios_KM: their mixtures.
    """

    bpb_NK: np.ndarray
    present_K: np.ndarray
    ratios_KM: np.ndarray


def predict(params: Params, ratios_KM):
    """Return the BPB of the run nearest to each of Q mixtures, bpb_QN; the first of equally near ones. Pure JAX."""
    square_QK = ((ratios_KM[:, None, :] - params.ratios_KM[None, :, :]) ** 2).sum(axis=2)
    return params.bpb_NK[:, jnp.where(params.present_K[None, :] > 0, square_QK, jnp.inf).argmin(axis=1)].T


def best(params: Params, task_weights_N) -> int:
    """Return the run (row) with the least weighted mean of BPB over tasks."""
    mean_K = np.asarray(task_weights_N, np.float64) @ np.asarray(params.bpb_NK)
    return int(np.where(np.asarray(params.present_K) > 0, mean_K, np.inf).argmin())


def parameters(domains: int) -> int:
    """Return 1: the choice of the run."""
    del domains
    return 1


def describe(params: Params, task: int, domains: tuple[str, ...]) -> dict:
    """Return one task's ``best_run`` (a row), and the run's ``bpb`` and ``mixture``."""
    run = best(params, np.arange(len(params.bpb_NK)) == task)
    mixture = dict(zip(domains, np.asarray(params.ratios_KM[run]).tolist(), strict=True))
    return {"best_run": run, "bpb": float(params.bpb_NK[task, run]), "mixture": mixture}


def fit(ratios_KM, bpb_KN, *, starts: int = 16, seed: int = 0, tasks=None, weight_K=None) -> Fit:
    """Keep the runs, with ``loss_N`` = 0. Arguments and errors as for :func:`olmix_jax.laws.log_linear.fit`."""
    ratios_KM, bpb_KN, weight_RK = inputs.check(ratios_KM, bpb_KN, inputs.one_row(weight_K), tasks)
    return Fit(Params(bpb_KN.T, weight_RK[0], ratios_KM), np.zeros(bpb_KN.shape[1]), inputs.unseen(ratios_KM))


def fit_weighted(
    ratios_KM, bpb_KN, weight_RK, *, starts: int = 16, seed: int = 0, tasks=None, near: Params | None = None
) -> Params:
    """Keep the runs of positive weight in each of R resamples. ``near`` has no effect."""
    ratios_KM, bpb_KN, weight_RK = inputs.check(ratios_KM, bpb_KN, weight_RK, tasks)
    wide = [np.broadcast_to(x, (len(weight_RK), *x.shape)) for x in (bpb_KN.T, ratios_KM)]
    return Params(wide[0], (weight_RK > 0).astype(np.float64), wide[1])


LAW = Law(
    name="search",
    Params=Params,
    fit=fit,
    fit_weighted=fit_weighted,
    predict=predict,
    parameters=parameters,
    describe=describe,
    differentiable=False,  # piecewise constant: the slope is 0 almost everywhere
)

"""Runs whose scores do not fit those of all other runs: typing errors, runs that broke, scores of another run.

Each task is modelled as a Gaussian process over mixtures, with the kernel of the default law
(:mod:`~olmix_jax.laws.warped_kernel`) at its prior's mean and a noise variance from NOISES. Nothing else is learnt, so
an outlier cannot bend the model that judges it. Runs are taken away one by one, each time the one without which the
others are most likely. A run that was taken away is an outlier if it lies further from the prediction of the remaining
runs than LIMIT standard deviations, and than a Student's t reaches once in a hundred swarms.
"""

import dataclasses

import jax
import numpy as np
import scipy.stats

from olmix_jax.laws import cpu, warped_kernel
from olmix_jax.laws.fit_result import Outlier

# Noise variances to choose from, relative to the variance of the kernel's linear part.
NOISES = tuple(np.exp([-2.0, -4.0, -6.0]))
# Prior variance of a task's level, large against that of the kernel.
LEVEL = 100.0
# Least distance of an outlier [standard deviations]. Clean published swarms have less than one such run in 200.
LIMIT = 10.0
# How much LIMIT grows for a run that the others say little about, such as the only one with much of a domain: by this
# factor of the share of the kernel's variance that they leave open.
OPEN = 3.0
# Chance that a swarm with normal errors has an outlier.
CHANCE = 0.01
# Runs to take away: at most this share of them, but two if there are eight. After two, end at the first that is closer
# than CLOSE standard deviations.
SHARE, CLOSE = 1 / 16, 4.0
# Name of the average over tasks, which is judged like a task.
AVERAGE = "average"


@dataclasses.dataclass
class _Model:
    """A Gaussian process for one noise variance, conditioned on the runs that are kept.

    Attributes:
      noisy_KK: kernel and noise of all runs.
      inverse_KK: inverse of kernel and noise over the kept runs; rows and columns of the others are 0.
      log_det: log determinant of the kernel and noise over the kept runs.
    """

    noisy_KK: np.ndarray
    inverse_KK: np.ndarray
    log_det: float


def find(
    ratios_KM: np.ndarray, bpb_KN: np.ndarray, runs: tuple[str, ...], tasks: tuple[str, ...]
) -> tuple[Outlier, ...]:
    """Return the outliers in the order of the runs, each with the task on which it is furthest off."""
    if len(runs) < 4:
        return ()
    value_KN, tasks = _with_average(bpb_KN), (*tasks, AVERAGE)
    logged_N = np.asarray((value_KN > 0).all(axis=0))
    target_KN = np.where(logged_N, np.log(np.where(logged_N, value_KN, 1.0)), value_KN)
    models = _models(ratios_KM)
    found: dict[int, Outlier] = {}
    for n, task in enumerate(tasks):
        for k, off, expected in _off(models, target_KN[:, n], len(tasks)):
            known = found.get(k)
            # The average is given only for a run that no single task gives away.
            if known is None or (known.deviations < off and task != AVERAGE):
                expected = float(np.exp(expected)) if logged_N[n] else expected
                found[k] = Outlier(runs[k], task, float(value_KN[k, n]), expected, off)
    return tuple(found[k] for k in sorted(found))


def _with_average(bpb_KN: np.ndarray) -> np.ndarray:
    return np.concatenate([bpb_KN, bpb_KN.mean(axis=1, keepdims=True)], axis=1)


def _models(ratios_KM: np.ndarray) -> list[_Model]:
    """Return the models that all tasks start from, one per noise variance."""
    with cpu.float64():
        theta_P = warped_kernel.prior(ratios_KM.shape[1])[0]
        kernel_of = jax.jit(warped_kernel.kernel, compiler_options=cpu.QUICK)
        kernel_KK = LEVEL + np.asarray(kernel_of(theta_P, ratios_KM, ratios_KM))
    noisy = [kernel_KK + noise * np.eye(len(ratios_KM)) for noise in NOISES]
    return [_Model(matrix, np.linalg.inv(matrix), float(np.linalg.slogdet(matrix)[1])) for matrix in noisy]


def _off(models: list[_Model], y_K: np.ndarray, tasks: int) -> list[tuple[int, float, float]]:
    """Return the outliers of one task: run, standard deviations from its prediction, and the prediction."""
    runs, centre = len(y_K), float(np.median(y_K))
    y_K = y_K - centre
    scale = float(np.sqrt(np.mean(y_K**2)))
    if scale <= 1e-9 * (1 + abs(centre)):
        return []
    y_K, kept_K = y_K / scale, np.ones(runs, bool)
    taken: list[int] = []
    for _ in range(max(2 if runs >= 8 else 1, int(SHARE * runs))):
        k, off = _least_likely(models, y_K, kept_K)
        if len(taken) >= 2 and off < CLOSE:
            break
        models, kept_K[k] = [_without(model, k) for model in models], False
        taken.append(k)
    kept = int(kept_K.sum())
    model = max(models, key=lambda model: -kept * np.log(max(y_K @ model.inverse_KK @ y_K, 1e-12)) - model.log_det)
    limit = max(LIMIT, float(scipy.stats.t.isf(CHANCE / (2 * runs * tasks), max(kept - 2, 1))))
    result = []
    for k in taken:
        weight_K = model.inverse_KK @ model.noisy_KK[:, k]
        variance = float(model.noisy_KK[k, k] - model.noisy_KK[k] @ weight_K)
        fitted = max(float(y_K @ model.inverse_KK @ y_K), 1e-12) / max(kept - 1, 1)
        expected = float(weight_K @ y_K)
        off = abs(float(y_K[k]) - expected) / np.sqrt(variance * fitted)
        if off > limit * (1 + OPEN * variance / (model.noisy_KK[k, k] - LEVEL)):
            result.append((k, float(off), centre + scale * expected))
    return result


def _least_likely(models: list[_Model], y_K: np.ndarray, kept_K: np.ndarray) -> tuple[int, float]:
    """Return the kept run without which the others are most likely, and its distance in standard deviations."""
    best, left = (-np.inf, 0, 0.0), int(kept_K.sum()) - 1
    for model in models:
        precision_K = np.where(kept_K, np.diag(model.inverse_KK), 1.0)
        alpha_K = model.inverse_KK @ y_K
        squared_K = alpha_K**2 / precision_K
        rest_K = np.maximum(y_K @ alpha_K - squared_K, 1e-12) / left
        likely_K = -0.5 * left * np.log(rest_K) - 0.5 * (model.log_det + np.log(precision_K))
        k = int(np.where(kept_K, likely_K, -np.inf).argmax())
        best = max(best, (float(likely_K[k]), k, float(np.sqrt(squared_K[k] / rest_K[k]))))
    return best[1], best[2]


def _without(model: _Model, k: int) -> _Model:
    """Return the model without run k, by a rank-one update of the inverse."""
    column_K, precision = model.inverse_KK[:, k], model.inverse_KK[k, k]
    inverse_KK = model.inverse_KK - np.outer(column_K, column_K) / precision
    inverse_KK[k, :] = inverse_KK[:, k] = 0.0
    return _Model(model.noisy_KK, inverse_KK, model.log_det + float(np.log(precision)))

"""A Gaussian process per task: RBF kernel of one length scale and white noise (METHOD §2).

    y = m + s·g,  g ~ N(0, a²(K_ℓ + ν W⁻¹)),  K_ℓ[k, k'] = exp(−‖p_k − p_k'‖² / 2ℓ²),  W = diag(ω)

m and s are the mean and standard deviation of the task, as in the released comparison (algebra: Rasmussen & Williams,
ch. 2 and 5). A run of weight ω has noise variance a²ν/ω; weight 0 leaves a run out exactly. ℓ and ν maximise the
evidence over the released code's ranges, where ν has the range of the ratio of noise to amplitude. The best amplitude
a² has a closed form. The search is a grid, shared by all tasks, then a compass search per task. No start is random,
and the grid finds every basin that is wider than its step.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from olmix_jax.laws import cpu, inputs
from olmix_jax.laws.law import Fit, Law

LENGTHS = np.geomspace(1e-2, 1e2, 17)
NOISES = np.geomspace(1e-8, 1e4, 25)
# Moves of the compass search. A move without improvement halves its step, which starts at half a grid step.
MOVES = 16


class Params(NamedTuple):
    """The posterior mean of each task. Resamples, if any, are leading axes of all arrays.

    Attributes:
      length_N: ℓ, as a distance between mixtures.
      noise_N: ν.
      amplitude_N: a².
      mean_N: m [BPB].
      deviation_N: s [BPB].
      dual_NK: weights of the runs in the prediction; 0 for runs that are left out.
      ratios_KM: mixtures of the runs.
    """

    length_N: np.ndarray
    noise_N: np.ndarray
    amplitude_N: np.ndarray
    mean_N: np.ndarray
    deviation_N: np.ndarray
    dual_NK: np.ndarray
    ratios_KM: np.ndarray


def predict(params: Params, ratios_KM):
    """Return the posterior mean at Q mixtures, bpb_QN [BPB]. Pure JAX, smooth."""
    square_QK = _squares(ratios_KM, params.ratios_KM)
    kernel_NQK = jnp.exp(-0.5 * square_QK[None] / params.length_N[:, None, None] ** 2)
    shape_QN = jnp.einsum("nqk,nk->qn", kernel_NQK, params.dual_NK)
    return params.mean_N[None, :] + params.deviation_N[None, :] * shape_QN


def parameters(domains: int) -> int:
    """Return the number of free parameters per task: length, amplitude and noise, for any number of domains."""
    del domains
    return 3


def describe(params: Params, task: int, domains: tuple[str, ...]) -> dict:
    """Return one task's ``length``, ``mean`` [BPB], and the standard deviations ``amplitude`` and ``noise`` [BPB]."""
    del domains
    length, ratio, square, mean, deviation = (float(x[task]) for x in params[:5])
    amplitude = deviation * square**0.5
    return {"length": length, "mean": mean, "amplitude": amplitude, "noise": amplitude * ratio**0.5}


def fit(ratios_KM, bpb_KN, *, starts: int = 16, seed: int = 0, tasks=None, weight_K=None) -> Fit:
    """Fit every task to all runs. Arguments and errors as for :func:`olmix_jax.laws.log_linear.fit`.

    ``loss_N`` is −log evidence of the standardised BPB, summed over runs [nats]. Far from the runs, as for a domain
    that no run samples, predictions return to the task's mean. ``starts`` and ``seed`` have no effect.
    """
    ratios_KM, bpb_KN, weight_RK = inputs.check(ratios_KM, bpb_KN, inputs.one_row(weight_K), tasks)
    arrays, loss_N = _one(ratios_KM, bpb_KN, weight_RK[0])
    inputs.refuse(~np.isfinite(loss_N), tasks, "the evidence is not finite for any hyperparameters of")
    return Fit(Params(*[*arrays, ratios_KM]), loss_N, inputs.unseen(ratios_KM))


def fit_weighted(
    ratios_KM, bpb_KN, weight_RK, *, starts: int = 16, seed: int = 0, tasks=None, near: Params | None = None
) -> Params:
    """Fit every task R times, as :func:`olmix_jax.laws.log_linear.fit_weighted`.

    With ``near``, ℓ and ν are kept, and only the linear algebra is repeated.
    """
    ratios_KM, bpb_KN, weight_RK = inputs.check(ratios_KM, bpb_KN, weight_RK, tasks)
    if near is None:
        # One resample at a time, so that the full fit and the folds run the same compiled program.
        parts = [_one(ratios_KM, bpb_KN, weight_K)[0] for weight_K in weight_RK]
        arrays = [np.stack(x) for x in zip(*parts)]
    else:
        with cpu.float64():
            arrays = [np.asarray(x) for x in _refit(ratios_KM, bpb_KN, weight_RK, near.length_N, near.noise_N)]
    return Params(*[*arrays, np.broadcast_to(ratios_KM, (len(weight_RK), *ratios_KM.shape))])


def _one(ratios_KM, bpb_KN, weight_K):
    with cpu.float64():
        return jax.tree.map(np.asarray, _fit(ratios_KM, bpb_KN, weight_K))


def _squares(a_QM, b_KM):
    """Return squared distances_QK between mixtures."""
    return (a_QM**2).sum(axis=1)[:, None] + (b_KM**2).sum(axis=1)[None, :] - 2 * a_QM @ b_KM.T


def _standardised(bpb_KN, weight_K):
    """Return root_KN = √ω·(y − m)/s, mean_N m and deviation_N s. A constant task has s = 1."""
    total = jnp.maximum(weight_K.sum(), 1e-300)
    mean_N = weight_K @ bpb_KN / total
    deviation_N = jnp.sqrt(weight_K @ (bpb_KN - mean_N[None, :]) ** 2 / total)
    deviation_N = jnp.where(deviation_N > 1e-12 * jnp.abs(mean_N), deviation_N, 1.0)
    return jnp.sqrt(weight_K)[:, None] * (bpb_KN - mean_N[None, :]) / deviation_N[None, :], mean_N, deviation_N


def _matrix(square_KK, weight_K, length, noise):
    """Return W^½ K_ℓ W^½ + ν·1. A run of weight 0 is a row of ν·1."""
    root_K = jnp.sqrt(weight_K)
    kernel_KK = root_K[:, None] * root_K[None, :] * jnp.exp(-0.5 * square_KK / length**2)
    return kernel_KK + noise * jnp.eye(len(weight_K))


def _evidence(square_KK, weight_K, root_KN, length, noise):
    """Return the log evidence_N of standardised tasks at the best amplitude, and that amplitude a²_N."""
    runs, tasks = root_KN.shape
    # The tasks are appended to the matrix as a border, so one Cholesky call also returns L⁻¹y of all tasks.
    border = jnp.block([[_matrix(square_KK, weight_K, length, noise), root_KN], [root_KN.T, 1e30 * jnp.eye(tasks)]])
    factor = jax.lax.linalg.cholesky(border, symmetrize_input=False)
    present_K = weight_K > 0
    count = jnp.maximum(present_K.sum(), 1)
    log_K = 2 * jnp.log(jnp.diag(factor)[:runs]) - jnp.log(jnp.where(present_K, weight_K, 1.0))
    amplitude_N = jnp.maximum((factor[runs:, :runs] ** 2).sum(axis=1) / count, 1e-300)
    log_determinant = jnp.where(present_K, log_K, 0.0).sum()
    evidence_N = -0.5 * (count * (jnp.log(2 * jnp.pi * amplitude_N) + 1) + log_determinant)
    return jnp.where(jnp.isfinite(evidence_N), evidence_N, -jnp.inf), amplitude_N


@jax.jit
def _fit(ratios_KM, bpb_KN, weight_K):
    """Return the arrays of Params without the runs, and −log evidence, of one resample."""
    square_KK = _squares(ratios_KM, ratios_KM)
    root_KN, mean_N, deviation_N = _standardised(bpb_KN, weight_K)
    evidence = functools.partial(_evidence, square_KK, weight_K)
    low, high = (jnp.log(jnp.array([LENGTHS[i], NOISES[i]])) for i in (0, -1))
    grid_G2 = jnp.stack(jnp.meshgrid(jnp.log(LENGTHS), jnp.log(NOISES), indexing="ij"), axis=-1).reshape(-1, 2)
    evidence_GN = jax.lax.map(lambda at: evidence(root_KN, *jnp.exp(at))[0], grid_G2)
    span = (high - low) / jnp.array([len(LENGTHS) - 1, len(NOISES) - 1])
    around_82 = jnp.array([(i, j) for i in (-1.0, 0, 1) for j in (-1.0, 0, 1) if i or j])

    def one_task(args):
        root_K, at, value = args

        def move(_, state):
            at, value, reach = state
            to_82 = jnp.clip(at[None, :] + reach * span[None, :] * around_82, low[None, :], high[None, :])
            value_8 = jax.lax.map(lambda x: evidence(root_K[:, None], *jnp.exp(x))[0][0], to_82)
            best = value_8.argmax()
            better = value_8[best] > value
            return jnp.where(better, to_82[best], at), jnp.maximum(value_8[best], value), reach * (1 - 0.5 * ~better)

        return jax.lax.fori_loop(0, MOVES, move, (at, value, jnp.float64(0.5)))[:2]

    at_N2, evidence_N = jax.lax.map(one_task, (root_KN.T, grid_G2[evidence_GN.argmax(axis=0)], evidence_GN.max(axis=0)))
    length_N, noise_N = jnp.exp(at_N2.T)
    posterior = functools.partial(_posterior, square_KK, weight_K)
    amplitude_N, dual_NK = jax.lax.map(lambda x: posterior(*x), (root_KN.T, length_N, noise_N))
    return (length_N, noise_N, amplitude_N, mean_N, deviation_N, dual_NK), -evidence_N


def _posterior(square_KK, weight_K, root_K, length, noise):
    """Return a² and dual_K of one task."""
    factor = jax.scipy.linalg.cho_factor(_matrix(square_KK, weight_K, length, noise), lower=True)
    solved_K = jax.scipy.linalg.cho_solve(factor, root_K)
    return root_K @ solved_K / jnp.maximum((weight_K > 0).sum(), 1), jnp.sqrt(weight_K) * solved_K


@jax.jit
def _refit(ratios_KM, bpb_KN, weight_RK, length_N, noise_N):
    """Return the arrays of Params without the runs, for every resample, with given hyperparameters."""
    square_KK = _squares(ratios_KM, ratios_KM)

    def resample(weight_K):
        root_KN, mean_N, deviation_N = _standardised(bpb_KN, weight_K)
        posterior = functools.partial(_posterior, square_KK, weight_K)
        amplitude_N, dual_NK = jax.lax.map(lambda x: posterior(*x), (root_KN.T, length_N, noise_N))
        return length_N, noise_N, amplitude_N, mean_N, deviation_N, dual_NK

    return jax.lax.map(resample, weight_RK)


LAW = Law(
    name="gp",
    Params=Params,
    fit=fit,
    fit_weighted=fit_weighted,
    predict=predict,
    parameters=parameters,
    describe=describe,
    differentiable=True,
)

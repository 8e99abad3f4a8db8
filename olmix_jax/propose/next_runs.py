"""The next mixtures to train: those whose results, whatever they turn out to be, leave the law least uncertain.

A law's posterior over functions, known after k runs, says what a further run at c would do to the uncertainty at a
mixture q before it is trained, because a Gaussian posterior variance does not depend on what is measured:

    Var(q) → Var(q) − Cov(q, c)² / (Var(c) + s²),   s² being the noise of a run

So a run at c is expected to tell ½ ln (Var(q) before / Var(q) after) nats about task i at q, and a batch is chosen
greedily: the candidate that tells most, averaged over reference mixtures and summed over weighted tasks, is taken, all
covariances are conditioned on it, and the next one is chosen as if it had been trained. A candidate that repeats an
earlier one tells little, so a batch spreads by itself. Gains add up to the fall of the mean log standard deviation,
which no task's units enter. Tasks are taken to be independent, so a run's gain is the sum of theirs.

Lowering the mean variance instead (Cohn 1996) gave half to all of this gain over random runs in RMSE, and counting only
mixtures that may be among the best lost to random runs (RegMix's pool, `python -m benchmarks.next_runs --develop`).

The covariances are exact for the default law (:func:`choose`), its θ kept as fitted. For other laws they are those of
sampled laws, such as bootstrap refits (:func:`choose_sampled`). benchmarks/next_runs.md has figures.

Dim letters beside the usual: C candidates, Q reference mixtures, R samples, B runs to propose.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from olmix_jax.laws import Law, cpu, evaluate_each, warped_gp, warped_kernel
from olmix_jax.swarm import sampling
from olmix_jax.utils import rng
from olmix_jax.utils.errors import UserError


class NextRuns(NamedTuple):
    """Mixtures to train next, best first.

    Attributes:
      ratios_BM: rows on the simplex, on the grid of ``total`` sequences.
      left_B: what is left of the law's standard deviation once a run and those before it are trained, as a share (the
        geometric mean over reference mixtures and weighted tasks); it says when further runs are not worth their cost.
    """

    ratios_BM: np.ndarray
    left_B: np.ndarray


class _Beliefs(NamedTuple):
    """What a law knows, in units of each task's spread."""

    variance_NC: np.ndarray  # of the function at the candidates
    cross_NCQ: np.ndarray  # covariance of candidates and reference mixtures
    variance_NQ: np.ndarray  # at the reference mixtures
    column: Callable[[int], np.ndarray]  # c -> covariance of all candidates with c, NC
    noise_N: np.ndarray  # variance of a run's noise


def choose(params, candidates_CM, reference_QM, number: int, task_weights_N=None) -> np.ndarray:
    """Indices of the candidates to train next, in order, by the default law. No candidate is taken twice.

    Args:
      params: :class:`olmix_jax.laws.warped_gp.Params` of a fit, without leading axes.
      candidates_CM: mixtures that may be trained.
      reference_QM: mixtures at which the law should be certain. The candidates themselves, or some of them, serve well.
      number: B, how many to choose.
      task_weights_N: weights of 0 or more; equal without it.

    Raises:
      UserError: more runs than candidates are asked for, or the shapes disagree.
    """
    return _greedy(_exact(params, candidates_CM, reference_QM), task_weights_N, number)[0]


def choose_sampled(predicted_RCN, predicted_RQN, noise_N, number: int, task_weights_N=None) -> np.ndarray:
    """:func:`choose` for any law, from what R samples of it predict: the covariances are those over samples.

    Args:
      predicted_RCN: predictions at the candidates [BPB].
      predicted_RQN: predictions at the reference mixtures [BPB].
      noise_N: variance of a run's noise per task [BPB²], such as the squared error of cross-validation.
      number: B. Covariances of R samples know R − 1 directions, so R has to be larger, better several times.
      task_weights_N: weights of 0 or more; equal without it.

    Raises:
      UserError: as :func:`choose`, or there are too few samples.
    """
    return _greedy(_sampled(predicted_RCN, predicted_RQN, noise_N, number), task_weights_N, number)[0]


def propose_next(
    law: Law,
    params,
    number: int,
    *,
    natural_M,
    domains: tuple[str, ...],
    existing_KM,
    samples=None,
    noise_N=None,
    task_weights_N=None,
    candidates: int = 1000,
    references: int = 256,
    total: int = 10_000,
    min_distance: float = 0.02,
    seed: int = 0,
    **sampler,
) -> NextRuns:
    """The next runs, chosen among mixtures drawn as those of a swarm are (:func:`olmix_jax.swarm.sampling.sample`).

    Candidates cover the whole range of mixtures that a swarm has, which is where the law is asked to be certain: the
    reference mixtures are some of them. With N tasks the covariances take 8·N·candidates·references bytes.

    Args:
      law: the family of the law, such as ``log_linear.LAW``.
      params: its fitted parameters.
      number: B.
      natural_M: natural distribution, positive.
      domains: M names, in column order.
      existing_KM: mixtures that have been trained, or are being trained.
      samples: Params with a leading axis of samples. Needed for laws other than ``warped_gp``, not used for it.
      noise_N: see :func:`choose_sampled`; needed with ``samples``.
      task_weights_N: weights of 0 or more; equal without it.
      candidates, references: how many mixtures are considered, and over how many of them the variance is averaged.
      total: sequences that a run trains on.
      min_distance: least total variation between two proposed runs, and to ``existing_KM``.
      seed: of the draw; equal arguments give equal proposals.
      **sampler: ``sparsity``, ``strength``, ``min_weight`` or ``min_runs`` of the sampler.

    Raises:
      UserError: there are not as many mixtures that keep their distance, a law has no samples, or as the sampler says.
    """
    names = tuple(domains)
    ratios_CM = _drawn(natural_M, names, max(candidates, len(names) + 2), total, seed, sampler)
    reference_QM = ratios_CM[:references]
    ratios_CM = ratios_CM[(_apart(ratios_CM, np.asarray(existing_KM, np.float64)) >= min_distance).all(axis=1)]
    if law == warped_gp.LAW:
        beliefs = _exact(params, ratios_CM, reference_QM)
    elif samples is None or noise_N is None:
        raise UserError(f"the law {law.name} needs samples to propose next runs: set fit.resamples")
    else:
        predicted = [evaluate_each(law, samples, at_XM) for at_XM in (ratios_CM, reference_QM)]
        beliefs = _sampled(*predicted, noise_N, number)
    chosen_B, left_B = _greedy(beliefs, task_weights_N, number, ratios_CM, min_distance)
    return NextRuns(ratios_CM[chosen_B], left_B)


def _drawn(natural_M, names, number: int, total: int, seed: int, sampler: dict) -> np.ndarray:
    """Different mixtures in random order, ``number`` of them or fewer where some are drawn twice."""
    settings = {"names": names, "min_distance": 0.0, "seed": rng.derive(seed, "next_runs")} | sampler
    ratios_CM = np.unique(sampling.sample(natural_M, number, total, **settings), axis=0) / total
    return rng.generator(seed, "next_runs.order").permutation(ratios_CM)


def _apart(one_CM, other_KM) -> np.ndarray:
    """Total variation between mixtures, CK; domain by domain, which bounds memory."""
    far_CK = np.zeros((len(one_CM), len(other_KM)))
    for one_C, other_K in zip(one_CM.T, other_KM.T, strict=True):
        far_CK += np.abs(one_C[:, None] - other_K[None, :])
    return far_CK / 2


def _greedy(beliefs: _Beliefs, task_weights_N, number: int, apart_CM=None, min_distance: float = 0.0):
    """(chosen_B, left_B): each in turn the candidate whose run lowers Σ_i w_i mean_q ½ ln Var_i(q) most."""
    known = _Beliefs(*(x.copy() if isinstance(x, np.ndarray) else x for x in beliefs))
    weights_N = _weights(task_weights_N, len(known.noise_N))
    open_C, chosen, gains, steps = np.ones(known.variance_NC.shape[1], bool), [], [], []
    for _ in range(number):
        if not open_C.any():
            raise UserError(
                f"{number} next runs are asked for and only {len(chosen)} candidates keep their distance: propose "
                "fewer, give more candidates, or lower swarm.min_distance"
            )
        gain_C = _gain(known, weights_N)
        c = int(np.where(open_C, gain_C, -np.inf).argmax())
        root_N = np.sqrt(np.maximum(known.variance_NC[:, c], 0.0) + known.noise_N)
        step_NC = (known.column(c) - sum(s_NC * s_NC[:, c, None] for s_NC in steps)) / root_N[:, None]
        step_NQ = known.cross_NCQ[:, c] / root_N[:, None]
        np.subtract(known.variance_NC, step_NC**2, out=known.variance_NC)
        np.subtract(known.variance_NQ, step_NQ**2, out=known.variance_NQ)
        for cross_CQ, step_C, step_Q in zip(known.cross_NCQ, step_NC, step_NQ):
            cross_CQ -= np.outer(step_C, step_Q)
        open_C[c] = False
        if apart_CM is not None:
            open_C &= _apart(apart_CM, apart_CM[[c]])[:, 0] >= min_distance
        chosen, gains, steps = [*chosen, c], [*gains, gain_C[c]], [*steps, step_NC]
    return np.array(chosen, int), np.exp(-np.cumsum(gains))


def _gain(known: _Beliefs, weights_N) -> np.ndarray:
    """gain_C [nats]: Σ_i w_i mean_q −½ ln(1 − Cov(q, c)² / (Var(c) + s²) / Var(q)); in turn per task, for memory."""
    gain_C = np.zeros(known.variance_NC.shape[1])
    for i, cross_CQ in enumerate(known.cross_NCQ):
        noisy_C = np.maximum(known.variance_NC[i], 0.0) + known.noise_N[i]
        # Where rounding has eaten the variance of a mixture that is known as well as can be, nothing is gained.
        share_CQ = cross_CQ**2 / noisy_C[:, None] / np.maximum(known.variance_NQ[i], warped_kernel.JITTER)[None, :]
        gain_C -= weights_N[i] * 0.5 * np.log1p(-np.minimum(share_CQ, 1 - warped_kernel.JITTER)).mean(axis=1)
    return gain_C


def _weights(task_weights_N, tasks: int) -> np.ndarray:
    weights_N = np.ones(tasks) if task_weights_N is None else np.asarray(task_weights_N, np.float64)
    if weights_N.shape != (tasks,) or not np.isfinite(weights_N).all() or (weights_N < 0).any() or not weights_N.any():
        raise UserError(f"next runs need {tasks} task weights of 0 or more, not all 0; got {weights_N.tolist()}")
    return weights_N / weights_N.sum()


def _exact(params, candidates_CM, reference_QM) -> _Beliefs:
    """The default law's beliefs, of the standardised latent function of each task."""
    candidates_CM, reference_QM = np.asarray(candidates_CM, np.float64), np.asarray(reference_QM, np.float64)
    domains = params.ratios_KM.shape[-1]
    if {x.ndim for x in (params.ratios_KM, candidates_CM, reference_QM)} != {2} or not len(reference_QM):
        raise UserError("next runs need one law, and tables of candidates and reference mixtures")
    if candidates_CM.shape[1] != domains or reference_QM.shape[1] != domains:
        raise UserError(f"the law has {domains} domains, not {candidates_CM.shape[1]} and {reference_QM.shape[1]}")
    shared = params.ratios_KM, params.weight_K, candidates_CM
    with cpu.float64():
        half_NKC, *known = map(np.array, _known(params.theta_NP, *shared, reference_QM))

    def column(c: int) -> np.ndarray:
        with cpu.float64():
            prior_NC = np.asarray(_prior(params.theta_NP, candidates_CM, candidates_CM[c]))
        return prior_NC - np.einsum("nkc,nk->nc", half_NKC, half_NKC[:, :, c])

    return _Beliefs(*known, column, np.exp(params.theta_NP[:, -2]) + warped_kernel.JITTER)


@jax.jit
def _known(theta_NP, ratios_KM, weight_K, candidates_CM, reference_QM):
    """(L⁻¹k(Z, C), Var(C), Cov(C, Q), Var(Q)) per task; tasks run in turn, which bounds memory."""

    def one(theta_P):
        factor_KK, _ = warped_kernel.conditioned(theta_P, ratios_KM, jnp.zeros(len(weight_K)), weight_K)

        def half(at_XM):
            cross_KX = warped_kernel.kernel(theta_P, ratios_KM, at_XM) * warped_kernel.active(weight_K)[:, None]
            half_KX = jax.scipy.linalg.solve_triangular(factor_KK, cross_KX, lower=True)
            return half_KX, warped_kernel.variance(theta_P, at_XM) - (half_KX**2).sum(axis=0)

        (half_KC, variance_C), (half_KQ, variance_Q) = half(candidates_CM), half(reference_QM)
        cross_CQ = warped_kernel.kernel(theta_P, candidates_CM, reference_QM) - half_KC.T @ half_KQ
        return half_KC, variance_C, cross_CQ, variance_Q

    return jax.lax.map(one, theta_NP)


@jax.jit
def _prior(theta_NP, candidates_CM, one_M):
    kernel = functools.partial(warped_kernel.kernel, one_KM=candidates_CM, other_QM=one_M[None])
    return jax.vmap(lambda theta_P: kernel(theta_P)[:, 0])(theta_NP)


def _sampled(predicted_RCN, predicted_RQN, noise_N, number: int) -> _Beliefs:
    """The beliefs that samples of a law stand for."""
    predicted_RCN, predicted_RQN = np.asarray(predicted_RCN, np.float64), np.asarray(predicted_RQN, np.float64)
    noise_N = np.asarray(noise_N, np.float64)
    samples, tasks = predicted_RQN.shape[0], predicted_RQN.shape[2]
    if predicted_RCN.shape[::2] != (samples, tasks) or noise_N.shape != (tasks,):
        raise UserError("next runs need candidates, reference mixtures and noise of the same samples and tasks")
    if samples <= number:
        raise UserError(f"{samples} samples of the law cannot tell {number} next runs apart: raise fit.resamples")
    spread_N = predicted_RQN.mean(axis=0).std(axis=0)
    unit_N = np.where(spread_N > 0, spread_N, 1.0)
    off_NCR, off_NQR = (
        ((x - x.mean(axis=0)) / unit_N / np.sqrt(samples - 1)).transpose(2, 1, 0)
        for x in (predicted_RCN, predicted_RQN)
    )
    return _Beliefs(
        variance_NC=(off_NCR**2).sum(axis=2),
        cross_NCQ=off_NCR @ off_NQR.swapaxes(1, 2),
        variance_NQ=(off_NQR**2).sum(axis=2),
        column=lambda c: np.einsum("ncr,nr->nc", off_NCR, off_NCR[:, c]),
        noise_N=np.maximum(noise_N / unit_N**2, warped_kernel.JITTER),
    )

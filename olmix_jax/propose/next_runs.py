"""The mixtures to train next: those whose results will reduce the law's uncertainty most.

The variance of a Gaussian posterior does not depend on the measured values. So the
effect of a run at mixture c on the variance at a mixture q is known in advance, with s² the noise variance of a run:

    Var(q) → Var(q) − Cov(q, c)² / (Var(c) + s²)

The run's expected information about task i at q is ½ ln (Var(q) before / Var(q) after) nats. A batch is chosen
greedily: take the candidate with the most information, averaged over reference mixtures and summed over weighted tasks;
condition all covariances on it as if it had been trained; repeat. A candidate close to an earlier one adds little, so a
batch spreads out by itself. The gains add up to the fall of the mean log standard deviation, which does not depend on
the units of a task. Tasks are assumed independent, so their gains add up.

Two alternatives were worse (RegMix's pool, `python -m benchmarks.next_runs --develop`). Lowering the mean variance
(Cohn 1996) gave between half and all of this gain over random runs in RMSE. Averaging only over mixtures that may be
among the best was worse than random runs.

The covariances are exact for the default law (:func:`choose`), given its fitted θ. For other laws they are those of
samples of the law, such as bootstrap refits (:func:`choose_sampled`). benchmarks/next_runs.md has figures.

Additional dim letters: C candidates, Q reference mixtures, R samples, B runs to propose.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from olmix_jax.laws import cpu, curves, warped_gp, warped_kernel
from olmix_jax.laws.fitted import FittedLaw
from olmix_jax.propose.covariances import Covariances, exact_covariances, sampled_covariances
from olmix_jax.swarm import sampling
from olmix_jax.utils import rng
from olmix_jax.utils.errors import UserError

# Most bytes of each table of covariances. Swarms with many tasks and runs get fewer candidates and reference mixtures.
MEMORY = 512 * 2**20


class NextRuns(NamedTuple):
    """Mixtures to train next, best first.

    Attributes:
      ratios_BM: rows on the simplex, in multiples of 1/``total``.
      left_B: share of the law's standard deviation that remains once a run and those before it are trained: the
        geometric mean over reference mixtures and weighted tasks. It shows when more runs stop being worth their cost.
    """

    ratios_BM: np.ndarray
    left_B: np.ndarray


class Choice(NamedTuple):
    """Chosen candidates, in order: their indices, and the remaining share as in :class:`NextRuns`."""

    index_B: np.ndarray
    left_B: np.ndarray


def choose(params, candidates_CM, reference_QM, number: int, task_weights_N=None) -> np.ndarray:
    """Return the indices of the candidates to train next, in order, for the default law. Each is chosen at most once.

    Args:
      params: :class:`olmix_jax.laws.warped_gp.Params` of a fit, without leading axes.
      candidates_CM: mixtures that may be trained.
      reference_QM: mixtures at which the law should be certain, for example some or all of the candidates.
      number: B, how many to choose.
      task_weights_N: weights of 0 or more; equal by default.

    Raises:
      UserError: ``number`` exceeds the number of candidates, or the shapes disagree.
    """
    covariances = exact_covariances(params, candidates_CM, reference_QM)
    return _all_of(choose_greedily(covariances, number, task_weights_N), number).index_B


def choose_sampled(predicted_RCN, predicted_RQN, noise_N, number: int, task_weights_N=None) -> np.ndarray:
    """Return :func:`choose` for any law, with the covariances of R samples of it.

    Args:
      predicted_RCN: the samples' predictions at the candidates [BPB].
      predicted_RQN: the samples' predictions at the reference mixtures [BPB].
      noise_N: variance of a run's noise per task [BPB²], for example the squared error of cross-validation.
      number: B. R samples span R − 1 directions, so B must be smaller than R, better several times.
      task_weights_N: weights of 0 or more; equal by default.

    Raises:
      UserError: see :func:`choose`; or there are too few samples.
    """
    covariances = sampled_covariances(predicted_RCN, predicted_RQN, noise_N, number)
    return _all_of(choose_greedily(covariances, number, task_weights_N), number).index_B


def _all_of(choice: Choice, number: int) -> Choice:
    if len(choice.index_B) < number:
        raise UserError(f"only {len(choice.index_B)} of {number} next runs can be proposed; give more candidates")
    return choice


def propose_next(
    fitted: FittedLaw,
    number: int,
    *,
    natural_M,
    domains: Sequence[str],
    existing_KM,
    first_FM=None,
    noise_N=None,
    task_weights_N=None,
    candidates: int = 1000,
    references: int = 256,
    total: int = 10_000,
    min_distance: float = 0.02,
    seed: int = 0,
    **sampler,
) -> NextRuns:
    """Choose the next runs among mixtures drawn like those of a swarm (:func:`olmix_jax.swarm.sampling.sample`).

    Candidates cover the same range of mixtures as a swarm, which is where the law should be certain. So some of them
    are the reference mixtures. The covariances take 8·N·candidates·(references + K) bytes; see :data:`MEMORY`.

    Args:
      fitted: the law; all laws except the Gaussian processes of warped weights need samples.
      number: B. There are fewer runs if no other candidate is far enough from all runs.
      natural_M: natural distribution, positive.
      domains: M names, in column order.
      existing_KM: mixtures that have been trained, or are being trained.
      first_FM: mixtures to train in any case, such as the proposal. They are the first of the runs, and the others are
        chosen as if their results were known. They may be close to other runs.
      noise_N: see :func:`choose_sampled`; needed for all laws except the Gaussian processes of warped weights.
      task_weights_N: weights of 0 or more; equal by default.
      candidates, references: number of candidates, and of the reference mixtures among them.
      total: sequences that a run trains on.
      min_distance: least total variation between two proposed runs, and to ``existing_KM``.
      seed: of the draws; equal arguments give equal proposals.
      **sampler: ``sparsity``, ``strength``, ``min_weight`` or ``min_runs`` of the sampler.

    Raises:
      UserError: no candidate is far enough from the existing runs, the law has no samples, or the sampler fails.
    """
    names = tuple(domains)
    ratios_CM = _candidates(natural_M, names, max(candidates, len(names) + 2), total, seed, sampler)
    # Tables of covariances are limited by memory. Candidates are in random order, so the first ones are a sample.
    pairs = MEMORY // (8 * fitted.predict(ratios_CM[:1]).shape[1])
    reference_QM = ratios_CM[: max(min(references, pairs // len(ratios_CM)), 1)]
    ratios_CM = _far_from(existing_KM, ratios_CM, min_distance)
    ratios_CM = ratios_CM[: max(pairs // max(len(existing_KM), 1), 2 * number)]
    first_FM = ratios_CM[:0] if first_FM is None else np.asarray(first_FM, np.float64)
    ratios_CM = np.concatenate([first_FM, ratios_CM])
    if _has_exact_covariances(fitted):
        covariances = exact_covariances(fitted.params, ratios_CM, reference_QM)
    elif fitted.samples is None or noise_N is None:
        raise UserError(f"next runs of the law {fitted.law.name} need samples of it; set fit.resamples to 100")
    else:
        predicted_RCN, predicted_RQN = (fitted.predict_samples(at_XM) for at_XM in (ratios_CM, reference_QM))
        covariances = sampled_covariances(predicted_RCN, predicted_RQN, noise_N, number)
    choice = choose_greedily(covariances, number, task_weights_N, ratios_CM, min_distance, len(first_FM))
    return NextRuns(ratios_CM[choice.index_B], choice.left_B)


def possible(fitted: FittedLaw) -> bool:
    """Return whether next runs can be proposed for a law: with exact covariances, or from samples."""
    return _has_exact_covariances(fitted) or fitted.samples is not None


def _has_exact_covariances(fitted: FittedLaw) -> bool:
    return isinstance(fitted.params, warped_gp.Params | curves.CurvedParams)


def total_variation(one_CM, other_KM) -> np.ndarray:
    """Return the total variation between mixtures, CK. Computed domain by domain, which bounds memory."""
    distance_CK = np.zeros((len(one_CM), len(other_KM)))
    for one_C, other_K in zip(one_CM.T, other_KM.T, strict=True):
        distance_CK += np.abs(one_C[:, None] - other_K[None, :])
    return distance_CK / 2


def choose_greedily(
    covariances: Covariances,
    number: int,
    task_weights_N=None,
    ratios_CM=None,
    min_distance: float = 0.0,
    first: int = 0,
) -> Choice:
    """Choose one candidate after another; each lowers Σ_i w_i mean_q ½ ln Var_i(q) most.

    Args:
      covariances: of the law.
      number: how many to choose.
      task_weights_N: w, weights of 0 or more; equal by default.
      ratios_CM: the candidates, to keep chosen ones ``min_distance`` apart in total variation; None disables that.
      min_distance: least distance.
      first: this many candidates, the first ones, are chosen before all others, in their order.

    Raises:
      UserError: the weights are invalid.

    Returns:
      The choice, of fewer than ``number`` candidates if no other is left.
    """
    state = covariances._replace(
        variance_NC=covariances.variance_NC.copy(),
        cross_NCQ=covariances.cross_NCQ.copy(),
        variance_NQ=covariances.variance_NQ.copy(),
    )
    weights_N = _normalised(task_weights_N, len(state.noise_N))
    open_C = np.ones(state.variance_NC.shape[1], bool)
    chosen: list[int] = []
    gains: list[float] = []
    steps: list[np.ndarray] = []
    for _ in range(number):
        if len(chosen) >= first and not open_C.any():
            break
        gain_C = _gain(state, weights_N)
        c = len(chosen) if len(chosen) < first else int(np.where(open_C, gain_C, -np.inf).argmax())
        steps.append(_condition(state, c, steps))
        open_C[c] = False
        if ratios_CM is not None:
            open_C &= total_variation(ratios_CM, ratios_CM[[c]])[:, 0] >= min_distance
        chosen.append(c)
        gains.append(gain_C[c])
    return Choice(np.array(chosen, int), np.exp(-np.cumsum(gains)))


def _condition(state: Covariances, c: int, steps: list[np.ndarray]) -> np.ndarray:
    """Condition the covariances on a run at candidate c, in place; ``steps`` are the results for earlier runs."""
    root_N = np.sqrt(np.maximum(state.variance_NC[:, c], 0.0) + state.noise_N)
    step_NC = (state.column(c) - sum(s_NC * s_NC[:, c, None] for s_NC in steps)) / root_N[:, None]
    step_NQ = state.cross_NCQ[:, c] / root_N[:, None]
    np.subtract(state.variance_NC, step_NC**2, out=state.variance_NC)
    np.subtract(state.variance_NQ, step_NQ**2, out=state.variance_NQ)
    for cross_CQ, step_C, step_Q in zip(state.cross_NCQ, step_NC, step_NQ):
        cross_CQ -= np.outer(step_C, step_Q)
    return step_NC


def _gain(state: Covariances, weights_N) -> np.ndarray:
    """Return gain_C [nats], Σ_i w_i mean_q −½ ln(1 − Cov(q, c)² / (Var(c) + s²) / Var(q)).

    As many tasks at a time as there are cores, which bounds memory.
    """

    def of_task(i: int) -> np.ndarray:
        noisy_C = np.maximum(state.variance_NC[i], 0.0) + state.noise_N[i]
        # Rounding may have cancelled the variance of a well-known mixture; it gains nothing.
        reach_Q = np.maximum(state.variance_NQ[i], warped_kernel.JITTER)
        share_CQ = state.cross_NCQ[i] ** 2 / noisy_C[:, None] / reach_Q[None, :]
        return -0.5 * np.log1p(-np.minimum(share_CQ, 1 - warped_kernel.JITTER)).mean(axis=1)

    return weights_N @ np.stack(cpu.in_threads(of_task, range(len(weights_N))))


def _candidates(natural_M, names: tuple[str, ...], number: int, total: int, seed: int, sampler: dict) -> np.ndarray:
    """Return different mixtures in random order: ``number`` of them, or fewer if some are drawn twice."""
    settings = {"names": names, "min_distance": 0.0, "seed": rng.derive(seed, "next_runs")} | sampler
    if "min_runs" in settings:
        settings["min_runs"] = min(settings["min_runs"], number)
    ratios_CM = np.unique(sampling.sample(natural_M, number, total, **settings), axis=0) / total
    return rng.generator(seed, "next_runs.order").permutation(ratios_CM)


def _far_from(existing_KM, ratios_CM: np.ndarray, min_distance: float) -> np.ndarray:
    """Return the candidates that are at least ``min_distance`` from all existing runs."""
    distance_CK = total_variation(ratios_CM, np.asarray(existing_KM, np.float64))
    far_C = np.all(distance_CK >= min_distance, axis=1)
    if not np.any(far_C):
        raise UserError(
            f"none of {len(ratios_CM)} mixtures that were drawn has a total variation of at least {min_distance:g} to "
            f"all {len(existing_KM)} runs; lower swarm.min_distance"
        )
    return ratios_CM[far_C]


def _normalised(task_weights_N, tasks: int) -> np.ndarray:
    weights_N = np.ones(tasks) if task_weights_N is None else np.asarray(task_weights_N, np.float64)
    if weights_N.shape != (tasks,) or not np.isfinite(weights_N).all() or (weights_N < 0).any() or not weights_N.any():
        raise UserError(
            f"next runs need {tasks} task weights of 0 or more, of which one is positive, not {weights_N.tolist()}"
        )
    return weights_N / weights_N.sum()

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

With a law of two fidelities the candidates are runs of both kinds (:mod:`~olmix_jax.laws.joint_posterior`), if the
cost of a cheap run is known. Of all numbers of both that cost as much as the real runs alone, the ones are chosen that
leave the least uncertainty about real runs.

Additional dim letters: C candidates, Q reference mixtures, R samples, B runs to propose, D cheap candidates.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from olmix_jax.laws import curves, joint_posterior, two_fidelity, warped_gp
from olmix_jax.laws.fitted import FittedLaw
from olmix_jax.laws.joint_posterior import Covariances
from olmix_jax.propose.covariances import exact_covariances, sampled_covariances
from olmix_jax.propose.greedy import Choice, choose_greedily, choose_split, total_variation
from olmix_jax.swarm import sampling
from olmix_jax.swarm.fidelity import Cheap
from olmix_jax.utils import rng
from olmix_jax.utils.errors import UserError

# Most bytes of each table of covariances. Swarms with many tasks and runs get fewer candidates and reference mixtures.
MEMORY = 512 * 2**20


class NextRuns(NamedTuple):
    """Mixtures to train next, best first.

    Attributes:
      ratios_BM: rows on the simplex, in multiples of 1/``total``.
      left_B: share of the law's standard deviation that remains once a run and those before it are trained, as in
        :class:`~olmix_jax.propose.greedy.Choice`. It shows when more runs stop being worth their cost.
      cheap_B: whether the run is a cheap one.
      left_alone: what would remain if only real runs were trained, at the same cost.
    """

    ratios_BM: np.ndarray
    left_B: np.ndarray
    cheap_B: np.ndarray
    left_alone: float


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
    cheap: Cheap | None = None,
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
      number: B, or what all runs may cost, in real ones. There are fewer runs if no other candidate is far enough from
        all runs.
      natural_M: natural distribution, positive.
      domains: M names, in column order.
      existing_KM: mixtures that have been trained, or are being trained.
      first_FM: mixtures to train in any case, such as the proposal. They are the first of the runs, and the others are
        chosen as if their results were known. They may be close to other runs.
      cheap: the cheap runs; with their cost and a law that uses them, some of the next runs may be cheap.
      noise_N: see :func:`choose_sampled`; needed for all laws except the Gaussian processes of warped weights.
      task_weights_N: weights of 0 or more; equal by default.
      candidates, references: number of candidates, and of the reference mixtures among them.
      total: sequences that a run trains on.
      min_distance: least total variation between two proposed runs of a kind, and to the trained runs of that kind.
      seed: of the draws; equal arguments give equal proposals.
      **sampler: ``sparsity``, ``strength``, ``min_weight`` or ``min_runs`` of the sampler.

    Raises:
      UserError: no candidate is far enough from the existing runs, the law has no samples, or the sampler fails.
    """
    ratios_CM = _candidates(natural_M, tuple(domains), max(candidates, len(domains) + 2), total, seed, sampler)
    first_FM = ratios_CM[:0] if first_FM is None else np.asarray(first_FM, np.float64)
    pool = _pool(fitted, number, ratios_CM, existing_KM, cheap, references, min_distance)
    pool = pool._replace(real_CM=np.concatenate([first_FM, pool.real_CM]))
    asked_CM = np.concatenate([pool.real_CM, pool.cheap_DM])
    is_cheap_C = np.arange(len(asked_CM)) >= len(pool.real_CM)
    covariances, settings = _covariances(fitted, pool, noise_N, number), (asked_CM, min_distance, len(first_FM))
    choice, alone = choose_split(covariances, number, task_weights_N, *settings, is_cheap_C, pool.cost)
    left_alone = float(alone.left_B[-1]) if len(alone.left_B) else 1.0
    return NextRuns(asked_CM[choice.index_B], choice.left_B, is_cheap_C[choice.index_B], left_alone)


def possible(fitted: FittedLaw) -> bool:
    """Return whether next runs can be proposed for a law: with exact covariances, or from samples."""
    return _has_exact_covariances(fitted) or _is_of_two(fitted) or fitted.samples is not None


def _has_exact_covariances(fitted: FittedLaw) -> bool:
    return isinstance(fitted.params, warped_gp.Params | curves.CurvedParams)


def _is_of_two(fitted: FittedLaw) -> bool:
    return isinstance(fitted.params, two_fidelity.Params) and fitted.params.cheap is not None


class _Pool(NamedTuple):
    """Runs of each kind that may be trained, the mixtures at which to be certain, and a cheap run's cost."""

    real_CM: np.ndarray
    cheap_DM: np.ndarray
    reference_QM: np.ndarray
    cost: float


def _pool(
    fitted: FittedLaw, number: int, ratios_CM, existing_KM, cheap: Cheap | None, references: int, min_distance: float
) -> _Pool:
    """Return as many mixtures as memory allows. They are in random order, so the first ones are a sample."""
    pairs, cheap_DM, cost = MEMORY // (8 * fitted.predict(ratios_CM[:1]).shape[1]), ratios_CM[:0], 1.0
    trained = len(existing_KM) + (len(fitted.params.cheap.ratios_KM) if _is_of_two(fitted) else 0)
    if cheap is not None and cheap.cost and _is_of_two(fitted) and two_fidelity.predicts_real(fitted.params):
        # Many numbers of either kind are compared, in many more steps, so the tables are a quarter as large.
        ratios_CM, references = ratios_CM[: max(len(ratios_CM) // 4, 2 * number)], references // 2
        pairs //= 2
        cheap_DM, cost = _far(cheap.ratios_JM, ratios_CM, min_distance), cheap.cost
    reference_QM = ratios_CM[: max(min(references, pairs // len(ratios_CM)), 1)]
    most = max(pairs // max(trained, 1), 2 * number)
    return _Pool(_far_from(existing_KM, ratios_CM, min_distance)[:most], cheap_DM[:most], reference_QM, cost)


def _covariances(fitted: FittedLaw, pool: _Pool, noise_N, number: int) -> Covariances:
    if _has_exact_covariances(fitted):
        return exact_covariances(fitted.params, pool.real_CM, pool.reference_QM)
    if _is_of_two(fitted):
        return joint_posterior.covariances(fitted.params, pool.real_CM, pool.cheap_DM, pool.reference_QM)
    if fitted.samples is None or noise_N is None:
        raise UserError(f"next runs of the law {fitted.law.name} need samples of it; set fit.resamples to 100")
    predicted_RCN, predicted_RQN = (fitted.predict_samples(at_XM) for at_XM in (pool.real_CM, pool.reference_QM))
    return sampled_covariances(predicted_RCN, predicted_RQN, noise_N, number)


def _candidates(natural_M, names: tuple[str, ...], number: int, total: int, seed: int, sampler: dict) -> np.ndarray:
    """Return different mixtures in random order: ``number`` of them, or fewer if some are drawn twice."""
    settings = {"names": names, "min_distance": 0.0, "seed": rng.derive(seed, "next_runs")} | sampler
    if "min_runs" in settings:
        settings["min_runs"] = min(settings["min_runs"], number)
    ratios_CM = np.unique(sampling.sample(natural_M, number, total, **settings), axis=0) / total
    return rng.generator(seed, "next_runs.order").permutation(ratios_CM)


def _far_from(existing_KM, ratios_CM: np.ndarray, min_distance: float) -> np.ndarray:
    """Return the candidates that are at least ``min_distance`` from all existing runs."""
    far_CM = _far(existing_KM, ratios_CM, min_distance)
    if not len(far_CM):
        raise UserError(
            f"none of {len(ratios_CM)} mixtures that were drawn has a total variation of at least {min_distance:g} to "
            f"all {len(existing_KM)} runs; lower swarm.min_distance"
        )
    return far_CM


def _far(existing_KM, ratios_CM: np.ndarray, min_distance: float) -> np.ndarray:
    """Return the candidates that are far enough, if any."""
    distance_CK = total_variation(ratios_CM, np.asarray(existing_KM, np.float64))
    return ratios_CM[np.all(distance_CK >= min_distance, axis=1)]

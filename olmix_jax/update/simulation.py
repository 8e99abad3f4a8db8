"""Simulation of an update: the loss of recomputing some domains, under sampled laws of the new set (METHOD §3).

For a choice of domains to recompute, and for each sampled law (a *truth*):

    1. A swarm over the choice's blocks is drawn, and its scores are simulated with the old law's noise.
    2. The law that would be fitted to these scores, old runs included, is found by linearised least squares under the
       prior of the coefficients.
    3. The optimal mixture of the fitted law is evaluated under the truth. The loss is its objective minus the optimum
       of the truth.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from olmix_jax.laws import log_linear
from olmix_jax.propose.blocks import Blocks, collapse, collapsed_anchor, collapsed_bounds, expand, form_blocks
from olmix_jax.solver import batch
from olmix_jax.solver.bounds import Bounds
from olmix_jax.solver.problem import Problem
from olmix_jax.utils import rng

# Problems in one call of the solver. With one more, the solver would compile another program.
PROBLEMS_PER_CALL = batch.MANY - 1
# Lower limit of 1 − D/K, the share of K runs that D weights leave over.
MIN_SPARE = 0.1


@dataclasses.dataclass(frozen=True)
class Setting:
    """Facts about the new domain set before any new run.

    Attributes:
      domains: M names.
      natural_M: p0.
      bounds: repetition caps and the bounds of the config.
      kl_weight: λ > 0 [BPB per nat].
      task_weights_N: w, summing to 1.
      affected_M: which domains have to be recomputed.
      weights_M: the old mixture on unaffected domains, 0 elsewhere; of any sum.
      noise_N: standard deviation of a run's score that the law does not explain [BPB].
      shared: share of the noise variance that all tasks of a run have in common.
      old_KM: mixtures of old runs, expressed on the new set; K may be 0.
      trust_K: weights of old runs; a new run has weight 1.
      tempered: exponent t; the mixtures of the new swarm are centred on natural^t.
    """

    domains: tuple[str, ...]
    natural_M: np.ndarray
    bounds: Bounds
    kl_weight: float
    task_weights_N: np.ndarray
    affected_M: np.ndarray
    weights_M: np.ndarray
    noise_N: np.ndarray
    shared: float
    old_KM: np.ndarray
    trust_K: np.ndarray
    tempered: float = 0.7


@dataclasses.dataclass(frozen=True)
class Choice:
    """Domains to recompute, and the predicted loss.

    Attributes:
      recomputed: names, affected ones first.
      blocks: one block ``kept`` of the domains that keep their ratios, and all others alone.
      proxies: number of new runs.
      loss_S: BPB above the optimum, for each truth.
    """

    recomputed: tuple[str, ...]
    blocks: Blocks
    proxies: int
    loss_S: np.ndarray

    @property
    def loss(self) -> float:
        """The predicted loss: the mean over truths [BPB]."""
        return float(self.loss_S.mean())


def blocks_of(setting: Setting, recomputed: Sequence[int]) -> Blocks:
    """Return the blocks of a choice: ``kept`` with the old ratios, and every other domain alone."""
    names = setting.domains
    kept = {names[j]: float(setting.weights_M[j]) for j in range(len(names)) if j not in recomputed}
    kept = {name: weight for name, weight in kept.items() if weight > 0}
    return form_blocks({"kept": kept} if len(kept) > 1 else {}, names)


class Simulation:
    """Sampled laws (truths), their optima, and the losses of choices under them.

    Attributes:
      setting: the domain set.
      gain_S: objective of natural minus that of the optimum, for each truth [BPB].
    """

    def __init__(self, truth: log_linear.Params, setting: Setting, runs_for: Callable[[int], int], seed: int):
        """Solve every truth for its optimum.

        Args:
          truth: S sampled laws over the new set (:func:`olmix_jax.update.prior.sample_laws`).
          setting: the domain set.
          runs_for: number of weights → number of new runs.
          seed: seed of the swarms and their noise.
        """
        self.setting = setting
        self._truth, self._runs_for, self._seed = truth, runs_for, seed
        alone = form_blocks({}, setting.domains)
        self._optimum_S = self._objective(self.optima([truth.coef_NM], [alone])[0])
        natural_SM = np.broadcast_to(setting.natural_M, (len(truth.log_c_N), len(alone.names)))
        self.gain_S = self._objective(natural_SM) - self._optimum_S
        self._prior_mean_N = truth.coef_NM.mean(axis=(0, 2))
        self._prior_std_N = np.maximum(truth.coef_NM.std(axis=(0, 2)), 1e-3)

    def judge(self, choices: Sequence[tuple[int, ...]]) -> list[Choice]:
        """Predict the loss of each choice. A choice is a tuple of indices of recomputed domains."""
        blocks = [blocks_of(self.setting, choice) for choice in choices]
        runs = [self._runs_for(len(b.names)) if len(b.names) > 1 else 0 for b in blocks]
        mixtures = self.optima([self._refit(b, k) for b, k in zip(blocks, runs)], blocks)
        return [
            Choice(tuple(self.setting.domains[j] for j in choice), b, k, self._objective(mixture_SM) - self._optimum_S)
            for choice, b, k, mixture_SM in zip(choices, blocks, runs, mixtures)
        ]

    def optima(self, coefs: Sequence[np.ndarray], blocks: Sequence[Blocks]) -> list[np.ndarray]:
        """Return the optimal mixture_SM of each coef_SNM over its blocks.

        All problems are padded to M weights and solved together, so that they share one compiled program.
        """
        setting, (samples, _, width) = self.setting, self._truth.coef_NM.shape
        rows = []
        for coef_SNM, b in zip(coefs, blocks):
            bounds, pad = collapsed_bounds(setting.bounds, b), (0, width - len(b.names))
            coef_SND = np.pad(coef_SNM @ b.ratios_DM.T, ((0, 0), (0, 0), pad))
            anchor_D = np.pad(collapsed_anchor(setting.natural_M, b), pad, constant_values=1e-9)
            limits = np.pad(bounds.lower_M, pad), np.pad(bounds.upper_M, pad), np.pad(bounds.member_GM, ((0, 0), pad))
            rows.append((coef_SND, *(np.broadcast_to(x, (samples, *x.shape)) for x in (anchor_D, *limits))))
        # P problems: all samples of the first blocks, then of the second, and so on.
        problems_P = [np.concatenate(column) for column in zip(*rows)]
        starts = range(0, len(problems_P[0]), PROBLEMS_PER_CALL)
        solved = [self._solve(*(x[start : start + PROBLEMS_PER_CALL] for x in problems_P)) for start in starts]
        weights_BSD = np.concatenate(solved).reshape(len(blocks), samples, width)
        return [expand(weights_SD[:, : len(b.names)], b) for weights_SD, b in zip(weights_BSD, blocks)]

    def _solve(self, *problems_P) -> np.ndarray:
        """Solve a batch of problems. A small batch is padded with copies, so that all batches share one program."""
        setting, number = self.setting, len(problems_P[0])
        filled = np.arange(max(number, batch.CHUNK)) % number
        coef, anchor_M, lower_M, upper_M, member_GM = (x[filled] for x in problems_P)
        params = log_linear.Params(np.zeros(coef.shape[:2]), coef)
        problem = Problem(
            law=log_linear.LAW,
            params=None,
            weights=setting.task_weights_N,
            anchor_M=setting.natural_M,
            bounds=setting.bounds,
            kl_weight=setting.kl_weight,
        )
        varying = batch.Varying(params, anchor_M=anchor_M, lower_M=lower_M, upper_M=upper_M, member_GM=member_GM)
        return np.asarray(batch.solve_each(problem, varying).weights_M)[:number]

    def _objective(self, ratios_SM) -> np.ndarray:
        """Return the objective of each mixture under its truth [BPB]."""
        truth, setting = self._truth, self.setting
        bpb_SN = np.exp(truth.log_c_N) + np.exp(np.einsum("snm,sm->sn", truth.coef_NM, ratios_SM))
        with np.errstate(divide="ignore", invalid="ignore"):
            terms_SM = np.where(ratios_SM > 0, ratios_SM * np.log(ratios_SM / setting.natural_M), 0.0)
        return bpb_SN @ setting.task_weights_N + setting.kl_weight * terms_SM.sum(axis=1)

    def _refit(self, blocks: Blocks, runs: int) -> np.ndarray:
        """Simulate a new swarm over the blocks; return coef_SNM, fitted to it and to the old runs."""
        if not runs:
            # Without a new swarm the best law is the mean over the samples of the old one.
            return np.broadcast_to(self._truth.coef_NM.mean(axis=0), self._truth.coef_NM.shape)
        setting, draw = self.setting, rng.generator(self._seed, f"recompute.swarm {runs} {blocks.names}")
        natural_D = collapse(setting.natural_M, blocks) ** setting.tempered
        drawn_KD = draw.dirichlet(natural_D / natural_D.sum() * len(natural_D), size=runs)
        ratios_KM = np.concatenate([expand(drawn_KD, blocks), setting.old_KM])
        trust_K = np.concatenate([np.ones(runs), setting.trust_K])
        # Choices with the same number of runs get the same noise.
        draw = rng.generator(self._seed, f"recompute.noise {len(ratios_KM)}")
        # A real fit also estimates scales and noise, from the runs that its weights leave over. As in generalised
        # cross-validation, errors grow by K / (K − D).
        spare = max(1 - len(blocks.names) / trust_K.sum(), MIN_SPARE)
        samples = range(len(self._truth.log_c_N))
        return np.stack([self._refit_one(s, ratios_KM, trust_K, draw, 1 / np.sqrt(spare)) for s in samples])

    def _refit_one(self, s: int, ratios_KM, trust_K, draw: np.random.Generator, inflation: float) -> np.ndarray:
        """Return coef_NM for one truth: the posterior mean of a linearised fit to simulated scores.

        The scores have ``inflation`` times the noise that the fit assumes.
        """
        setting, coef_NM = self.setting, self._truth.coef_NM[s]
        normal = draw.normal(size=(len(ratios_KM), 1)), draw.normal(size=(len(ratios_KM), len(coef_NM)))
        noise_KN = np.sqrt(setting.shared) * normal[0] + np.sqrt(1 - setting.shared) * normal[1]
        # With e = exp(coef·p), an error of σ in the score is an error of σ / e in coef·p.
        height_KN = np.exp(ratios_KM @ coef_NM.T)
        weight_NK = (height_KN**2 * trust_K[:, None]).T / setting.noise_N[:, None] ** 2
        error_KN = inflation * noise_KN * setting.noise_N / np.sqrt(trust_K)[:, None] / height_KN
        precision_NMM = np.einsum("nk,km,kj->nmj", weight_NK, ratios_KM, ratios_KM, optimize=True)
        precision_NMM = precision_NMM + np.eye(len(coef_NM.T)) / self._prior_std_N[:, None, None] ** 2
        score_NM = np.einsum("nk,kn,km->nm", weight_NK, error_KN, ratios_KM, optimize=True)
        score_NM = score_NM - (coef_NM - self._prior_mean_N[:, None]) / self._prior_std_N[:, None] ** 2
        return coef_NM + np.linalg.solve(precision_NMM, score_NM[..., None])[..., 0]

"""Simulation of an update: the loss of recomputing some domains, under sampled laws of the new set (METHOD §3).

For a choice of domains to recompute, and for each sampled law (a *truth*):

    1. A swarm over the choice's blocks is drawn, and its scores are simulated with the old law's noise.
    2. The law that would be fitted to these scores, old runs included, is found by linearised least squares under the
       prior of the coefficients. This *quick fit* knows the form of the truth, its constants, its noise and its prior.
       A real fit knows none of them and has other losses: :mod:`olmix_jax.update.trial_fits`.
    3. The optimal mixture of the fitted law is evaluated under the truth. The loss is its objective minus the optimum
       of the truth.

The objective is that of the proposal: :func:`olmix_jax.propose.formulation.formulate` makes the problem of both.
Guards enter by their multipliers u at the optimum of each truth: they add Σ_f u_f r_f to the task weights. A loss is
then never negative, because the optimum under the guards minimises this sum.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from olmix_jax.laws import Law, evaluate_each, log_linear
from olmix_jax.propose import guard_rounds
from olmix_jax.propose.blocks import Blocks, collapse, collapsed_anchor, collapsed_bounds, expand, form_blocks
from olmix_jax.propose.guards import Guards
from olmix_jax.solver import batch
from olmix_jax.solver.bounds import Bounds
from olmix_jax.solver.objective import mean
from olmix_jax.solver.problem import Problem
from olmix_jax.utils import rng

# Problems in one call of the solver. With one more, the solver would compile another program.
PROBLEMS_PER_CALL = batch.MANY - 1
# Rounds of the method of multipliers for guards, stiffness of the first one, and its factor from round to round.
GUARD_ROUNDS, FIRST_STIFFNESS, STIFFER = 8, 10.0, 4.0
# Lower limit of 1 − D/K, the share of K runs that D weights leave over.
MIN_SPARE = 0.1


@dataclasses.dataclass(frozen=True)
class Setting:
    """Facts about the new domain set before any new run.

    Attributes:
      domains: M names.
      natural_M: p0.
      problem: what a proposal over the new set minimises, and within which bounds; λ > 0. The simulation gives the
        parameters of its law, which is log-linear.
      affected_M: which domains have to be recomputed.
      weights_M: the old mixture on unaffected domains, 0 elsewhere; of any sum.
      noise_N: standard deviation of a run's score that the law does not explain [BPB].
      shared: share of the noise variance that all tasks of a run have in common.
      old_KM: mixtures of old runs, expressed on the new set; K may be 0.
      trust_K: weights of old runs; a new run has weight 1.
      tempered: exponent t; the mixtures of the new swarm are centred on natural^t.
      guards: the proposal's guards, with limits relative to natural; None without.
      units: blocks of domains that every proposal keeps, ``propose.keep_ratios``.
      law: the family that will be fitted to the new runs; None: the quick fit stands for it.
    """

    domains: tuple[str, ...]
    natural_M: np.ndarray
    problem: Problem
    affected_M: np.ndarray
    weights_M: np.ndarray
    noise_N: np.ndarray
    shared: float
    old_KM: np.ndarray
    trust_K: np.ndarray
    tempered: float = 0.7
    guards: Guards | None = None
    units: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    law: Law | None = None

    @property
    def bounds(self) -> Bounds:
        """The bounds of the problem."""
        return self.problem.bounds


@dataclasses.dataclass(frozen=True)
class Choice:
    """Domains to recompute, and the predicted loss.

    Attributes:
      recomputed: names, affected ones first.
      blocks: one block ``kept`` of the domains that keep their ratios, and all others alone.
      proxies: number of new runs.
      loss_S: BPB above the optimum, for each truth.
      quick_loss: mean loss by the quick fit, if ``loss_S`` is that of trial fits [BPB].
    """

    recomputed: tuple[str, ...]
    blocks: Blocks
    proxies: int
    loss_S: np.ndarray
    quick_loss: float | None = None

    @property
    def loss(self) -> float:
        """The predicted loss: the mean over truths [BPB]."""
        return float(self.loss_S.mean())


def blocks_of(setting: Setting, recomputed: Sequence[int]) -> Blocks:
    """Return the blocks of a choice: ``kept`` with the old ratios, recomputed units, and every other domain alone."""
    names = setting.domains
    units = {name: ratios for name, ratios in setting.units.items() if names.index(next(iter(ratios))) in recomputed}
    kept = {names[j]: float(setting.weights_M[j]) for j in range(len(names)) if j not in recomputed}
    kept = {name: weight for name, weight in kept.items() if weight > 0}
    return form_blocks(({"kept": kept} if len(kept) > 1 else {}) | units, names)


class Simulation:
    """Sampled laws (truths), their optima, and the losses of choices under them.

    Attributes:
      setting: the domain set.
      truth: the S laws.
      seed: seed of the swarms and their noise.
      weights_SN: task weights of each truth, with the guards' multipliers.
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
        self.truth, self._runs_for, self.seed = truth, runs_for, seed
        self._top_SN = np.full_like(truth.log_c_N, np.inf) if truth.top_N is None else truth.top_N
        free, problem = blocks_of(setting, range(len(setting.domains))), setting.problem
        weights_SN = np.broadcast_to(problem.weights, truth.log_c_N.shape)
        self.weights_SN = weights_SN
        if setting.guards is not None:
            self.weights_SN = weights_SN + self._multipliers(setting.guards, free) @ setting.guards.rows_FN
        (optimum_SM,) = self.optima([truth.coef_NM], [free])
        self._optimum_S = self._objective(optimum_SM, self.weights_SN)
        natural_M = setting.natural_M
        if not np.isfinite(problem.kl(natural_M[None])).all():
            # The anchor excludes domains. The nearest mixture without them takes the place of natural.
            natural_M = problem.project(natural_M[None])[0]
        natural_SM = np.broadcast_to(natural_M, optimum_SM.shape)
        self.gain_S = self._objective(natural_SM, weights_SN) - self._objective(optimum_SM, weights_SN)
        self._prior_mean_N = truth.coef_NM.mean(axis=(0, 2))
        self._prior_std_N = np.maximum(truth.coef_NM.std(axis=(0, 2)), 1e-3)

    def judge(self, choices: Sequence[tuple[int, ...]]) -> list[Choice]:
        """Predict the loss of each choice. A choice is a tuple of indices of recomputed domains."""
        blocks = [blocks_of(self.setting, choice) for choice in choices]
        runs = [self._runs_for(len(b.names)) if len(b.names) > 1 else 0 for b in blocks]
        mixtures = self.optima([self._refit(b, k) for b, k in zip(blocks, runs)], blocks)
        return [
            Choice(
                recomputed=tuple(self.setting.domains[j] for j in choice),
                blocks=b,
                proxies=k,
                loss_S=self.losses(mixture_SM),
            )
            for choice, b, k, mixture_SM in zip(choices, blocks, runs, mixtures)
        ]

    def losses(self, ratios_SM) -> np.ndarray:
        """Return the loss of a mixture for each truth, or for the first ones if there are fewer mixtures [BPB]."""
        first = slice(len(ratios_SM))
        return self._objective(ratios_SM, self.weights_SN[first]) - self._optimum_S[first]

    def swarm(self, blocks: Blocks, runs: int) -> np.ndarray:
        """Draw the mixtures of a new swarm over the blocks, ratios_KD."""
        draw = rng.generator(self.seed, f"recompute.swarm {runs} {blocks.names}")
        natural_D = collapse(self.setting.natural_M, blocks) ** self.setting.tempered
        return draw.dirichlet(natural_D / natural_D.sum() * len(natural_D), size=runs)

    def optima(
        self, coefs: Sequence[np.ndarray], blocks: Sequence[Blocks], *, weights_S=None, merge: Callable = mean
    ) -> list[np.ndarray]:
        """Return the optimal mixture_SM of each coef_SNM over its blocks.

        All problems are padded to M weights and solved together, so that they share one compiled program.

        Args:
          coefs: coefficients of the laws.
          blocks: of each.
          weights_S: first argument of ``merge`` for each truth; by default task weights, with the guards' multipliers.
          merge: see :class:`olmix_jax.solver.problem.Problem`.
        """
        problem, (samples, _, width) = self.setting.problem, self.truth.coef_NM.shape
        weights_S, rows = self.weights_SN if weights_S is None else weights_S, []
        for coef_SNM, b in zip(coefs, blocks):
            bounds, pad = collapsed_bounds(problem.bounds, b), (0, width - len(b.names))
            coef_SND = np.pad(coef_SNM @ b.ratios_DM.T, ((0, 0), (0, 0), pad))
            params = self.truth._replace(coef_NM=coef_SND)
            anchor_D = np.pad(collapsed_anchor(problem.anchor_M, b), pad, constant_values=1e-9)
            limits = np.pad(bounds.lower_M, pad), np.pad(bounds.upper_M, pad), np.pad(bounds.member_GM, ((0, 0), pad))
            anchor, lower, upper, member = (np.broadcast_to(x, (samples, *x.shape)) for x in (anchor_D, *limits))
            rows.append(batch.Varying(params, weights_S, anchor, lower_M=lower, upper_M=upper, member_GM=member))
        # P problems: all samples of the first blocks, then of the second, and so on.
        problems_P = jax.tree.map(lambda *columns: np.concatenate(columns), *rows)
        number, merged = samples * len(blocks), dataclasses.replace(problem, law=log_linear.LAW, merge=merge)
        solved = [
            _solve(merged, jax.tree.map(lambda x, i=i: x[i : i + PROBLEMS_PER_CALL], problems_P))
            for i in range(0, number, PROBLEMS_PER_CALL)
        ]
        weights_BSD = np.concatenate(solved).reshape(len(blocks), samples, width)
        return [expand(weights_SD[:, : len(b.names)], b) for weights_SD, b in zip(weights_BSD, blocks)]

    def _multipliers(self, guards: Guards, blocks: Blocks) -> np.ndarray:
        """Return multipliers_SF of the guards at the optimum of each truth, by the method of multipliers."""
        truth, rows_FN = self.truth, guards.rows_FN
        samples, groups = len(truth.log_c_N), len(rows_FN)
        natural_SM = np.broadcast_to(self.setting.natural_M, (samples, len(self.setting.domains)))
        limit_SF = self._bpb(natural_SM) @ rows_FN.T + guards.limit_F
        multipliers_SF, stiffness = np.zeros((samples, groups)), FIRST_STIFFNESS
        for _ in range(GUARD_ROUNDS):
            terms = guard_rounds.SmoothedTerms(
                task_weights_N=self.weights_SN,
                rows_FN=np.broadcast_to(rows_FN, (samples, *rows_FN.shape)),
                limit_F=limit_SF,
                unit_F=None,
                multipliers_F=multipliers_SF,
                stiffness=np.full(samples, stiffness),
                sample_weights_S=np.zeros((samples, 0)),
                largest_weight=np.ones(samples),
                softness=np.ones(samples),
            )
            (mixture_SM,) = self.optima([truth.coef_NM], [blocks], weights_S=terms, merge=_smoothed)
            excess_SF = self._bpb(mixture_SM) @ rows_FN.T - limit_SF
            multipliers_SF, stiffness = np.maximum(multipliers_SF + stiffness * excess_SF, 0.0), stiffness * STIFFER
        return multipliers_SF

    def _bpb(self, ratios_SM) -> np.ndarray:
        """Return bpb_SN of each mixture under its truth."""
        truth = jax.tree.map(lambda x: x[: len(ratios_SM)], self.truth)
        return evaluate_each(log_linear.LAW, truth, ratios_SM[:, None, :])[:, 0]

    def _objective(self, ratios_SM, weights_SN) -> np.ndarray:
        """Return the objective of each mixture under its truth [BPB]."""
        problem = self.setting.problem
        return (self._bpb(ratios_SM) * weights_SN).sum(axis=1) + problem.kl_weight * problem.kl(ratios_SM)

    def _refit(self, blocks: Blocks, runs: int) -> np.ndarray:
        """Simulate a new swarm over the blocks; return coef_SNM, fitted to it and to the old runs."""
        if not runs:
            # Without a new swarm the best law is the mean over the samples of the old one.
            return np.broadcast_to(self.truth.coef_NM.mean(axis=0), self.truth.coef_NM.shape)
        setting = self.setting
        ratios_KM = np.concatenate([expand(self.swarm(blocks, runs), blocks), setting.old_KM])
        trust_K = np.concatenate([np.ones(runs), setting.trust_K])
        # Choices with the same number of runs get the same noise.
        draw = rng.generator(self.seed, f"recompute.noise {len(ratios_KM)}")
        # A real fit also estimates scales and noise, from the runs that its weights leave over. As in generalised
        # cross-validation, errors grow by K / (K − D).
        spare = max(1 - len(blocks.names) / trust_K.sum(), MIN_SPARE)
        samples = range(len(self.truth.log_c_N))
        return np.stack([self._refit_one(s, ratios_KM, trust_K, draw, 1 / np.sqrt(spare)) for s in samples])

    def _refit_one(self, s: int, ratios_KM, trust_K, draw: np.random.Generator, inflation: float) -> np.ndarray:
        """Return coef_NM for one truth: the posterior mean of a linearised fit to simulated scores.

        The scores have ``inflation`` times the noise that the fit assumes.
        """
        setting, coef_NM = self.setting, self.truth.coef_NM[s]
        normal = draw.normal(size=(len(ratios_KM), 1)), draw.normal(size=(len(ratios_KM), len(coef_NM)))
        noise_KN = np.sqrt(setting.shared) * normal[0] + np.sqrt(1 - setting.shared) * normal[1]
        # With e, the slope of the score in coef·p, an error of σ in the score is an error of σ / e in coef·p.
        slope_KN = np.exp(np.clip(ratios_KM @ coef_NM.T, -200.0, self._top_SN[s]))  # positive, also squared
        weight_NK = (slope_KN**2 * trust_K[:, None]).T / setting.noise_N[:, None] ** 2
        error_KN = inflation * noise_KN * setting.noise_N / np.sqrt(trust_K)[:, None] / slope_KN
        precision_NMM = np.einsum("nk,km,kj->nmj", weight_NK, ratios_KM, ratios_KM, optimize=True)
        precision_NMM = precision_NMM + np.eye(len(coef_NM.T)) / self._prior_std_N[:, None, None] ** 2
        score_NM = np.einsum("nk,kn,km->nm", weight_NK, error_KN, ratios_KM, optimize=True)
        score_NM = score_NM - (coef_NM - self._prior_mean_N[:, None]) / self._prior_std_N[:, None] ** 2
        return coef_NM + np.linalg.solve(precision_NMM, score_NM[..., None])[..., 0]


def _solve(problem: Problem, varying: batch.Varying) -> np.ndarray:
    """Solve a batch of problems. A small batch is padded with copies, so that all batches share one program."""
    number = len(varying.anchor_M)
    filled = np.arange(max(number, batch.CHUNK)) % number
    solution = batch.solve_each(problem, jax.tree.map(lambda x: x[filled], varying))
    return np.asarray(solution.weights_M)[:number]


def _smoothed(terms: guard_rounds.SmoothedTerms, bpb_N):
    """Return the smoothed objective of a round without samples [BPB]."""
    return guard_rounds.smoothed_value(terms, bpb_N[None])

"""Error bars of a proposal, from samples of the law (bootstrap refits, or draws from its posterior)."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from olmix_jax.laws import cpu, evaluate_each, quality
from olmix_jax.laws import held_out as held_out_runs
from olmix_jax.laws.fitted import FittedLaw
from olmix_jax.laws.held_out import HeldOut, Slope
from olmix_jax.propose.formulation import Formulation
from olmix_jax.propose.proposal_parts import Gain, by_name
from olmix_jax.propose.ranges import Ranges, nearest
from olmix_jax.propose.swarm_facts import SwarmFacts
from olmix_jax.propose.variants import Variants
from olmix_jax.solver import minimise
from olmix_jax.solver.problem import Problem
from olmix_jax.solver.solution import Solution, tolerance
from olmix_jax.swarm import lengths
from olmix_jax.utils import rng
from olmix_jax.utils.progress import counted

# Quantiles at the ends of an interval.
LOW, HIGH = 0.05, 0.95
# A gain that is less probable than this causes a warning.
SURE = 0.9
# A gain or loss below this is rounding [BPB].
EXACT = 1e-9
# Standard deviation of true over predicted gain beyond what samples of the law and held-out runs tell: a law's form is
# never quite that of the truth (synthetic truths of other forms, docs/log.md).
FORM = 0.15
# Folds behind the slope of held-out runs, if the fit has none.
FOLDS = 5
# Number of samples for which the mixture is optimised again, and iterations for each.
RESOLVED, ITERATIONS = 16, 100
# Reasons for missing intervals of the weights.
SEARCH_HAS_NO_OPTIMA = "a search does not compute the optima of the law's samples"
GUARDS_NOT_RESOLVED = "with propose.guard or propose.tail the optima of the law's samples are not computed"


@dataclasses.dataclass(frozen=True)
class ErrorBars:
    """What samples of the law add to a proposal: warnings, and the proposal's fields of the same names."""

    warnings: tuple[str, ...]
    gain: Gain | None = None
    predicted_low: dict[str, float] | None = None
    predicted_high: dict[str, float] | None = None
    weights_std: dict[str, float] | None = None
    weights_low: dict[str, float] | None = None
    weights_high: dict[str, float] | None = None
    no_weight_intervals: str | None = None


def error_bars(
    formulation: Formulation,
    samples,
    solution: Solution,
    *,
    guarded: bool,
    tasks: Sequence[str],
    domains: Sequence[str],
    held_out: Slope | None = None,
    ranges: Ranges | None = None,
    seed: int = 0,
) -> ErrorBars:
    """Return intervals of the gain and the predictions and, if samples of the law have optima, of the weights.

    Args:
      formulation: the problem.
      samples: parameters of the law over domains, with a leading axis.
      solution: over blocks.
      guarded: whether the solution has guards or a tail.
      tasks: N names.
      domains: M names.
      held_out: see :func:`held_out_slope`; None counts as a slope of 1, without error.
      ranges: of the runs; what is predicted beyond them is extrapolated. None if they are not known.
      seed: of the draws of slopes.
    """
    proposed_M = formulation.expand(solution.weights_M)
    bars = prediction_intervals(formulation, samples, proposed_M, tasks, held_out, ranges, seed)
    if solution.residual is None:
        return dataclasses.replace(bars, no_weight_intervals=SEARCH_HAS_NO_OPTIMA)
    if guarded:
        return dataclasses.replace(bars, no_weight_intervals=GUARDS_NOT_RESOLVED)
    if bars.gain is None:
        return bars
    optima = sample_optima(formulation.reduced, formulation.reduced_law.samples, solution.weights_M)
    optima_RM = formulation.expand(optima.ratios_PM)
    warnings = bars.warnings
    if optima.unconverged:
        warnings += (f"the intervals of the weights use {optima.unconverged} optima of samples that did not converge",)
    low_M, high_M = np.quantile(optima_RM, [LOW, HIGH], axis=0)
    return dataclasses.replace(
        bars,
        warnings=warnings,
        weights_std=by_name(domains, optima_RM.std(axis=0)),
        weights_low=by_name(domains, low_M),
        weights_high=by_name(domains, high_M),
    )


def held_out_slope(fitted: FittedLaw, swarm: SwarmFacts, weights_N, seed: int) -> Slope | None:
    """Return how far held-out runs follow the law (:mod:`olmix_jax.laws.held_out`); None if it is not known.

    Without ``swarm.held_out``, a law with a posterior, which is cheap to fit, is cross-validated here.
    """
    held_out, known = swarm.held_out, swarm.ratios_KM is not None and swarm.bpb_KN is not None
    if held_out is None and known and fitted.law.sample is not None:
        number = int(quality.mixtures(np.asarray(swarm.ratios_KM)).max()) + 1
        if number <= fitted.law.parameters(len(swarm.domains)) + FOLDS:
            # Too few runs to judge the law.
            return Slope(*held_out_runs.PRIOR, 3)
        # Refits take the law of cheap runs, if there is one, from the fit to all runs.
        begin, runs = None if fitted.law.base is None else fitted.params, (swarm.ratios_KM, swarm.bpb_KN)
        judged = quality.cross_validate(fitted.law, *runs, folds=FOLDS, seed=seed, lengths=swarm.lengths, begin=begin)
        held_out = HeldOut(np.asarray(swarm.bpb_KN), judged.predicted_KN, judged.fold_K)
    if held_out is not None and swarm.lengths is not None:
        # Differences between lengths are none between mixtures.
        held_out = held_out_runs.within(held_out, lengths.groups(swarm.lengths))
    return None if held_out is None else held_out_runs.slope(held_out, np.abs(weights_N))


def prediction_intervals(
    formulation: Formulation,
    samples,
    proposed_M,
    tasks: Sequence[str],
    held_out: Slope | None = None,
    ranges: Ranges | None = None,
    seed: int = 0,
) -> ErrorBars:
    """Return the gain and the predictions per task with their intervals.

    The gain is Σ_i w_i (f_i(natural) − f_i(proposed)) [BPB], times a draw of the slope of held-out runs: its value
    plus its error (and FORM of the value) times a t-distributed number. The extrapolated part of the gain and of the
    predictions is multiplied by a draw of the slope's prior instead (:mod:`olmix_jax.propose.support`). Samples with
    predictions that are not finite are left out.
    """
    problem, weights_N = formulation.problem, np.abs(formulation.problem.weights)
    points_CM = np.stack([proposed_M, formulation.natural_M])
    within_CM = points_CM if ranges is None else np.stack([nearest(ranges, p_M) for p_M in points_CM])
    bpb_RCN = evaluate_each(problem.law, samples, np.concatenate([points_CM, within_CM]))
    finite_R = np.isfinite(bpb_RCN).all(axis=(1, 2))
    if not finite_R.any():
        return ErrorBars(("no error bars: no sample of the law predicts a finite BPB",))
    within_RCN = bpb_RCN[finite_R, 2:]
    extrapolated_RCN = bpb_RCN[finite_R, :2] - within_RCN
    draw = rng.generator(seed, "propose.held_out_slope")
    slope_R = np.ones(len(within_RCN))
    if held_out is not None:
        t_R = draw.standard_t(held_out.degrees, size=len(slope_R))
        slope_R = held_out.value + np.hypot(held_out.error, FORM * held_out.value) * t_R
    beyond_R = held_out_runs.PRIOR[0] + held_out_runs.PRIOR[1] * draw.normal(size=len(slope_R))
    gain_R = slope_R * ((within_RCN[:, 1] - within_RCN[:, 0]) @ weights_N)
    gain_R = gain_R + beyond_R * ((extrapolated_RCN[:, 1] - extrapolated_RCN[:, 0]) @ weights_N)
    proposed_RN = within_RCN[:, 0] + beyond_R[:, None] * extrapolated_RCN[:, 0]
    low, high = np.quantile(gain_R, [LOW, HIGH])
    low_N, high_N = np.quantile(proposed_RN, [LOW, HIGH], axis=0)
    probability, loss = float((gain_R > EXACT).mean()), float((gain_R < -EXACT).mean())
    return ErrorBars(
        warnings=_gain_warnings(probability, loss, len(gain_R)),
        gain=Gain(
            float(gain_R.mean()),
            float(low),
            float(high),
            probability,
            len(gain_R),
            loss,
            slope=None if held_out is None else held_out.value,
            slope_error=None if held_out is None else held_out.error,
        ),
        predicted_low=by_name(tasks, low_N),
        predicted_high=by_name(tasks, high_N),
    )


def _gain_warnings(probability: float, loss: float, samples: int) -> tuple[str, ...]:
    """Return a sentence if the gain is not sure, given the shares of samples with a gain and with a loss."""
    if probability >= SURE or not loss:
        return ()
    if loss >= SURE:
        return (
            f"the proposal is predicted to be worse than natural in {_share(loss, samples)} of the law: bounds, caps, "
            "guards or the anchor exclude natural, or the law's samples disagree with its mean",
        )
    return (
        f"the gain over natural is uncertain: it is positive in {_share(probability, samples)} of the law; train on "
        "natural, or add runs until they confirm a gain",
    )


def _share(share: float, samples: int) -> str:
    return f"{round(share * samples)} of {counted(samples, 'sample')}"


def sample_optima(problem: Problem, samples, start_M) -> Variants:
    """Return the optimal mixtures for the first RESOLVED samples of the law, started from the proposal.

    Their spread is the uncertainty of the weights. Samples without a finite optimum are left out.
    """
    entropic, optima, unconverged = problem.kl_weight > 0, [], 0
    with cpu.float64():
        for r in range(min(len(jax.tree.leaves(samples)[0]), RESOLVED)):
            params = jax.tree.map(lambda x, r=r: np.asarray(x)[r], samples)
            sampled = dataclasses.replace(problem, params=params).objective
            end = minimise.compiled(sampled, problem.bounds, ITERATIONS, start_M, entropic=entropic)
            if np.isfinite(end.weights_M).all():
                optima.append(np.asarray(end.weights_M))
                unconverged += not float(end.gap) <= tolerance(problem.convex, float(end.value))
    return Variants(np.array(optima or [start_M]), unconverged)

"""How far a mixture lies from the runs of a swarm, where no score tests the law.

Within the runs' ranges are the mixtures of which every weight lies between the smallest and the largest weight of its
domain in the runs. The difference that the law predicts between a mixture and the nearest one within the ranges is
extrapolated. No held-out run says how much of it is real, so in an interval it counts with the prior of the slope of
held-out runs (:mod:`olmix_jax.laws.held_out`): half of it, plus or minus a half.

Most mixtures within the ranges are not averages of runs, above all with many domains. That distance is reported only.
"""

import dataclasses

import numpy as np
from scipy.optimize import linprog

from olmix_jax.propose.next_runs import total_variation
from olmix_jax.propose.ranges import beyond, ranges
from olmix_jax.propose.swarm_facts import SwarmFacts
from olmix_jax.utils.names import listed

# A share of the gain above this causes a warning.
NOTABLE = 0.1
# Weights of natural that are beyond the runs by more than this together cause one too.
NATURAL = 0.02


@dataclasses.dataclass(frozen=True)
class Support:
    """How far the proposal lies from the swarm's runs. Distances are total variations, 0 to 1.

    Attributes:
      beyond: {domain: how far its weight is above the largest (positive) or below the smallest (negative) of any run}.
      natural_beyond: the same for natural.
      nearest_run: distance to the nearest run.
      between_runs: median distance of a run to its nearest other run; None for a single run.
      averages_of_runs: distance to the nearest average of runs.
      extrapolated: predicted differences that are extrapolated, of the proposal and of natural, as a share of the
        predicted gain, at most 1; None without a predicted gain.
      caution: predicted gain that ``propose.trust`` gives up [BPB]; None without it.
    """

    beyond: dict[str, float]
    natural_beyond: dict[str, float]
    nearest_run: float
    between_runs: float | None
    averages_of_runs: float
    extrapolated: float | None
    caution: float | None = None


def hull_distance(ratios_KM, weights_M) -> float:
    """Return min ½ ‖p − Σ_k c_k r_k‖₁ over c on the simplex: the total variation to the nearest average of runs.

    As both mixtures sum to 1, it is the least sum of s_j ≥ max(p_j − Σ_k c_k r_kj, 0), a linear program.
    """
    ratios_KM = np.asarray(ratios_KM)
    runs, domains = ratios_KM.shape
    solved = linprog(
        np.concatenate([np.zeros(runs), np.ones(domains)]),
        A_ub=np.hstack([-ratios_KM.T, -np.eye(domains)]),
        b_ub=-np.asarray(weights_M),
        A_eq=np.concatenate([np.ones(runs), np.zeros(domains)])[None],
        b_eq=[1.0],
    )
    if not solved.success:
        raise ValueError(f"the distance from the averages of runs was not found: {solved.message}")
    return max(float(solved.fun), 0.0)


def support(swarm: SwarmFacts, weights_M, natural_M, gain: float, extrapolated: float) -> Support:
    """Return how far a proposal and natural lie from the runs.

    Args:
      swarm: with runs.
      weights_M, natural_M: the two mixtures.
      gain: predicted gain of the first over the second [BPB].
      extrapolated: how much the predictions of the two differ from those of the nearest mixtures within the ranges of
        the runs, added up without signs [BPB].
    """
    runs_QM = swarm.tested_QM
    assert runs_QM is not None
    of = ranges(runs_QM)
    apart_QQ = total_variation(runs_QM, runs_QM) + np.diag(np.full(len(runs_QM), np.inf))

    def by_domain(p_M) -> dict[str, float]:
        return {name: float(over) for name, over in zip(swarm.domains, beyond(of, p_M)) if over}

    return Support(
        beyond=by_domain(weights_M),
        natural_beyond=by_domain(natural_M),
        nearest_run=float(total_variation(weights_M[None], runs_QM).min()),
        between_runs=float(np.median(apart_QQ.min(axis=1))) if len(runs_QM) > 1 else None,
        averages_of_runs=hull_distance(runs_QM, weights_M),
        extrapolated=min(float(extrapolated) / float(gain), 1.0) if gain > 0 else None,
    )


def warnings(of: Support, weights: dict[str, float], natural: dict[str, float], trust: float | None) -> tuple[str, ...]:
    """Return a sentence if a notable share of the gain is extrapolated, and one if natural lies beyond the runs."""
    texts = []
    advice = "train runs there (propose/next.csv)" + (", or set propose.trust=1" if trust is None else "")
    if of.beyond and of.extrapolated is not None and of.extrapolated > NOTABLE:
        texts.append(
            f"{100 * of.extrapolated:.0f} % of the predicted gain rests on weights that no run had: "
            f"{_named(of.beyond, weights)}; {advice}"
        )
    if sum(map(abs, of.natural_beyond.values())) > NATURAL:
        texts.append(
            "natural lies beyond the runs, so the gain over it is extrapolated: "
            f"{_named(of.natural_beyond, natural)}; add a run with the natural mixture"
        )
    return tuple(texts)


def beyond_runs(swarm: SwarmFacts, weights_M: np.ndarray, natural_M: np.ndarray) -> tuple[str, ...]:
    """Return a warning if a weight is above the natural one and above twice the largest of any run."""
    if swarm.ratios_KM is None:
        return ()
    largest_M = np.asarray(swarm.ratios_KM).max(axis=0)
    beyond = np.flatnonzero(weights_M > np.maximum(2 * largest_M, natural_M) + 1e-6).tolist()
    if not beyond:
        return ()
    texts = [f"{swarm.domains[i]} {weights_M[i]:.3g} (runs: up to {largest_M[i]:.3g})" for i in beyond]
    return (f"extrapolated: weights over twice those of any run, where no score tests the law: {listed(texts, 5)}",)


def _named(over: dict[str, float], weights: dict[str, float]) -> str:
    """Return the domains with their weights and the limits of the runs, those furthest beyond first."""
    texts = []
    for name in sorted(over, key=lambda name: -abs(over[name])):
        limit = f"{'up to' if over[name] > 0 else 'from'} {max(weights[name] - over[name], 0.0):.3g}"
        texts.append(f"{name} {weights[name]:.3g} (runs: {limit})")
    return listed(texts, 5)

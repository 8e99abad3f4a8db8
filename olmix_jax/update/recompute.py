"""Choice of the domains to recompute when the domain set changes, before anything is trained (METHOD §3).

Affected domains have to be recomputed. Unaffected domains that keep their old ratios need no runs, but this loses BPB
if the new domains change which ratios are best. Each further domain that is recomputed needs runs, and for the same
number of runs a law over more weights is less certain. :mod:`olmix_jax.update.simulation` predicts both effects.

Candidates grow one domain at a time, each time by the domain that lowers the loss of a quick fit most. Among them the
choice is made by trial fits of the real law (:mod:`olmix_jax.update.trial_fits`).
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from olmix_jax.laws import log_linear
from olmix_jax.propose.blocks import collapsed_bounds, swarm_size
from olmix_jax.propose.constraints import Constraints
from olmix_jax.propose.feasibility import check_feasible
from olmix_jax.solver.feasibility import feasible
from olmix_jax.update import trial_fits
from olmix_jax.update.simulation import Choice, Setting, Simulation, blocks_of
from olmix_jax.utils import rng

# The cheapest choice is taken whose loss exceeds the smallest by at most this share of the gain over natural.
TOLERANCE = 0.02
# Largest number of domains that are added to a choice.
MAX_ADDED = 6


@dataclasses.dataclass(frozen=True)
class Decision:
    """Which domains to recompute.

    Attributes:
      taken: the choice to take.
      candidates: the choices that were compared: first affected domains alone, then all domains, then grown choices.
      gain_S: gain of the optimum over natural, for each truth [BPB].
    """

    taken: Choice
    candidates: tuple[Choice, ...]
    gain_S: np.ndarray

    @property
    def gain(self) -> float:
        """The predicted gain of the optimum over natural: the mean over truths [BPB]."""
        return float(self.gain_S.mean())


def judge(
    truth: log_linear.Params,
    setting: Setting,
    recomputed: Sequence[str],
    runs_for: Callable[[int], int] = swarm_size,
    *,
    seed: int = 0,
) -> Decision:
    """Predict the loss of a given choice.

    Domains that cannot keep their ratio within the bounds are recomputed too.

    Args:
      truth: sampled laws over the new set (:func:`olmix_jax.update.prior.sample_laws`).
      setting: the domain set.
      recomputed: the domains to recompute.
      runs_for: number of weights → number of new runs.
      seed: seed of the simulated swarms and their noise.

    Raises:
      UserError: the bounds are infeasible.
    """
    check_feasible(Constraints(setting.domains, setting.bounds))
    simulation = Simulation(truth, setting, runs_for, seed)
    choices = simulation.judge([_complete(setting, [setting.domains.index(name) for name in recomputed])])
    (choice,) = trial_fits.judge(simulation, choices)
    return Decision(choice, (choice,), simulation.gain_S)


def choose(
    truth: log_linear.Params,
    setting: Setting,
    runs_for: Callable[[int], int] = swarm_size,
    *,
    budget: float = np.inf,
    seed: int = 0,
) -> Decision:
    """Choose the domains to recompute.

    A choice within the budget is good if its predicted loss exceeds the smallest by at most TOLERANCE times the gain
    over natural. The cheapest good choice is taken. It is judged again on other swarms, because the minimum of noisy
    predictions is too low.

    Args:
      truth: sampled laws over the new set (:func:`olmix_jax.update.prior.sample_laws`).
      setting: the domain set.
      runs_for: number of weights → number of new runs. A constant compares choices at equal runs.
      budget: largest number of new runs. The affected domains alone are always allowed.
      seed: seed of the simulated swarms and their noise.

    Raises:
      UserError: the bounds are infeasible.
    """
    check_feasible(Constraints(setting.domains, setting.bounds))
    simulation = Simulation(truth, setting, runs_for, seed)
    candidates, gain = trial_fits.judge(simulation, _grow(simulation, budget)), float(simulation.gain_S.mean())
    allowed = [choice for choice in candidates if choice.proxies <= budget] or candidates[:1]
    least = min(choice.loss for choice in allowed)
    good = [choice for choice in allowed if choice.loss <= least + TOLERANCE * max(gain, 0.0)]
    best = min(good, key=lambda choice: (choice.proxies, choice.loss))
    fresh = Simulation(truth, setting, runs_for, rng.derive(seed, "recompute.again"))
    again = fresh.judge([tuple(setting.domains.index(name) for name in best.recomputed)])
    (taken,) = trial_fits.judge(fresh, again)
    return Decision(taken, tuple(candidates), simulation.gain_S)


def _grow(simulation: Simulation, budget: float) -> list[Choice]:
    """Return the affected domains alone, all domains, and choices that grow from the first while the loss falls."""
    setting = simulation.setting
    chain = _complete(setting, list(np.flatnonzero(setting.affected_M)))
    free = [j for j in range(len(setting.domains)) if j not in chain]
    candidates = simulation.judge([chain, tuple(range(len(setting.domains)))])
    best = candidates[0]
    # A block needs two domains: with fewer than two left, the choice would be all domains.
    for _ in range(min(MAX_ADDED, len(free) - 2)):
        options = dict.fromkeys(_complete(setting, [*chain, j]) for j in free if j not in chain)
        step = min(simulation.judge([*options]), key=lambda choice: choice.loss, default=best)
        if step.loss >= best.loss or step.proxies > budget:
            break
        best, chain = step, tuple(setting.domains.index(name) for name in step.recomputed)
        candidates.append(step)
    return candidates


def _complete(setting: Setting, chain: list[int]) -> tuple[int, ...]:
    """Return ``chain`` and all domains that cannot keep their ratio.

    Four kinds of domains leave the kept block: unaffected domains without weight in the old mixture; members of a
    bounded group, if the block also has domains outside that group; units that are recomputed in part or had other
    ratios; and the domains with the tightest bounds, if the bounds are infeasible for the block.
    """
    absent_M = ~setting.affected_M & (setting.weights_M <= 0)
    chain = list(dict.fromkeys([*chain, *np.flatnonzero(absent_M).tolist()]))
    while True:
        chain = list(dict.fromkeys([*chain, *_broken_units(setting, chain)]))
        blocks = blocks_of(setting, chain)
        ratios_M = blocks.ratios_DM[0]
        if blocks.names[0] != "kept":
            return tuple(chain)
        in_GM = np.asarray(setting.bounds.member_GM, bool) & (ratios_M > 0)
        partly_G = in_GM.any(axis=1) & (in_GM.sum(axis=1) < (ratios_M > 0).sum())
        if partly_G.any():
            chain += np.flatnonzero(in_GM[partly_G.argmax()]).tolist()
            continue
        bounds_D = collapsed_bounds(setting.bounds, blocks)
        if feasible(bounds_D):
            return tuple(chain)
        with np.errstate(divide="ignore", invalid="ignore"):
            largest_M = np.where(ratios_M > 0, setting.bounds.upper_M / ratios_M, np.inf)
            smallest_M = np.where(ratios_M > 0, setting.bounds.lower_M / ratios_M, 0.0)
        # Either the lower bounds sum to more than 1, or the tightest cap leaves the block too little.
        chain.append(int(smallest_M.argmax() if bounds_D.lower_M.sum() > 1 else largest_M.argmin()))


def _broken_units(setting: Setting, chain: Sequence[int]) -> list[int]:
    """Return the domains of units that cannot be part of the kept block."""
    broken = []
    for ratios in setting.units.values():
        members = [setting.domains.index(name) for name in ratios]
        share_U = setting.weights_M[members] / np.array([*ratios.values()], np.float64)
        if any(j in chain for j in members) or np.ptp(share_U) > 1e-6 * share_U.max():
            broken += members
    return broken

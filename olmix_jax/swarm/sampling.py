"""Sample the mixtures of a swarm, on the grid of mixtures that a run can train exactly.

A run trains on ``total`` sequences, so its mixture is a vector of counts over ``total``. Mixtures are sampled on that
grid, and laws are fitted to ``counts_KM / total``: exactly the mixtures that the runs were trained on.
"""

import numpy as np

from olmix_jax.swarm.apportion import SLACK, snap
from olmix_jax.utils import rng
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.names import listed
from olmix_jax.utils.progress import counted

# Candidates drawn for one member before sampling fails.
_TRIES = 2000
# The prior of the draw is natural^_TEMPER (METHOD §4: the paper's swarm over sources).
_TEMPER = 0.7
_MIN_WEIGHT = {"sparse": 0.02, "dense": 1e-4}
# Over many domains a sparse swarm's default is this multiple of the mean weight 1/M: above it, nearly all weights of a
# draw are too small.
_MEAN_WEIGHTS = 4.0


def sample(
    natural_M: np.ndarray,
    size: int,
    total: int,
    *,
    names: tuple[str, ...],
    sparsity: str = "sparse",
    strength: tuple[float, float] = (0.1, 1.0),
    min_weight: float | None = None,
    min_distance: float = 0.02,
    min_runs: int = 4,
    earlier_runs: int = 0,
    seed: int = 0,
) -> np.ndarray:
    """Draw the mixtures of a swarm. Member 0 is the natural mixture; :class:`_Draw` describes how the others are drawn.

    Args:
      natural_M: natural distribution p0, positive, normalised here, in the order of ``names``.
      size: K, at least M + 2; the paper recommends 3(M + 1).
      total: sequences per run.
      names: the M domains, in column order.
      sparsity: "sparse" (small weights become 0) or "dense" (small weights are raised).
      strength: range (low, high) of the Dirichlet strength s, 0 < low ≤ high.
      min_weight: minimum weight; None for :func:`default_min_weight`, but at least one sequence.
      min_distance: smallest total variation, ½‖p − p′‖₁, between two members.
      min_runs: smallest number of members that sample each domain.
      earlier_runs: number of earlier runs that the law is fitted to as well; ``size`` may be smaller by this number.
      seed: seed of the draw; equal arguments give equal swarms.

    Returns:
      counts_KM, int64, columns in the order of ``names``. The mixtures are ``counts_KM / total``.

    Raises:
      UserError: no swarm meets the request; the message names the config field to change.
    """
    natural_M = np.asarray(natural_M, np.float64)
    natural_counts_M = snap(natural_M, total)
    natural_M = natural_M / natural_M.sum()
    _check_request(natural_M, size, earlier_runs, min_runs, names, strength)
    minimum = least_weight(len(names), total, sparsity, min_weight)
    draw = _Draw(natural_M, total, sparsity == "sparse", strength, minimum, rng.generator(seed, "swarm"))
    swarm_KM = np.empty((size, len(names)), np.int64)
    swarm_KM[0], sampled_M = natural_counts_M, draw.sampled(natural_counts_M).astype(int)
    for k in range(1, size):
        forced = _domains_to_force(min_runs - sampled_M, size - k)
        counts_M = draw.next_candidate(swarm_KM[:k], forced, min_distance)
        if counts_M is None:
            raise UserError(
                f"no mixture found for member {k} of {size} in {_TRIES} draws: lower `swarm.min_distance` "
                f"({min_distance}), `swarm.min_weight` ({minimum:.6g}) or `swarm.min_runs` ({min_runs}); the mixture "
                f"must not be a near-duplicate and must contain {listed([names[j] for j in forced]) or 'any domain'}"
            )
        swarm_KM[k], sampled_M = counts_M, sampled_M + draw.sampled(counts_M)
    return swarm_KM


def check(
    natural_M: np.ndarray,
    size: int,
    total: int,
    *,
    names: tuple[str, ...],
    sparsity: str,
    strength: tuple[float, float],
    min_weight: float | None,
    min_runs: int,
    earlier_runs: int,
    **_,
) -> None:
    """Raise the errors of :func:`sample` that need no draw. The arguments are those of :func:`sample`."""
    snap(natural_M, total)
    _check_request(np.asarray(natural_M), size, earlier_runs, min_runs, names, strength)
    least_weight(len(names), total, sparsity, min_weight)


def least_weight(domains: int, total: int, sparsity: str, min_weight: float | None) -> float:
    """Return the minimum weight of a swarm, in whole sequences.

    Raises:
      UserError: it is less than one sequence, or too large for a mixture.
    """
    minimum = max(default_min_weight(sparsity, domains), 1 / total) if min_weight is None else min_weight
    return _whole(minimum, total, 1.0 if sparsity == "sparse" else 1 / domains)


def default_min_weight(sparsity: str, domains: int) -> float:
    """Return the minimum weight: 1e-4 if dense; if sparse 0.02, or 4/M if that is smaller."""
    minimum = _MIN_WEIGHT[sparsity]
    return min(minimum, _MEAN_WEIGHTS / domains) if sparsity == "sparse" else minimum


def _domains_to_force(lack_M: np.ndarray, runs_left: int) -> np.ndarray:
    """Return the domains that the next run must sample: those that lack the most runs, ⌈Σ lack / runs left⌉ of them."""
    lack_M = np.maximum(lack_M, 0)
    return np.argsort(-lack_M, kind="stable")[: -(-int(lack_M.sum()) // runs_left)]


def _check_request(natural_M, size: int, earlier_runs: int, min_runs: int, names, strength) -> None:
    if len(names) != len(natural_M) or not natural_M.all():
        raise UserError(f"natural distribution {natural_M.tolist()} must give every domain a positive weight: {names}")
    if len(names) < 2:
        raise UserError(f"one domain, {', '.join(names)}, has only one mixture: give at least two domains")
    if size + earlier_runs < len(names) + 2:
        besides = f" besides {earlier_runs} earlier runs" if earlier_runs else ""
        raise UserError(
            f"config field `swarm.size` is {size}{besides}, but a law over {len(names)} domains needs at least "
            f"{len(names) + 2} runs, better {3 * (len(names) + 1)}"
        )
    if not 0 < strength[0] <= strength[1] < np.inf:
        raise UserError(f"config field `swarm.strength` must be (low, high) with 0 < low ≤ high, not {strength}")
    if min_runs > size:
        raise UserError(
            f"config field `swarm.min_runs` is {min_runs}, more than the {size} runs of the swarm; lower it"
        )


def _whole(minimum: float, total: int, most: float) -> float:
    """Return the minimum weight rounded up to whole sequences, so that no realised weight falls below it."""
    if 1 / total > most - 1e-9:
        raise UserError(
            f"runs of {counted(total, 'sequence')} are too short for a dense swarm of these domains; raise train.steps "
            "or train.batch"
        )
    if minimum * total < 1 - SLACK:
        raise UserError(
            f"config field `swarm.min_weight` is {minimum}, less than one of {total} sequences, so a domain with the "
            f"minimum weight would get none; raise it to {1 / total:.3g} or train for more steps"
        )
    whole = float(np.ceil(minimum * total - SLACK)) / total
    if whole > most - 1e-9:
        raise UserError(
            f"config field `swarm.min_weight` is {minimum}: it must be below {most:.6g}; lower it or train longer"
        )
    return whole


class _Draw:
    """Draws candidate mixtures one at a time.

    A candidate is Dirichlet(s·M·q) with s log-uniform over ``strength`` and the prior q_j ∝ natural_j^0.7 (METHOD §4:
    strength × prior, with a tempered prior over sources). Tempering gives small domains weights large enough to learn
    their effect. The factor M makes a strength mean the same for any number of domains: s is the mean concentration
    per domain, low values give mixtures near the corners, high values near q. (The published strengths of 0.1–5 are
    without M: Σw² of that swarm is 0.51, a total concentration of about 1.)

    Sparse: weights below the minimum become 0 and the rest is renormalised. Dense: they are raised to the minimum and
    the rest is scaled down. A candidate is drawn again if every weight is below the minimum, or if it is nearer than
    ``min_distance`` in total variation to an earlier member.

    A run *samples* a domain if it gives the domain at least the minimum weight and half the natural weight. While
    some domains are sampled by fewer than ``min_runs`` members, candidates come from Dirichlet(s·M·q + e_F), where F
    are the domains that lack the most runs. This is the same distribution, conditioned on one drawn sequence of each.
    """

    def __init__(self, natural_M, total: int, sparse: bool, strength, minimum: float, random: np.random.Generator):
        self.total, self.sparse, self.strength, self.minimum, self.random = total, sparse, strength, minimum, random
        tempered_M = natural_M**_TEMPER
        self.alpha_M = len(natural_M) * tempered_M / tempered_M.sum()
        adjusted_M = self._above_minimum(natural_M)
        half_M = np.zeros_like(natural_M) if adjusted_M is None else adjusted_M / 2
        self.least_M = np.floor(np.maximum(minimum, half_M) * total + SLACK)

    def sampled(self, counts: np.ndarray) -> np.ndarray:
        """Return which domains (last axis) the mixtures sample: at least the minimum and half the natural weight."""
        return counts >= self.least_M

    def next_candidate(self, swarm_KM: np.ndarray, forced: np.ndarray, min_distance: float) -> np.ndarray | None:
        """Return a candidate that samples the ``forced`` domains and is not a near-duplicate; None after many draws."""
        for _ in range(_TRIES):
            counts_M = self._candidate(forced)
            if counts_M is not None and self.sampled(counts_M)[forced].all():
                if min_distance <= 0:
                    return counts_M
                distance_K = np.abs(swarm_KM - counts_M).sum(axis=1) / (2 * self.total)
                if not (distance_K < min_distance).any():
                    return counts_M
        return None

    def _candidate(self, forced: np.ndarray) -> np.ndarray | None:
        """Return counts_M, with 1 added to the concentrations of ``forced``; None if every weight is too small."""
        strength = np.exp(self.random.uniform(*np.log(self.strength)))
        alpha_M = strength * self.alpha_M
        alpha_M[forced] += 1
        weights_M = self._above_minimum(self.random.dirichlet(alpha_M))
        return None if weights_M is None else snap(weights_M, self.total)

    def _above_minimum(self, weights_M: np.ndarray) -> np.ndarray | None:
        """Return ``weights_M`` changed to respect the minimum weight; None if every weight is below it."""
        low_M = weights_M < self.minimum
        if not np.isfinite(weights_M).all() or low_M.all():
            return None
        if self.sparse:
            return np.where(low_M, 0, weights_M)
        # Scaling down may push further weights below the minimum; each pass raises at least one more.
        while (low_M & (weights_M != self.minimum)).any():
            rest = weights_M[~low_M].sum()
            weights_M = np.where(low_M, self.minimum, weights_M * (1 - low_M.sum() * self.minimum) / rest)
            low_M |= weights_M < self.minimum
        return weights_M

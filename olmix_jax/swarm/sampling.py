"""The swarm: which mixtures are tried, on the grid of what a run can train exactly.

A run trains on ``total`` sequences, so its mixture is a vector of counts over ``total``. Mixtures are sampled on that
grid and everything after this module (tables, laws) sees ``counts_KM / total``: what was trained is what is regressed
on. Nothing is left to a loader's rounding.
"""

import numpy as np

from olmix_jax.swarm.apportion import SLACK, realise, snap
from olmix_jax.utils import rng
from olmix_jax.utils.errors import UserError

__all__ = ["realise", "sample", "sampled_report", "snap"]

# Candidates drawn for one member before the request is declared impossible.
_TRIES = 2000
# The prior of the draw is natural^_TEMPER: METHOD §4, the paper's swarm over sources.
_TEMPER = 0.7
_MIN_WEIGHT = {"sparse": 0.02, "dense": 1e-4}


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
    known: int = 0,
    seed: int = 0,
) -> np.ndarray:
    """Draws the mixtures of a swarm, on the grid of ``total`` sequences. Member 0 is the natural mixture itself.

    The others are Dirichlet(s·M·q) with s log-uniform over ``strength`` and the prior q_j ∝ natural_j^0.7 (METHOD §4:
    strength × prior, the prior over sources tempered), so that small domains get weights that tell something. Times M,
    so that a strength means the same at any number of domains: s is the mean concentration of a domain, low values
    give mixtures near the corners, high values near q. (The published strengths of 0.1–5 are without M: Σw² of that
    swarm is 0.51, a total concentration of about 1.) Sparse: entries under the minimum weight become 0 and the rest is
    renormalised; dense: they are raised to it and the rest is scaled down. A candidate with every weight under the
    minimum, or nearer than ``min_distance`` in total variation to any member so far, is drawn again.

    A domain is *seen* by a run that gives it the minimum weight and half its natural one. While some are seen by fewer
    than ``min_runs`` members, candidates come from Dirichlet(s·M·q + e_F), F being the domains furthest behind: the
    same distribution, given that a sequence of each was drawn.

    Args:
      natural_M: natural distribution p0, positive, normalised here, in the order of ``names``.
      size: K, at least M + 2; the paper recommends 3(M + 1).
      total: sequences per run.
      names: the M domains, in column order.
      sparsity: "sparse" or "dense".
      strength: range (low, high) of s, 0 < low ≤ high.
      min_weight: the minimum; None: 0.02 if sparse and 1e-4 if dense, but one sequence at least.
      min_distance: least total variation, ½‖p − p′‖₁, of two members.
      min_runs: members that each domain is seen by, at least.
      known: runs there are already that the law will learn from as well; so many fewer will do.
      seed: of the draw; equal arguments give equal swarms.

    Returns:
      counts_KM, int64; ratios are ``counts_KM / total``. Columns are in the order of ``names``.

    Raises:
      UserError: there is no such swarm; the message names the config's field to change.
    """
    natural_M = np.asarray(natural_M, np.float64)
    counts_M = snap(natural_M, total)
    natural_M = natural_M / natural_M.sum()
    minimum = max(_MIN_WEIGHT[sparsity], 1 / total) if min_weight is None else min_weight
    _check_request(natural_M, size + known, names, strength)
    if min_runs > size:
        raise UserError(f"config field `swarm.min_runs` is {min_runs}, more than the {size} runs of the swarm")
    minimum = _whole(minimum, total, 1.0 if sparsity == "sparse" else 1 / len(names))
    draw = _Draw(natural_M, total, sparsity == "sparse", strength, minimum, rng.generator(seed, "swarm"))
    swarm_KM = counts_M[None]
    while len(swarm_KM) < size:
        forced = _furthest_behind(min_runs - draw.seen(swarm_KM).sum(axis=0), size - len(swarm_KM))
        counts_M = draw.another(swarm_KM, forced, min_distance)
        if counts_M is None:
            raise UserError(
                f"no mixture for member {len(swarm_KM)} of {size} in {_TRIES} draws: lower `swarm.min_distance` "
                f"({min_distance}), `swarm.min_weight` ({minimum:.6g}) or `swarm.min_runs` ({min_runs}); it had to be "
                f"no near-duplicate and to contain {', '.join(names[j] for j in forced) or 'any domain'}"
            )
        swarm_KM = np.vstack([swarm_KM, counts_M])
    return swarm_KM


def _furthest_behind(lack_M: np.ndarray, runs_left: int) -> np.ndarray:
    """Domains that lack the most runs, as many of them as it takes to be done in the runs that are left."""
    lack_M = np.maximum(lack_M, 0)
    return np.argsort(-lack_M, kind="stable")[: -(-int(lack_M.sum()) // runs_left)]


def _check_request(natural_M, size, names, strength) -> None:
    if len(names) != len(natural_M) or not natural_M.all():
        raise UserError(f"natural distribution {natural_M.tolist()} must give every domain a positive weight: {names}")
    if len(names) < 2:
        raise UserError(f"one domain, {', '.join(names)}, has only one mixture: give two domains at least")
    if size < len(names) + 2:
        raise UserError(
            f"config field `swarm.size` is {size}: the law over {len(names)} domains needs at least {len(names) + 2} "
            f"runs, better {3 * (len(names) + 1)}"
        )
    if not 0 < strength[0] <= strength[1] < np.inf:
        raise UserError(f"config field `swarm.strength` must be (low, high) with 0 < low ≤ high, not {strength}")


def _whole(minimum: float, total: int, most: float) -> float:
    """The minimum weight, raised to whole sequences so that nothing falls under it when it is realised."""
    if minimum * total < 1 - SLACK:
        raise UserError(
            f"config field `swarm.min_weight` is {minimum}: of {total} sequences that is less than one, so a domain at "
            f"its minimum would get none; raise it to {1 / total:.3g} or train for more steps"
        )
    whole = float(np.ceil(minimum * total - SLACK)) / total
    if whole > most - 1e-9:
        raise UserError(
            f"config field `swarm.min_weight` is {minimum}: it must stay under {most:.6g}; lower it or train longer"
        )
    return whole


class _Draw:
    """Draws one candidate mixture at a time, and says which domains a mixture shows."""

    def __init__(self, natural_M, total: int, sparse: bool, strength, minimum: float, random: np.random.Generator):
        self.total, self.sparse, self.strength, self.minimum, self.random = total, sparse, strength, minimum, random
        tempered_M = natural_M**_TEMPER
        self.alpha_M = len(natural_M) * tempered_M / tempered_M.sum()
        shown_M = self._above_minimum(natural_M)
        half_M = np.zeros_like(natural_M) if shown_M is None else shown_M / 2
        self.least_M = np.floor(np.maximum(minimum, half_M) * total + SLACK)

    def seen(self, counts: np.ndarray) -> np.ndarray:
        """Which domains (last axis) are there with the minimum weight and half the natural one."""
        return counts >= self.least_M

    def another(self, swarm_KM: np.ndarray, forced: np.ndarray, min_distance: float) -> np.ndarray | None:
        """A candidate that shows the ``forced`` domains and is nobody's near-duplicate; None: none in many draws."""
        for _ in range(_TRIES):
            counts_M = self._candidate(forced)
            if counts_M is not None and self.seen(counts_M)[forced].all():
                distance_K = np.abs(swarm_KM - counts_M).sum(axis=1) / (2 * self.total)
                if not (distance_K < min_distance).any():
                    return counts_M
        return None

    def _candidate(self, forced: np.ndarray) -> np.ndarray | None:
        """One candidate counts_M, with one added to the concentration of the ``forced``; None: all too small."""
        strength = np.exp(self.random.uniform(*np.log(self.strength)))
        alpha_M = strength * self.alpha_M
        alpha_M[forced] += 1
        weights_M = self._above_minimum(self.random.dirichlet(alpha_M))
        return None if weights_M is None else snap(weights_M, self.total)

    def _above_minimum(self, weights_M: np.ndarray) -> np.ndarray | None:
        """``weights_M`` with the minimum weight respected; None if that is impossible."""
        low_M = weights_M < self.minimum
        if not np.isfinite(weights_M).all() or low_M.all():
            return None
        if self.sparse:
            return np.where(low_M, 0, weights_M)
        # Scaling the others down may push some of them under the minimum in turn; each pass raises at least one.
        while (low_M & (weights_M != self.minimum)).any():
            rest = weights_M[~low_M].sum()
            weights_M = np.where(low_M, self.minimum, weights_M * (1 - low_M.sum() * self.minimum) / rest)
            low_M |= weights_M < self.minimum
        return weights_M


def sampled_report(counts_KM: np.ndarray, names: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Per domain: ``runs`` that contain it, and the ``min``, ``mean`` and ``max`` of its weight over the members."""
    ratios_KM = counts_KM / counts_KM.sum(axis=1, keepdims=True)
    columns = {"runs": (counts_KM > 0).sum(axis=0), "min": ratios_KM.min(axis=0)}
    columns |= {"mean": ratios_KM.mean(axis=0), "max": ratios_KM.max(axis=0)}
    return {name: {what: values[j].item() for what, values in columns.items()} for j, name in enumerate(names)}

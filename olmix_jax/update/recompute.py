"""Which domains to recompute when the domain set changes, decided before anything is trained (METHOD §3).

Affected domains have to be recomputed. Of the unaffected ones, those that keep their old relative ratios cost nothing
to know, and a loss where new domains change what is best among them; every one that is recomputed costs runs, and a
law over more weights is less sure for the same runs. Both are played through:

    1. Laws that may be true of the new set are drawn: the old swarm's law as log-linear ones, one per sample, with a
       coefficient for every domain that it cannot know (:mod:`olmix_jax.update.prior`).
    2. For a choice of what to recompute, a swarm is drawn, its scores simulated with the old law's noise, and the law
       that would be fitted to them, old runs included, is found by linearised least squares under the coefficients'
       prior (:func:`_refitted`).
    3. The mixture that this law leads to is judged by the truth. What it loses against the truth's own optimum, on
       average over the truths, is the predicted loss of the choice.

Choices are grown one domain at a time, always by the one that lowers the predicted loss most.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from olmix_jax.laws import log_linear
from olmix_jax.propose import blocks as reuse
from olmix_jax.propose.feasibility import check_feasible
from olmix_jax.solver import batch
from olmix_jax.solver.bounds import Bounds
from olmix_jax.solver.feasibility import feasible
from olmix_jax.solver.problem import Problem
from olmix_jax.utils import rng

# The cheapest choice whose loss is within this share of the gain over natural of the least loss.
WORTH = 0.02
# Problems in one call of the solver, fewer than it would compile another program for.
AT_ONCE = batch.MANY - 1
# Domains added to a choice at most.
LONGEST = 6
# Share of the runs that weights leave over, at least.
SPARE = 0.1


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is known of the new set before any run of it.

    Attributes:
      domains: M names.
      natural_M: p0.
      bounds: where mixtures may be: repetition caps, and what else the config says.
      kl_weight: λ > 0 [BPB per nat].
      task_weights_N: w, of sum 1.
      affected_M: which domains have to be recomputed.
      weights_M: the old mixture where it is unaffected, else 0; of any sum.
      noise_N: standard deviation of a run's score that the law does not explain [BPB].
      shared: share of its variance that tasks of a run have in common.
      old_KM: old runs expressed on the new set; K may be 0.
      trust_K: their weights, 1 for a run like the new ones.
      tempered: power of natural that a new swarm's mixtures are centred on.
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
    """Some domains to recompute, and what that is predicted to cost.

    Attributes:
      recomputed: names, affected ones first.
      blocks: the domains that keep their ratios as one block (``kept``), and the others.
      proxies: runs that it takes.
      loss_S: BPB that its mixture would be above the optimum, for each truth.
    """

    recomputed: tuple[str, ...]
    blocks: reuse.Blocks
    proxies: int
    loss_S: np.ndarray

    @property
    def loss(self) -> float:
        """The predicted loss [BPB]."""
        return float(self.loss_S.mean())


def choose(
    truth: log_linear.Params,
    setting: Setting,
    size: Callable[[int], int] = reuse.proxies,
    *,
    only: Sequence[str] | None = None,
    budget: float = np.inf,
    seed: int = 0,
) -> tuple[Choice, list[Choice], dict]:
    """The choice to take, all that were looked at, and the gain that there is to lose from.

    Args:
      truth: samples of the law over the new set (:func:`olmix_jax.update.prior.truths`).
      setting: what is known.
      size: runs for a swarm over so many weights; a constant to compare choices at equal runs.
      only: the domains to recompute, where that is decided already; nothing is chosen, but what cannot be kept for its
        bounds is recomputed too.
      budget: runs at most; if even those for the affected domains alone are more, these are taken.
      seed: of simulated swarms and their noise.

    Returns:
      Of the choices within the budget the cheapest whose predicted loss is within WORTH of the gain of their least,
      judged once more on swarms of its own, as the least of many figures is too good; all choices in the order in which
      they were tried; and ``{"gain", "low", "high"}`` of the full optimum over natural [BPB].

    Raises:
      UserError: no mixture is within the bounds.
    """
    check_feasible(setting.bounds, setting.domains)
    play = _Play(truth, setting, size, seed)
    gain = dict(zip(("gain", "low", "high"), (play.gain_S.mean(), *np.quantile(play.gain_S, [0.05, 0.95]))))
    gain = {name: float(value) for name, value in gain.items()}
    if only is not None:
        (taken,) = play.judged([_possible(setting, [setting.domains.index(name) for name in only])])
        return taken, [taken], gain
    found = _grown(play, budget)
    within = [choice for choice in found if choice.proxies <= budget] or found[:1]
    least = min(choice.loss for choice in within)
    good = [choice for choice in within if choice.loss <= least + WORTH * max(gain["gain"], 0.0)]
    taken = min(good, key=lambda choice: (choice.proxies, choice.loss))
    again = _Play(truth, setting, size, rng.derive(seed, "recompute.again"))
    (taken,) = again.judged([tuple(setting.domains.index(name) for name in taken.recomputed)])
    return taken, found, gain


def _grown(play: "_Play", budget: float) -> list[Choice]:
    """Affected domains alone, all domains, and what grows from the first by one domain at a time while that pays."""
    setting = play.setting
    chain = _possible(setting, list(np.flatnonzero(setting.affected_M)))
    free = [j for j in range(len(setting.domains)) if j not in chain]
    found = play.judged([chain, tuple(range(len(setting.domains)))])
    best = found[0]
    # A block of one is no block: to leave out but one is to leave out none.
    for _ in range(min(LONGEST, len(free) - 2)):
        tried = dict.fromkeys(_possible(setting, [*chain, j]) for j in free if j not in chain)
        step = min(play.judged([*tried]), key=lambda choice: choice.loss, default=best)
        if step.loss >= best.loss or step.proxies > budget:
            break
        best, chain = step, tuple(setting.domains.index(name) for name in step.recomputed)
        found.append(step)
    return found


def _possible(setting: Setting, chain: list[int]) -> tuple[int, ...]:
    """``chain`` with those domains that cannot keep their ratio.

    Nothing of them is in the old mixture; or a group of the bounds has them and not all of the kept block; or the
    bounds would leave that block no room, and theirs are the tightest.
    """
    alone_M = ~setting.affected_M & (setting.weights_M <= 0)
    chain = list(dict.fromkeys([*chain, *np.flatnonzero(alone_M).tolist()]))
    while True:
        blocks = blocks_of(setting, chain)
        ratios_M = blocks.ratios_DM[0]
        if blocks.names[0] != "kept":
            return tuple(chain)
        in_GM = np.asarray(setting.bounds.member_GM, bool) & (ratios_M > 0)
        partly_G = in_GM.any(axis=1) & (in_GM.sum(axis=1) < (ratios_M > 0).sum())
        if partly_G.any():
            chain += np.flatnonzero(in_GM[partly_G.argmax()]).tolist()
            continue
        inside = reuse.collapsed_bounds(setting.bounds, blocks)
        if feasible(inside):
            return tuple(chain)
        with np.errstate(divide="ignore", invalid="ignore"):
            room_M = np.where(ratios_M > 0, setting.bounds.upper_M / ratios_M, np.inf)
            need_M = np.where(ratios_M > 0, setting.bounds.lower_M / ratios_M, 0.0)
        # Which bound is at fault: a least weight that asks for more than there is, or else the tightest cap.
        chain.append(int(need_M.argmax() if inside.lower_M.sum() > 1 else room_M.argmin()))


def blocks_of(setting: Setting, recomputed: Sequence[int]) -> reuse.Blocks:
    """The unaffected domains that are not recomputed as the block ``kept``, in their old ratios; the rest alone."""
    names = setting.domains
    kept = {names[j]: float(setting.weights_M[j]) for j in range(len(names)) if j not in recomputed}
    kept = {name: weight for name, weight in kept.items() if weight > 0}
    return reuse.blocks({"kept": kept} if len(kept) > 1 else {}, names)


class _Play:
    """Truths, their optima, and what choices lose against them."""

    def __init__(self, truth: log_linear.Params, setting: Setting, size, seed: int):
        self.truth, self.setting, self.size, self.seed = truth, setting, size, seed
        whole = reuse.blocks({}, setting.domains)
        self.best_S = self._values(self._solved([truth.coef_NM], [whole])[0])
        self.gain_S = self._values(np.broadcast_to(setting.natural_M, (len(truth.log_c_N), len(whole.names))))
        self.gain_S = self.gain_S - self.best_S
        spread_N = truth.coef_NM.std(axis=(0, 2))
        self.prior = truth.coef_NM.mean(axis=(0, 2)), np.maximum(spread_N, 1e-3)

    def judged(self, choices: list[tuple[int, ...]]) -> list[Choice]:
        """What each loses; one call of the solver for all."""
        setting, result = self.setting, []
        blocks = [blocks_of(setting, choice) for choice in choices]
        sizes = [self.size(len(b.names)) if len(b.names) > 1 else 0 for b in blocks]
        laws = [self._refitted(b, k) for b, k in zip(blocks, sizes)]
        mixtures = self._solved(laws, blocks)
        for choice, b, proxies, mixture_SM in zip(choices, blocks, sizes, mixtures):
            result.append(
                Choice(tuple(setting.domains[j] for j in choice), b, proxies, self._values(mixture_SM) - self.best_S)
            )
        return result

    def _values(self, ratios_SM) -> np.ndarray:
        """The true objective of a mixture for each truth [BPB]."""
        t, s = self.truth, self.setting
        bpb_SN = np.exp(t.log_c_N) + np.exp(np.einsum("snm,sm->sn", t.coef_NM, ratios_SM))
        with np.errstate(divide="ignore", invalid="ignore"):
            terms_SM = np.where(ratios_SM > 0, ratios_SM * np.log(ratios_SM / s.natural_M), 0.0)
        return bpb_SN @ s.task_weights_N + s.kl_weight * terms_SM.sum(axis=1)

    def _solved(self, coefs: list[np.ndarray], blocks: list[reuse.Blocks]) -> list[np.ndarray]:
        """The optimal mixture_SM of each law over each kind of blocks, padded to M weights so that one program does."""
        setting, (samples, _, width) = self.setting, self.truth.coef_NM.shape
        rows = []
        for coef_SNM, b in zip(coefs, blocks):
            inside, pad = reuse.collapsed_bounds(setting.bounds, b), (0, width - len(b.names))
            coef_SND = np.pad(coef_SNM @ b.ratios_DM.T, ((0, 0), (0, 0), pad))
            anchor_D = np.pad(reuse.collapsed_anchor(setting.natural_M, b), pad, constant_values=1e-9)
            own = anchor_D, np.pad(inside.lower_M, pad), np.pad(inside.upper_M, pad)
            own += (np.pad(inside.member_GM, ((0, 0), pad)),)
            rows.append((coef_SND, *(np.broadcast_to(x, (samples, *x.shape)) for x in own)))
        all_P = [np.concatenate(part) for part in zip(*rows)]
        parts = [self._optima(*(x[at : at + AT_ONCE] for x in all_P)) for at in range(0, len(all_P[0]), AT_ONCE)]
        found = np.concatenate(parts).reshape(len(blocks), samples, width)
        return [reuse.expand(part[:, : len(b.names)], b) for part, b in zip(found, blocks)]

    def _optima(self, *own) -> np.ndarray:
        """The optimal mixture of each problem; few are filled up, so that one program solves any number."""
        setting, number = self.setting, len(own[0])
        coef, anchor, lower, upper, member = (x[np.arange(max(number, batch.CHUNK)) % number] for x in own)
        params = log_linear.Params(np.zeros(coef.shape[:2]), coef)
        problem = Problem(log_linear.LAW, None, setting.task_weights_N, None, setting.bounds, setting.kl_weight)
        varying = batch.Varying(params=params, anchor_M=anchor, lower_M=lower, upper_M=upper, member_GM=member)
        return batch.solve_each(problem, varying).weights_M[:number]

    def _refitted(self, blocks: reuse.Blocks, runs: int) -> np.ndarray:
        """coef_SNM of the laws that would be fitted to a new swarm over the blocks, and old runs."""
        if not runs:
            # No swarm, no new law: the old one, which is what is best to think with its samples as what may be true.
            return np.broadcast_to(self.truth.coef_NM.mean(axis=0), self.truth.coef_NM.shape)
        setting, draw = self.setting, rng.generator(self.seed, f"recompute.swarm {runs} {blocks.names}")
        natural_D = reuse.collapse(setting.natural_M, blocks) ** setting.tempered
        drawn_KD = draw.dirichlet(natural_D / natural_D.sum() * len(natural_D), size=runs)
        ratios_KM = np.concatenate([reuse.expand(drawn_KD, blocks), setting.old_KM])
        trust_K = np.concatenate([np.ones(runs), setting.trust_K])
        # Choices of as many runs meet the same noise.
        draw = rng.generator(self.seed, f"recompute.noise {len(ratios_KM)}")
        # A law also has scales and noise to find, by as many runs as its weights leave over: as in generalised
        # cross-validation, errors grow by K / (K − D).
        spare = max(1 - len(blocks.names) / trust_K.sum(), SPARE)
        samples = range(len(self.truth.log_c_N))
        return np.stack([self._one(s, ratios_KM, trust_K, draw, 1 / np.sqrt(spare)) for s in samples])

    def _one(self, s: int, ratios_KM, trust_K, draw: np.random.Generator, more: float) -> np.ndarray:
        """coef_NM for one truth: the posterior mean of a linearised fit to simulated scores, whose noise is ``more``
        than the fit knows of."""
        setting, coef_NM = self.setting, self.truth.coef_NM[s]
        mean_N, std_N = self.prior
        normal = draw.normal(size=(len(ratios_KM), 1)), draw.normal(size=(len(ratios_KM), len(coef_NM)))
        noise_KN = np.sqrt(setting.shared) * normal[0] + np.sqrt(1 - setting.shared) * normal[1]
        # Errors of the exponential's logarithm: σ / e.
        height_KN = np.exp(ratios_KM @ coef_NM.T)
        weight_NK = (height_KN**2 * trust_K[:, None]).T / setting.noise_N[:, None] ** 2
        off_KN = more * noise_KN * setting.noise_N / np.sqrt(trust_K)[:, None] / height_KN
        gram_NMM = np.einsum("nk,km,kj->nmj", weight_NK, ratios_KM, ratios_KM, optimize=True)
        gram_NMM = gram_NMM + np.eye(len(coef_NM.T)) / std_N[:, None, None] ** 2
        away_NM = np.einsum("nk,kn,km->nm", weight_NK, off_KN, ratios_KM, optimize=True)
        away_NM = away_NM - (coef_NM - mean_N[:, None]) / std_N[:, None] ** 2
        return coef_NM + np.linalg.solve(gram_NMM, away_NM[..., None])[..., 0]

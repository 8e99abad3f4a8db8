"""What reusing a mixture's ratios can cost (METHOD §3; the derivations are in docs/theory.md).

After a change of the domain set, unaffected domains ("fixed", F of the M new ones) keep their relative ratios p̃, of
sum 1, and share a weight ρ; affected ones have weights r. With q = (ρ p, r) and the log-linear law, the objective is

    F(q) = Σ_i w_i (c_i + exp(A_iᵀ q)) + λ KL(q ‖ p0)   over   {q ≥ 0, Σ_j q_j = 1, q ≤ u},   Σ_i w_i = 1

q* = (ρ* p*, r*) is its minimiser ("full"); reuse gives the best (ρ p̃, r). How far apart they are:

    reuse gap         g = ‖p̃ − p*‖₂
    performance gap   F(best (ρ p̃, r)) − F(q*) ≥ 0 [BPB]
    coupling          κ = ‖(1 + α_fix + α_comp) ⊙ α_fix‖₂ over tasks i,  α_i,fix = ‖A_i,fix‖₂,  α_i,comp = ‖A_i,comp‖₂

:func:`bound_performance` bounds the second by the first for any p̃ (paper, Theorem 1). For p̃ of an optimum of the old
domain set, :func:`bound_gap` bounds the first by how much weight moved (Theorem 2), and :func:`bound_second_order` the
second by the square of that. They take :class:`Constants`, which :func:`constants` reads off a solved :class:`Update`,
or which are guessed where none is solved yet. Pure functions on float64 NumPy arrays.
"""

from typing import NamedTuple

import numpy as np

from olmix_jax.utils.errors import UserError

# Caps that are broken by no more than this share are broken by rounding.
ROUNDING = 1e-12


class Update(NamedTuple):
    """An update of the domain set whose optima are known, before and after.

    Attributes:
      coef_NM: A of the new domain set.
      task_weights_N: w ≥ 0, of sum 1.
      kl_weight: λ ≥ 0 [BPB per nat].
      natural_M: p0; among the fixed domains in the same proportions as before the update.
      upper_M: caps u; on the fixed domains as before the update.
      fixed_M: whether a domain is unaffected.
      full_M: q*.
      prices_M: η ≥ 0, the multipliers of the caps in q* [BPB].
      kept_F: p̃.
      kept_prices_F: μ ≥ 0, the multipliers of the caps in the old optimum [BPB].
      gone_NG: old coefficients of domains that the update removed or changed; none for an "add".
      gone_G: their old weights r0, of sum 1 − ρ0.
    """

    coef_NM: np.ndarray
    task_weights_N: np.ndarray
    kl_weight: float
    natural_M: np.ndarray
    upper_M: np.ndarray
    fixed_M: np.ndarray
    full_M: np.ndarray
    prices_M: np.ndarray
    kept_F: np.ndarray
    kept_prices_F: np.ndarray
    gone_NG: np.ndarray
    gone_G: np.ndarray


class Constants(NamedTuple):
    """All that the bounds depend on, besides the reuse gap.

    Attributes:
      coupling: κ, as published or centred.
      scale: S = ‖w ⊙ E‖₂ [BPB], E_i the most that exp(A_iᵀ q) is at the mixtures in question (:func:`ceilings`).
      kl_weight: λ [BPB per nat].
      after: ρ*, the weight of the fixed domains in q*.
      moved: δ, weight of affected domains: 1 − ρ* for an "add", hypot(1 − ρ0, 1 − ρ*) in general.
      price: M [BPB], what relaxed caps are worth: ⟨μ, p* − p̃⟩ plus ⟨η, p̃ − p*⟩, each where positive; 0 where no cap
        of a fixed domain binds before or after. For an "add", at most (1 − ρ*)/ρ* · ⟨μ, p̃⟩.
      lean: ‖ln(p̃ / p0) − mean‖₂ over the fixed domains [nats]; of use to :func:`bound_performance` alone.
      spill: cost [BPB] of moving weight off the fixed domains where ρ* p̃ would break a cap; 0 if it does not.
    """

    coupling: float
    scale: float
    kl_weight: float
    after: float
    moved: float
    price: float = 0.0
    lean: float = 0.0
    spill: float = 0.0


def coupling(coef_NM, fixed_M, centred: bool = False) -> float:
    """κ = ‖(1 + α_fix + α_comp) ⊙ α_fix‖₂ over tasks (paper, App. C.1, eq. 10).

    Adding a constant to all of a task's coefficients only rescales its exponential, as Σ_j q_j = 1; κ as published
    changes with it. Centred, each task's mean over the fixed domains is first taken off all of its coefficients: this
    κ does not change, and every bound holds for it too.

    Args:
      coef_NM: A; columns of affected domains are new ones and, for bounds on a "remove" or "revise", also old ones.
      fixed_M: whether a domain is unaffected.
      centred: whether to centre.

    Raises:
      UserError: the shapes disagree or a coefficient is not finite.
    """
    coef_NM, fixed_M = np.asarray(coef_NM, np.float64), np.asarray(fixed_M, bool)
    if coef_NM.ndim != 2 or fixed_M.shape != coef_NM.shape[1:] or not np.isfinite(coef_NM).all():
        raise UserError(f"coupling needs finite tasks × domains, and a mark per domain: {coef_NM.shape, fixed_M.shape}")
    if not fixed_M.any():
        return 0.0
    if centred:
        coef_NM = coef_NM - coef_NM[:, fixed_M].mean(axis=1, keepdims=True)
    fix_N, comp_N = (np.linalg.norm(coef_NM[:, mask_M], axis=1) for mask_M in (fixed_M, ~fixed_M))
    return float(np.linalg.norm((1 + fix_N + comp_N) * fix_N))


def coupling_without(coef_NM, fixed_M, centred: bool = False) -> np.ndarray:
    """coupling_F: κ after each fixed domain alone, in order, is recomputed too; the least names the best one to add."""
    fixed_M = np.asarray(fixed_M, bool)
    order_M = np.arange(len(fixed_M))
    return np.array([coupling(coef_NM, fixed_M & (order_M != j), centred) for j in np.flatnonzero(fixed_M)])


def reuse_gap(kept_F, full_M, fixed_M) -> float:
    """g = ‖p̃ − p*‖₂, with p* = q* on the fixed domains, normalised.

    Raises:
      UserError: there is not one ratio per fixed domain, ratios do not sum to 1, or q* has no weight on these domains.
    """
    return float(np.linalg.norm(_change(kept_F, full_M, fixed_M)))


def _change(kept_F, full_M, fixed_M) -> np.ndarray:
    """p* − p̃ over the fixed domains."""
    kept_F, full_F = np.asarray(kept_F, np.float64), np.asarray(full_M, np.float64)[np.asarray(fixed_M, bool)]
    if kept_F.shape != full_F.shape:
        raise UserError(f"there must be one kept ratio per fixed domain, {full_F.size}, not {kept_F.size}")
    if not (kept_F >= 0).all() or not np.isclose(kept_F.sum(), 1, rtol=0, atol=1e-9):
        raise UserError(f"kept ratios must be 0 or more and sum to 1, not to {kept_F.sum():.6g}")
    if not full_F.sum() > 0:
        raise UserError("the full optimum has no weight on the fixed domains: no ratios of theirs to compare")
    return full_F / full_F.sum() - kept_F


def ceilings(coef_NM, upper_M) -> np.ndarray:
    """ceiling_N: the most that exp(A_iᵀ q) is over {0 ≤ q ≤ u, Σ_j q_j = 1}, by filling the largest coefficients first.

    For :class:`Constants` before anything is solved: S = ‖w ⊙ E‖₂, E the larger of the old and the new domain set's.

    Raises:
      UserError: no mixture is within the caps.
    """
    coef_NM, upper_M = np.asarray(coef_NM, np.float64), np.asarray(upper_M, np.float64)
    if upper_M.sum() < 1 - ROUNDING:
        raise UserError(f"no mixture is within caps of sum {upper_M.sum():.6g}: raise them")
    order_NM = np.argsort(-coef_NM, axis=1, kind="stable")
    filled_NM = np.minimum(np.cumsum(upper_M[order_NM], axis=1), 1.0)
    share_NM = np.diff(filled_NM, axis=1, prepend=0.0)
    return np.exp((np.take_along_axis(coef_NM, order_NM, axis=1) * share_NM).sum(axis=1))


def constants(update: Update, centred: bool = True) -> Constants:
    """The constants of a solved update; E at the mixtures that the derivations visit rather than over all of them.

    Raises:
      UserError: as :func:`coupling` and :func:`reuse_gap`, or no (ρ p̃, r) is within the caps.
    """
    fixed_M, change_F = np.asarray(update.fixed_M, bool), _change(update.kept_F, update.full_M, update.fixed_M)
    after, before = float(update.full_M[fixed_M].sum()), 1.0 - float(np.sum(update.gone_G))
    carried_M, kept = _carried(update, after)
    both_NM = np.concatenate([update.coef_NM, update.gone_NG], axis=1)
    both_fixed_M = np.concatenate([fixed_M, np.zeros(update.gone_NG.shape[1], bool)])
    old_N = before * update.coef_NM[:, fixed_M] @ update.kept_F + update.gone_NG @ update.gone_G
    plain_M = update.full_M.copy()
    plain_M[fixed_M] = after * update.kept_F
    most_N = np.exp(np.maximum(old_N, np.maximum(update.coef_NM @ carried_M, update.coef_NM @ plain_M)))
    gains = update.kept_prices_F @ change_F, -update.prices_M[fixed_M] @ change_F
    return Constants(
        coupling=coupling(both_NM, both_fixed_M, centred),
        scale=float(np.linalg.norm(update.task_weights_N * most_N)),
        kl_weight=float(update.kl_weight),
        after=after,
        moved=float(np.hypot(1 - before, 1 - kept)),
        price=float(sum(max(gain, 0.0) for gain in gains)),
        lean=_lean(update, change_F),
        spill=_spill(update, carried_M, after - kept),
    )


def _carried(update: Update, after: float) -> tuple[np.ndarray, float]:
    """q' and its weight on the fixed domains: q* with ratios p̃; what breaks their caps goes where there is room."""
    fixed_M = np.asarray(update.fixed_M, bool)
    wanted_F, upper_F = after * update.kept_F, update.upper_M[fixed_M]
    over_F = wanted_F > upper_F * (1 + ROUNDING)
    share = float(np.min(upper_F[over_F] / wanted_F[over_F], initial=1.0))
    carried_M = np.array(update.full_M, np.float64)
    carried_M[fixed_M] = share * wanted_F
    excess = (1 - share) * after
    if excess > 0:
        room_M = np.where(fixed_M, 0.0, np.maximum(update.upper_M - carried_M, 0.0))
        if room_M.sum() < excess * (1 - ROUNDING):
            raise UserError("the kept ratios cannot be kept within the caps: recompute the domains that reach them")
        carried_M += excess * room_M / room_M.sum()
    return carried_M, share * after


def _lean(update: Update, change_F) -> float:
    """‖ln(p̃ / p0) − mean‖₂ over the domains that have weight before or after; infinite where p̃ is 0 and p* is not."""
    kept_F, natural_F = np.asarray(update.kept_F), update.natural_M[np.asarray(update.fixed_M, bool)]
    here_F = (kept_F > 0) | (change_F > 0)
    if update.kl_weight == 0:
        return 0.0
    if (kept_F[here_F] == 0).any():
        return float("inf")
    log_F = np.log(kept_F[here_F] / natural_F[here_F])
    return float(np.linalg.norm(log_F - log_F.mean()))


def _spill(update: Update, carried_M, excess: float) -> float:
    """excess · ⟨∇F(q'), x − (p̃, 0)⟩ with x the places that take the excess, at most excess · (max − min of ∇F(q'))."""
    if excess <= 0:
        return 0.0
    fixed_M, here_M = np.asarray(update.fixed_M, bool), carried_M > 0
    weight_N = update.task_weights_N * np.exp(update.coef_NM @ carried_M)
    slope_M = weight_N @ update.coef_NM
    slope_M[here_M] += update.kl_weight * np.log(carried_M[here_M] / update.natural_M[here_M])
    added_M = np.where(fixed_M, 0.0, carried_M - update.full_M)
    return float(added_M @ slope_M - excess * update.kept_F @ slope_M[fixed_M])


def bound_performance(known: Constants, gap: float) -> float:
    """Theorem 1, for any kept ratios: F(reuse) − F(q*) ≤ ρ* (S κ + λ ‖ln(p̃/p0) − mean‖₂) g + spill [BPB]."""
    if gap == 0:
        return known.spill
    lean = known.kl_weight * known.lean if known.kl_weight else 0.0
    return known.after * (known.scale * known.coupling + lean) * gap + known.spill


def bound_gap(known: Constants) -> float:
    """Theorem 2, for ratios of an old optimum: g ≤ (a + √(a² + 8 λ M)) / (4 λ), a = S κ δ; infinite for λ = 0.

    Where M = 0 this is C₂ κ δ with C₂ = S / (2λ).
    """
    push = known.scale * known.coupling * known.moved
    if known.kl_weight == 0:
        return float("inf")
    return (push + np.sqrt(push**2 + 8 * known.kl_weight * known.price)) / (4 * known.kl_weight)


def bound_second_order(known: Constants, gap: float | None = None) -> float:
    """F(reuse) − F(q*) ≤ ρ* ((S κ δ)² / (4 λ) + M) + spill [BPB], for ratios of an old optimum.

    With the reuse gap known, ρ* (S κ δ g − λ g² + M) + spill, which is no more. Infinite for λ = 0 without it.
    """
    push = known.scale * known.coupling * known.moved
    if gap is not None:
        first = push * gap - known.kl_weight * gap**2
    elif known.kl_weight == 0:
        first = float("inf") if push else 0.0
    else:
        first = push**2 / (4 * known.kl_weight)
    return known.after * (first + known.price) + known.spill

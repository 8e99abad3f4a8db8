"""Bounds on what reusing a mixture's ratios can cost (METHOD §3; derivations in docs/theory.md).

After a change of the domain set, unaffected domains ("fixed", F of the M new ones) keep their relative ratios p̃, which
sum to 1, and share a weight ρ. Affected domains have weights r. With q = (ρ p, r) and the log-linear law, the objective
is

    F(q) = Σ_i w_i (c_i + exp(A_iᵀ q)) + λ KL(q ‖ p0)   over   {q ≥ 0, Σ_j q_j = 1, q ≤ u},   Σ_i w_i = 1

q* = (ρ* p*, r*) is its minimiser ("full"); reuse finds the best (ρ p̃, r). Three numbers measure their difference:

    reuse gap         g = ‖p̃ − p*‖₂
    loss              F(best (ρ p̃, r)) − F(q*) ≥ 0 [BPB], the paper's performance gap
    coupling          κ = ‖(1 + α_fix + α_comp) ⊙ α_fix‖₂ over tasks i,  α_i,fix = ‖A_i,fix‖₂,  α_i,comp = ‖A_i,comp‖₂

:func:`bound_loss` bounds the loss by the reuse gap, for any p̃ (paper, Theorem 1). If p̃ comes from an optimum of the old
domain set, :func:`bound_gap` bounds the reuse gap by the weight that moved (Theorem 2), and
:func:`bound_loss_second_order` bounds the loss by its square. All take :class:`Constants`. :func:`constants` computes
them for a solved update (:class:`SolvedUpdate`); before that they can be estimated. Pure functions on float64 arrays.
"""

from typing import NamedTuple

import numpy as np

from olmix_jax.utils.errors import UserError

# Relative excess over a cap that counts as rounding.
ROUNDING = 1e-12


class SolvedUpdate(NamedTuple):
    """An update of the domain set, with the optima before and after it.

    Attributes:
      coef_NM: A of the new domain set.
      task_weights_N: w ≥ 0, summing to 1.
      kl_weight: λ ≥ 0 [BPB per nat].
      natural_M: p0; the proportions among the fixed domains are those before the update.
      upper_M: caps u; those of the fixed domains are unchanged by the update.
      fixed_M: whether a domain is unaffected.
      full_M: q*.
      prices_M: η ≥ 0, the multipliers of the caps at q* [BPB].
      kept_F: p̃.
      kept_prices_F: μ ≥ 0, the multipliers of the caps at the old optimum [BPB].
      gone_NG: old coefficients of the G domains that the update removed or changed; G = 0 for an "add".
      gone_G: their old weights r0, summing to 1 − ρ0.
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
    """The constants of the bounds; the reuse gap is a separate argument.

    Attributes:
      coupling: κ, as published or centred.
      scale: S = ‖w ⊙ E‖₂ [BPB], where E_i bounds exp(A_iᵀ q) at the mixtures in question (:func:`ceilings`).
      kl_weight: λ [BPB per nat].
      after: ρ*, the weight of the fixed domains in q*.
      moved: δ, the weight of affected domains: 1 − ρ* for an "add", hypot(1 − ρ0, 1 − ρ*) in general.
      price: M [BPB], the value of relaxed caps: the positive parts of ⟨μ, p* − p̃⟩ and ⟨η, p̃ − p*⟩, added up. It is 0
        if no cap of a fixed domain binds before or after. For an "add", it is at most (1 − ρ*)/ρ* · ⟨μ, p̃⟩.
      lean: ‖ln(p̃ / p0) − mean‖₂ over the fixed domains [nats]; only :func:`bound_loss` uses it.
      spill: cost [BPB] of moving weight off the fixed domains if ρ* p̃ would break a cap; else 0.
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
    """Return κ = ‖(1 + α_fix + α_comp) ⊙ α_fix‖₂ over tasks (paper, App. C.1, eq. 10).

    Adding a constant to all coefficients of a task only rescales its exponential, because Σ_j q_j = 1. The published κ
    changes with such a constant. The centred κ does not: it first subtracts each task's mean over the fixed domains
    from all of the task's coefficients. Every bound holds for both.

    Args:
      coef_NM: A. Columns of affected domains are the new ones, and for a "remove" or "revise" also the old ones.
      fixed_M: whether a domain is unaffected.
      centred: whether to centre the coefficients.

    Raises:
      UserError: the shapes disagree or a coefficient is not finite.
    """
    coef_NM, fixed_M = np.asarray(coef_NM, np.float64), np.asarray(fixed_M, bool)
    if coef_NM.ndim != 2 or fixed_M.shape != coef_NM.shape[1:] or not np.isfinite(coef_NM).all():
        raise UserError(
            f"coupling needs finite coefficients, tasks × domains, and a mask of the domains; the shapes are "
            f"{coef_NM.shape} and {fixed_M.shape}"
        )
    if not fixed_M.any():
        return 0.0
    if centred:
        coef_NM = coef_NM - coef_NM[:, fixed_M].mean(axis=1, keepdims=True)
    fix_N, comp_N = (np.linalg.norm(coef_NM[:, mask_M], axis=1) for mask_M in (fixed_M, ~fixed_M))
    return float(np.linalg.norm((1 + fix_N + comp_N) * fix_N))


def coupling_without(coef_NM, fixed_M, centred: bool = False) -> np.ndarray:
    """Return κ after recomputing one more domain, for each fixed domain in turn. The smallest κ suggests which one."""
    fixed_M = np.asarray(fixed_M, bool)
    order_M = np.arange(len(fixed_M))
    return np.array([coupling(coef_NM, fixed_M & (order_M != j), centred) for j in np.flatnonzero(fixed_M)])


def reuse_gap(kept_F, full_M, fixed_M) -> float:
    """Return g = ‖p̃ − p*‖₂, where p* is q* on the fixed domains, normalised.

    Raises:
      UserError: the number of ratios is wrong, they do not sum to 1, or q* has no weight on the fixed domains.
    """
    return float(np.linalg.norm(_change(kept_F, full_M, fixed_M)))


def _change(kept_F, full_M, fixed_M) -> np.ndarray:
    """Return p* − p̃ over the fixed domains."""
    kept_F, full_F = np.asarray(kept_F, np.float64), np.asarray(full_M, np.float64)[np.asarray(fixed_M, bool)]
    if kept_F.shape != full_F.shape:
        raise UserError(f"give one kept ratio per fixed domain: {full_F.size}, not {kept_F.size}")
    if not (kept_F >= 0).all() or not np.isclose(kept_F.sum(), 1, rtol=0, atol=1e-9):
        raise UserError(f"kept ratios must be 0 or more and sum to 1, not to {kept_F.sum():.6g}")
    if not full_F.sum() > 0:
        raise UserError("the full optimum has no weight on the fixed domains, so there are no ratios to compare")
    return full_F / full_F.sum() - kept_F


def ceilings(coef_NM, upper_M) -> np.ndarray:
    """Return ceiling_N, the largest exp(A_iᵀ q) over {0 ≤ q ≤ u, Σ_j q_j = 1}: fill the largest coefficients first.

    This bounds S = ‖w ⊙ E‖₂ of :class:`Constants` before anything is solved: take as E_i the larger ceiling of the old
    and the new domain set.

    Raises:
      UserError: no mixture is within the caps.
    """
    coef_NM, upper_M = np.asarray(coef_NM, np.float64), np.asarray(upper_M, np.float64)
    if upper_M.sum() < 1 - ROUNDING:
        raise UserError(f"infeasible: the caps sum to {upper_M.sum():.6g}, less than 1; raise them")
    order_NM = np.argsort(-coef_NM, axis=1, kind="stable")
    filled_NM = np.minimum(np.cumsum(upper_M[order_NM], axis=1), 1.0)
    share_NM = np.diff(filled_NM, axis=1, prepend=0.0)
    return np.exp((np.take_along_axis(coef_NM, order_NM, axis=1) * share_NM).sum(axis=1))


def constants(update: SolvedUpdate, centred: bool = True) -> Constants:
    """Return the constants of a solved update, with E taken only at the mixtures that the derivations use.

    Raises:
      UserError: as for :func:`coupling` and :func:`reuse_gap`, or no (ρ p̃, r) is within the caps.
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


def _carried(update: SolvedUpdate, after: float) -> tuple[np.ndarray, float]:
    """Return q' (q* with ratios p̃, and excess over caps moved to other domains) and its weight on fixed domains."""
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
            raise UserError(
                "infeasible: the caps do not allow the kept ratios; recompute the domains that reach their caps"
            )
        carried_M += excess * room_M / room_M.sum()
    return carried_M, share * after


def _lean(update: SolvedUpdate, change_F) -> float:
    """Return ‖ln(p̃ / p0) − mean‖₂ over domains with weight before or after; infinite if one has p̃ = 0 and p* > 0."""
    kept_F, natural_F = np.asarray(update.kept_F), update.natural_M[np.asarray(update.fixed_M, bool)]
    here_F = (kept_F > 0) | (change_F > 0)
    if update.kl_weight == 0:
        return 0.0
    if (kept_F[here_F] == 0).any():
        return float("inf")
    log_F = np.log(kept_F[here_F] / natural_F[here_F])
    return float(np.linalg.norm(log_F - log_F.mean()))


def _spill(update: SolvedUpdate, carried_M, excess: float) -> float:
    """Return excess · ⟨∇F(q'), x − (p̃, 0)⟩, x being where the excess goes; ≤ excess · (max − min of ∇F(q'))."""
    if excess <= 0:
        return 0.0
    fixed_M, here_M = np.asarray(update.fixed_M, bool), carried_M > 0
    weight_N = update.task_weights_N * np.exp(update.coef_NM @ carried_M)
    slope_M = weight_N @ update.coef_NM
    slope_M[here_M] += update.kl_weight * np.log(carried_M[here_M] / update.natural_M[here_M])
    added_M = np.where(fixed_M, 0.0, carried_M - update.full_M)
    return float(added_M @ slope_M - excess * update.kept_F @ slope_M[fixed_M])


def bound_loss(c: Constants, gap: float) -> float:
    """Return ρ* (S κ + λ ‖ln(p̃/p0) − mean‖₂) g + spill ≥ F(reuse) − F(q*) [BPB], for any ratios (Theorem 1)."""
    if gap == 0:
        return c.spill
    lean = c.kl_weight * c.lean if c.kl_weight else 0.0
    return c.after * (c.scale * c.coupling + lean) * gap + c.spill


def bound_gap(c: Constants) -> float:
    """Return (a + √(a² + 8 λ M)) / (4 λ) ≥ g with a = S κ δ, for ratios of an old optimum (Theorem 2).

    Infinite for λ = 0. With M = 0 this is C₂ κ δ, where C₂ = S / (2λ).
    """
    push = c.scale * c.coupling * c.moved
    if c.kl_weight == 0:
        return float("inf")
    return (push + np.sqrt(push**2 + 8 * c.kl_weight * c.price)) / (4 * c.kl_weight)


def bound_loss_second_order(c: Constants, gap: float | None = None) -> float:
    """Return ρ* ((S κ δ)² / (4 λ) + M) + spill ≥ F(reuse) − F(q*) [BPB], for ratios of an old optimum.

    With a given reuse gap g: ρ* (S κ δ g − λ g² + M) + spill, which is never larger. Without g, the bound is infinite
    for λ = 0.
    """
    push = c.scale * c.coupling * c.moved
    if gap is not None:
        first = push * gap - c.kl_weight * gap**2
    elif c.kl_weight == 0:
        first = float("inf") if push else 0.0
    else:
        first = push**2 / (4 * c.kl_weight)
    return c.after * (first + c.price) + c.spill

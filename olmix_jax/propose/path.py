"""The proposal over a grid of λ and of the repetition limit k."""

import numpy as np

from olmix_jax.laws import evaluate
from olmix_jax.propose.formulation import Formulation
from olmix_jax.propose.proposal_parts import Path
from olmix_jax.propose.variants import solve_variants
from olmix_jax.solver.feasibility import feasible

# λ of the grid [BPB per nat].
KL_WEIGHTS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
# k of the grid, as multiples of the k in use.
REPEAT_FACTORS = (0.5, 1.0, 2.0, 4.0)


def settings_path(
    formulation: Formulation, kl_weights_L, repeats_R, *, near_M=None, ratios_KM=None, seed: int = 0
) -> Path | None:
    """Solve for every λ and every k. Only k/R matters, so twice the tokens act like half the repeats.

    Args:
      formulation: the problem; its λ and its repetition caps are replaced.
      kl_weights_L: λ > 0, ascending.
      repeats_R: k, ascending; [None] if repetition is not capped.
      near_M: the proposal, as a starting point for a law that is not convex.
      ratios_KM: the swarm's runs, as starting points without a proposal.
      seed: of starting points that are drawn.

    Returns:
      The path, without ``chosen``; None if no mixture meets the caps of any k.
    """
    problem = formulation.problem
    uppers = {r: upper_M for r, k in enumerate(repeats_R) if (upper_M := _upper(formulation, k)) is not None}
    cells = [(i, r) for i in range(len(kl_weights_L)) for r in uppers]
    if not cells:
        return None
    kl_weight_P, upper_PM = np.array([kl_weights_L[i] for i, _ in cells]), np.stack([uppers[r] for _, r in cells])
    variants = solve_variants(problem, kl_weight_P, upper_PM=upper_PM, near_M=near_M, ratios_KM=ratios_KM, seed=seed)
    best_PM = variants.ratios_PM
    predicted_P = evaluate(problem.law, problem.params, best_PM) @ problem.weights

    def table(values_P) -> tuple:
        """Return a row per λ with an entry per k; None where no mixture meets the caps."""
        by_cell = dict(zip(cells, values_P, strict=True))
        return tuple(tuple(by_cell.get((i, r)) for r in range(len(repeats_R))) for i in range(len(kl_weights_L)))

    natural_N = evaluate(problem.law, problem.params, formulation.natural_M[None])[0]
    return Path(
        kl_weight=tuple(kl_weights_L),
        max_repeats=tuple(repeats_R),
        weights=table(map(tuple, best_PM.tolist())),
        predicted=table(predicted_P.tolist()),
        kl=table(problem.kl(best_PM).tolist()),
        predicted_natural=float(natural_N @ problem.weights),
        unconverged=variants.unconverged,
    )


def _upper(formulation: Formulation, max_repeats: float | None) -> np.ndarray | None:
    """Return the upper bounds with another k; None if no mixture meets them."""
    problem, constraints = formulation.problem, formulation.constraints
    bounds, upper_M = problem.bounds, constraints.user_upper_M
    upper_M = np.ones(len(problem.anchor_M)) if upper_M is None else upper_M
    if max_repeats is not None and constraints.repetition is not None:
        upper_M = constraints.repetition.within(bounds, upper_M, max_repeats).upper_M
    upper_M = np.where(problem.anchor_M > 0, upper_M, 0.0)
    return upper_M if feasible(bounds._replace(upper_M=upper_M)) else None

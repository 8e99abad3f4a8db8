"""The Pareto front between task families: mixtures at which no family improves without another getting worse."""

from collections.abc import Mapping, Sequence

import numpy as np

from olmix_jax.laws import evaluate
from olmix_jax.propose.proposal_parts import Front, FrontPoint, by_name
from olmix_jax.propose.variants import solve_variants
from olmix_jax.solver.problem import Problem

# Steps between a family weight of 0 and of 1, for two and for three families.
STEPS = {2: 20, 3: 6}


def pareto_front(
    problem: Problem,
    families: Mapping[str, Sequence[str]],
    tasks: Sequence[str],
    domains: Sequence[str],
    *,
    natural_M,
    proposed_M,
    seed: int = 0,
) -> Front | None:
    """Solve over a grid of family weights, and keep the mixtures that no other one dominates.

    For a law that is not convex, points of the front may be missing.

    Args:
      problem: its task weights are replaced; a family's weight is divided equally among its tasks.
      families: {family: its tasks}.
      tasks: N names.
      domains: M names.
      natural_M, proposed_M: mixtures to compare with the front; the latter is also a starting point.
      seed: of starting points that are drawn.

    Returns:
      The front; None unless there are two or three families.
    """
    names = list(families)
    if len(names) not in STEPS:
        return None
    rows_FN = np.array([[(task in families[name]) / len(families[name]) for task in tasks] for name in names])
    grid_PF = np.array(_compositions(STEPS[len(names)], len(names)), np.float64) / STEPS[len(names)]
    weights_PN = grid_PF @ rows_FN
    variants = solve_variants(problem, problem.kl_weight, weights_PN=weights_PN, near_M=proposed_M, seed=seed)
    best_PM = variants.ratios_PM
    compared_CM = np.concatenate([best_PM, natural_M[None], proposed_M[None]])
    *bpb_PF, natural_F, proposed_F = evaluate(problem.law, problem.params, compared_CM) @ rows_FN.T
    # The KL term is part of the objective, so an optimum for one weighting may be dominated by that for another.
    kept = [i for i, own_F in enumerate(bpb_PF) if not any(_dominates(other_F, own_F) for other_F in bpb_PF)]
    points = (
        FrontPoint(
            family_weights=by_name(names, grid_PF[i]),
            predicted=by_name(names, bpb_PF[i]),
            weights=by_name(domains, best_PM[i]),
        )
        for i in kept
    )
    return Front(
        tuple(names),
        tuple(points),
        natural=by_name(names, natural_F),
        proposed=by_name(names, proposed_F),
        unconverged=variants.unconverged,
    )


def _dominates(one_F, other_F) -> bool:
    """Return whether ``one_F`` is nowhere worse and somewhere better."""
    return bool((one_F <= other_F).all() and (one_F < other_F).any())


def _compositions(total: int, parts: int) -> list[tuple[int, ...]]:
    """Return all ways to write ``total`` as an ordered sum of ``parts`` numbers of 0 or more."""
    if parts == 1:
        return [(total,)]
    return [(i, *others) for i in range(total + 1) for others in _compositions(total - i, parts - 1)]

"""How the proposed mixture moves per unit of λ, of each binding cap and of each task weight."""

from collections.abc import Sequence

import numpy as np

from olmix_jax.propose.formulation import Formulation
from olmix_jax.propose.proposal_parts import Sensitivity, by_name
from olmix_jax.propose.shadow_prices import capping_members
from olmix_jax.solver import sensitivity as solver_sensitivity
from olmix_jax.solver.solution import Solution
from olmix_jax.solver.status import Status


def sensitivity(
    formulation: Formulation, solution: Solution, tasks: Sequence[str], domains: Sequence[str]
) -> Sensitivity | None:
    """Return the exact derivatives of the mixture; None if it does not move smoothly.

    The result is None for mixtures from a search, for the worst mixture, and if other mixtures are equally good.

    Args:
      formulation: the problem, without guards or a tail.
      solution: over blocks.
      tasks: N names.
      domains: M names.
    """
    if solution.status not in (Status.OPTIMAL, Status.LOCAL_OPTIMUM) or formulation.sign < 0:
        return None
    moves = solver_sensitivity.derivatives(formulation.reduced, solution.weights_M)
    if moves is None:
        return None
    weights_N = np.asarray(formulation.problem.weights)
    # Weights are normalised, so a rise of one lowers all in proportion.
    tasks_NM = formulation.expand((moves.weights_MN - (moves.weights_MN @ weights_N)[:, None]).T)
    return Sensitivity(
        kl_weight=by_name(domains, formulation.expand(moves.kl_weight_M)),
        caps=_cap_moves(formulation, solution, moves.upper_MM, domains),
        task_weights={task: by_name(domains, move_M) for task, move_M in zip(tasks, tasks_NM, strict=True)},
    )


def _cap_moves(
    formulation: Formulation, solution: Solution, upper_DD, domains: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return the moves per unit of the caps that bind: at the cap, below 1, and with a positive multiplier."""
    upper_D, multipliers_D = formulation.reduced.bounds.upper_M, solution.multipliers_M
    caps = {}
    for d, j in enumerate(capping_members(formulation)):
        at_cap = solution.weights_M[d] >= upper_D[d] and 0 < upper_D[d] < 1
        if at_cap and multipliers_D is not None and multipliers_D[d] > 0:
            # One unit of a member's cap raises its block's cap by 1/p̃_j.
            ratio = 1.0 if formulation.blocks is None else formulation.blocks.ratios_DM[d, j]
            caps[domains[j]] = by_name(domains, formulation.expand(upper_DD[:, d] / ratio))
    return caps

"""Decide what to compute around a proposal: the choice of λ, the path over λ and k, the front between families.

:mod:`~olmix_jax.propose.kl_choice`, :mod:`~olmix_jax.propose.path` and :mod:`~olmix_jax.propose.pareto` compute them.
"""

import dataclasses

from olmix_jax.laws import Law
from olmix_jax.laws.fitted import FittedLaw
from olmix_jax.propose import aiming, guard_price, kl_choice
from olmix_jax.propose.formulation import Formulation
from olmix_jax.propose.guard_price import GuardPrice
from olmix_jax.propose.options import Options
from olmix_jax.propose.pareto import pareto_front
from olmix_jax.propose.path import KL_WEIGHTS, REPEAT_FACTORS, settings_path
from olmix_jax.propose.proposal_parts import Front, LambdaChoice, Path
from olmix_jax.propose.swarm_facts import SwarmFacts
from olmix_jax.swarm import task_groups
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.optional import LeftOut
from olmix_jax.utils.progress import log


@dataclasses.dataclass(frozen=True)
class Exploration:
    """What is computed around a proposal. Field names are those of the proposal."""

    explored_without: tuple[str, ...] | None = None
    path: Path | None = None
    pareto: Front | None = None
    guard_price: GuardPrice | None = None


def lambda_choice(
    fitted: FittedLaw, formulation: Formulation, swarm: SwarmFacts, options: Options, seed: int
) -> LambdaChoice | None:
    """Choose λ from the swarm's runs, if the options ask for it or explore; None if that is not possible.

    Raises:
      UserError: the options ask for it, and there are too few runs.
    """
    explores = options.explore and options.method == "exact" and not options.worst
    possible = fitted.law.differentiable and formulation.blocks is None
    if not (options.choose_kl_weight or explores) or not possible or swarm.bpb_KN is None or swarm.ratios_KM is None:
        return None
    try:
        choice = kl_choice.choose_kl_weight(
            aiming.refitted(fitted.law, swarm, options),
            swarm.ratios_KM,
            swarm.bpb_KN,
            formulation.problem,
            _with_current(KL_WEIGHTS, options.kl_weight),
            natural_M=formulation.natural_M,
            seed=seed,
        )
    except UserError as e:
        if options.choose_kl_weight:
            raise
        log.info("propose: λ is not chosen from data: %s", e)
        return None
    return dataclasses.replace(choice, used=options.choose_kl_weight)


def check_choice(law: Law, options: Options, ratios_KM) -> None:
    """Raise an error if λ has to be chosen from the runs and cannot be.

    Raises:
      UserError: the law is not differentiable, ratios are kept, or there are too few runs.
    """
    if not options.choose_kl_weight:
        return
    if not law.differentiable or options.keep_ratios is not None:
        with_chosen(options, None)
    kl_choice.halves(law, ratios_KM)


def with_chosen(options: Options, choice: LambdaChoice | None) -> Options:
    """Return the options with the chosen λ.

    Raises:
      UserError: no λ could be chosen.
    """
    if choice is None:
        raise UserError(
            "propose.choose_kl_weight needs a differentiable law, the swarm's runs, and no propose.keep_ratios; set "
            "propose.kl_weight instead"
        )
    return dataclasses.replace(options, kl_weight=choice.best)


def explore(
    formulation: Formulation, swarm: SwarmFacts, options: Options, proposed_M, seed: int, left_out: LeftOut
) -> Exploration:
    """Solve the path over λ and k, the front between families and the price of guards.

    What fails is added to ``left_out``. The path and the front ignore guards and the tail; ``explored_without`` names
    the ignored options.
    """
    problem = formulation.problem
    if not problem.law.differentiable or formulation.blocks is not None:
        reason = "propose.keep_ratios is set" if problem.law.differentiable else "the law is not differentiable"
        log.info("propose: no path over λ and k, no front and no choice of λ, because %s", reason)
        return Exploration()
    ignored = tuple(name for name in ("guard", "tail") if getattr(options, name) is not None)
    capped = formulation.constraints.repetition is not None
    repeats_R = [options.max_repeats * factor for factor in REPEAT_FACTORS] if capped else [None]
    kl_weights_L, path, front, price = _with_current(KL_WEIGHTS, options.kl_weight), None, None, None
    with left_out.unless_fails("propose", "paths over λ and k"):
        path = settings_path(formulation, kl_weights_L, repeats_R, near_M=proposed_M, seed=seed)
        if path is not None:
            used = {"kl_weight": options.kl_weight, "max_repeats": options.max_repeats if capped else None}
            path = dataclasses.replace(path, chosen=used)
    with left_out.unless_fails("propose", "trade-offs between families"):
        front = _front(formulation, swarm, proposed_M)
    with left_out.unless_fails("propose", "the price of keeping every task"):
        price = guard_price.guard_price(formulation, swarm, options, proposed_M)
    return Exploration(ignored, path, front, price)


def _front(formulation: Formulation, swarm: SwarmFacts, proposed_M) -> Front | None:
    if swarm.families is None and not task_groups.in_built_in_families(swarm.tasks):
        # The built-in families are those of the paper's tasks; other tasks have no families unless the config names
        # them.
        log.info("propose: the tasks have no families (fit.families), so trade-offs between families are not computed")
        return None
    families = task_groups.families_of(swarm.tasks, swarm.families)
    return pareto_front(
        formulation.problem,
        families,
        swarm.tasks,
        swarm.domains,
        natural_M=formulation.natural_M,
        proposed_M=proposed_M,
    )


def _with_current(grid: tuple[float, ...], kl_weight: float) -> list[float]:
    """Return the grid and the λ in use, if it is positive, in ascending order."""
    return sorted({*grid, *([kl_weight] if kl_weight > 0 else [])})

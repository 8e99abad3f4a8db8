"""What stands beside a proposal: how it moves with λ and k, the front between families, and the λ that data choose."""

import dataclasses

from olmix_jax import config
from olmix_jax.propose import paths
from olmix_jax.propose.formulation import Posed
from olmix_jax.propose.proposal import Front, LambdaChoice, Path
from olmix_jax.swarm import task_groups
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import log


@dataclasses.dataclass(frozen=True)
class Exploration:
    """What surrounds a proposal: the proposal's fields of the same names."""

    explored_without: tuple[str, ...] | None = None
    path: Path | None = None
    pareto: Front | None = None


def choice(posed: Posed, settings: config.Propose, ratios_KM, bpb_KN, seed: int) -> LambdaChoice | None:
    """Choose λ from data (:func:`olmix_jax.propose.paths.choose_kl_weight`); None where that is not possible."""
    wanted = settings.choose_kl_weight or (settings.explore and settings.method == "exact" and not settings.worst)
    plain = posed.problem.law.differentiable and posed.blocks is None
    if not wanted or not plain or bpb_KN is None or ratios_KM is None:
        return None
    kl_weights_L = _with(paths.KL_WEIGHTS, settings.kl_weight)
    try:
        found = paths.choose_kl_weight(
            posed.problem.law, ratios_KM, bpb_KN, posed.problem, kl_weights_L, natural_M=posed.natural_M, seed=seed
        )
    except UserError as e:
        if settings.choose_kl_weight:
            raise
        log.info("propose: λ is not chosen from data: %s", e)
        return None
    return dataclasses.replace(found, used=settings.choose_kl_weight)


def chosen(settings: config.Propose, found: LambdaChoice | None) -> config.Propose:
    """The settings with the λ that was chosen.

    Raises:
      UserError: none was.
    """
    if found is None:
        raise UserError(
            "propose.choose_kl_weight needs a law with slopes, the swarm's runs, and no propose.keep_ratios; give "
            "propose.kl_weight instead"
        )
    return dataclasses.replace(settings, kl_weight=found.best)


def beside(
    posed: Posed, settings, tokens_M, ratios_KM, tasks, domains, families: str, weights_M, seed: int
) -> Exploration:
    """Solve the path over λ and k and the front between families; the log says why one is left out.

    Both are of the objective alone; ``explored_without`` names the settings that they do not heed.
    """
    problem = posed.problem
    if not problem.law.differentiable or posed.blocks is not None:
        why = "propose.keep_ratios" if problem.law.differentiable else "a law without slopes"
        log.info("propose: no paths over λ and k, no front and no choice of λ, as of %s", why)
        return Exploration()
    kl_weights_L = _with(paths.KL_WEIGHTS, settings.kl_weight)
    repeats_R = [settings.max_repeats * factor for factor in paths.REPEATS] if posed.capped else [None]
    ignored = tuple(name for name in ("guard", "tail") if getattr(settings, name) is not None)
    path = paths.path(
        problem,
        kl_weights_L,
        repeats_R,
        wished_M=posed.wished_M,
        tokens_M=tokens_M,
        target_tokens=settings.target_tokens,
        natural_M=posed.natural_M,
        ratios_KM=ratios_KM,
        seed=seed,
    )
    if path is not None:
        used = {"kl_weight": settings.kl_weight, "max_repeats": settings.max_repeats if posed.capped else None}
        path = dataclasses.replace(path, chosen=used)
    try:
        groups = task_groups.families_of(tasks, families)
    except UserError as e:
        log.info("propose: no front between families: %s", e)
        return Exploration(ignored, path)
    front = paths.pareto(
        problem, groups, tasks, domains, natural_M=posed.natural_M, weights_M=weights_M, ratios_KM=ratios_KM
    )
    return Exploration(ignored, path, front)


def _with(values, own: float) -> list[float]:
    """The values with one's own among them, if that is positive; ascending."""
    return sorted({*values, *([own] if own > 0 else [])})

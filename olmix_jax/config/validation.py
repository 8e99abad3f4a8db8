"""Check the values of a config before any stage runs. Errors name the field."""

from typing import Any

from olmix_jax.config import budget, part
from olmix_jax.config.schema import Config, Propose, Update
from olmix_jax.utils.errors import UserError

CHOICES: dict[str, tuple[str | None, ...]] = {
    "tasks.aggregate": (None, "document", "pooled"),
    "swarm.sparsity": ("sparse", "dense"),
    "proxy.dtype": ("float32", "bfloat16"),
    "train.mapping": (None, "vmap", "map", "pmap", "shard", "fsdp", "auto"),
    "fit.missing": ("error", "drop_run", "drop_task"),
    "fit.granularity": ("task", "family", "aggregated"),
    "propose.guard_by": ("task", "family"),
    "propose.method": ("exact", "search", "simulation"),
    "update.strategy": ("auto", "full", "full_reuse", "partial_reuse", "swarm_reuse"),
}
POSITIVE = (
    "corpus.vocabulary corpus.min_tokens tasks.max_examples tasks.length swarm.size proxy.length proxy.vocabulary "
    "train.steps train.batch train.micro_batch train.lr train.clip train.checkpoint_every fit.starts fit.train_split "
    "propose.max_repeats propose.target_tokens rounds.number validate.steps validate.lr validate.seeds update.proxies "
    "update.budget swarm.members_per_device plan.utilisation plan.price"
).split()
NOT_NEGATIVE = (
    "seed corpus.max_bytes swarm.min_weight swarm.min_distance swarm.min_runs swarm.seed train.map_batch train.warmup "
    "train.lr_end train.weight_decay train.z_loss train.seed fit.resamples propose.kl_weight propose.guard "
    "propose.tail propose.next_runs swarm.merged"
).split()
# Fields in [0, 1).
FRACTIONS = ("corpus.heldout", "swarm.trunk", "train.warmup", "train.beta1", "train.beta2")
SEEDS = ("seed", "swarm.seed", "train.seed")
# The second field is required where the first is given.
REQUIRES = (
    ("swarm.ratios", "swarm.metrics"),
    ("swarm.metrics", "swarm.ratios"),
    ("swarm.meta", "swarm.ratios"),
    ("swarm.tokens", "swarm.ratios"),
    ("swarm.test_ratios", "swarm.test_metrics"),
    ("swarm.test_metrics", "swarm.test_ratios"),
    ("rounds.metrics", "swarm.ratios"),
)


def check(config: Config) -> None:
    """Raise an error for the first field that no stage could use, by itself or together with other fields.

    Raises:
      UserError: the message names the field, its value and the values that are allowed.
    """
    _check_choices(config)
    _check_ranges(config)
    _check_tables(config)
    _check_train_and_fit(config)
    part.parse(config.swarm.part)
    _check_trunk(config)
    _check_propose(config.propose)
    _check_unused(config.propose, config.fit.law)
    _check_update(config.update, config.propose)


def get(config: Config, name: str) -> Any:
    """Return the value of a field by its dotted name."""
    value = config
    for step in name.split("."):
        value = getattr(value, step)
    return value


def _check_choices(config: Config) -> None:
    for name, allowed in CHOICES.items():
        if get(config, name) not in allowed:
            shown = ", ".join(str(a) for a in allowed)
            raise UserError(f"config field `{name}` must be one of {shown}, not {get(config, name)!r}")


def _check_ranges(config: Config) -> None:
    for name in POSITIVE + NOT_NEGATIVE:
        value = get(config, name)
        if value is None:
            continue
        if not value >= 0 or value == float("inf") or (name in POSITIVE and value == 0):
            kind = "positive" if name in POSITIVE else "zero or more"
            raise UserError(f"config field `{name}` must be {kind}, not {value!r}")
    for name in FRACTIONS:
        if get(config, name) is not None and not 0 <= get(config, name) < 1:
            raise UserError(f"config field `{name}` must be in [0, 1), not {get(config, name)!r}")
    low, high = config.swarm.strength
    if not 0 < low <= high:
        raise UserError(f"config field `swarm.strength` must be (low, high) with 0 < low ≤ high, not {low, high}")
    for name in SEEDS:
        if (get(config, name) or 0) >= 2**31:
            raise UserError(f"config field `{name}` must be less than 2**31, not {get(config, name)}")


def _check_tables(config: Config) -> None:
    for name, other in REQUIRES:
        # The update plan needs the sizes of new domains before a swarm over them exists.
        planning = name == "swarm.meta" and config.update.parent
        if get(config, name) and not get(config, other) and not planning:
            raise UserError(f"config field `{name}` is given without `{other}`; an external swarm needs both")
    for name in ("rounds.metrics", "update.parent"):
        if config.swarm.tokens and get(config, name):
            raise UserError(
                f"config field `swarm.tokens` cannot be used with `{name}`, whose runs have no lengths; put all runs "
                f"into swarm.ratios, swarm.metrics and swarm.tokens, and unset `{name}`"
            )


def _check_train_and_fit(config: Config) -> None:
    fit, train = config.fit, config.train
    if fit.folds < 2:
        raise UserError(f"config field `fit.folds` must be 2 or more, not {fit.folds}")
    if fit.train_split > 1 and fit.train_split != int(fit.train_split):
        raise UserError(
            f"config field `fit.train_split` must be a share of the runs or a whole number of runs, not "
            f"{fit.train_split}"
        )
    if train.batch % (train.micro_batch or 1):
        raise UserError(
            f"config field `train.micro_batch` must divide train.batch={train.batch}, not {train.micro_batch}"
        )


def _check_trunk(config: Config) -> None:
    """Check the settings of a branched swarm."""
    swarm, train, steps = config.swarm, config.train, budget.trunk_steps(budget.experts(config))
    given = [name for name in ("trunk_mixture", "trunk_from") if getattr(swarm, name).strip()]
    if swarm.merged and config.update.parent:
        raise UserError("config field `swarm.merged` has no effect with `update.parent`: an update needs full proxies")
    if not swarm.trunk:
        if swarm.merged:
            raise UserError(
                "config field `swarm.merged` needs `swarm.trunk`, the share of the steps that the experts have in "
                "common, such as 0.75"
            )
        if given:
            raise UserError(
                f"config field `swarm.{given[0]}` has no effect without `swarm.trunk`, a share of the steps"
            )
        return
    if len(given) == 2:
        raise UserError("config field `swarm.trunk_mixture` has no effect with `swarm.trunk_from`; remove one")
    if swarm.ratios:
        raise UserError("config field `swarm.trunk` has no effect with `swarm.ratios`, a swarm that is trained already")
    if not 0 < steps < train.steps:
        raise UserError(
            f"config field `swarm.trunk` is {swarm.trunk:g}, so of {train.steps} steps the trunk has {steps} and a "
            f"branch {train.steps - steps}: both need at least one; change it, or raise train.steps"
        )
    if not train.common:
        raise UserError(
            "config field `train.common` must be True with `swarm.trunk`: all members continue from one trunk, so they "
            "share initial weights and the order of documents"
        )


def _check_propose(propose: Propose) -> None:
    """Check settings that only some methods of proposing support."""
    if propose.tail is not None and propose.tail > 1:
        raise UserError(f"config field `propose.tail` must be a share of samples, from 0 to 1, not {propose.tail}")
    if "{domain}" not in propose.data_path:
        raise UserError(
            "config field `propose.data_path` must contain {domain}, which is replaced by the name of each domain"
        )
    special = [name for name in ("guard", "tail") if getattr(propose, name) is not None]
    special += [name for name in ("worst", "choose_kl_weight") if getattr(propose, name)]
    if special and propose.method != "exact":
        raise UserError(
            f"config field `propose.{special[0]}` has no effect with `propose.method={propose.method}`; remove one"
        )
    if propose.worst and special != ["worst"]:
        others = [name for name in special if name != "worst"]
        raise UserError(f"config field `propose.{others[0]}` has no effect with `propose.worst`; give one of them")


def _check_unused(propose: Propose, law: str) -> None:
    """Check for settings of the proposal that have no effect because of another setting."""
    for field, best_run in (("propose.method", propose.method == "search"), ("fit.law", law == "search")):
        # `simulation` samples new mixtures even with the search law, and these keep the ratios.
        if propose.keep_ratios.strip() and best_run and propose.method != "simulation":
            raise UserError(
                f"config field `propose.keep_ratios` has no effect with `{field}=search`, which proposes the mixture "
                "of one of the runs unchanged"
            )
    if propose.anchor.strip() and propose.kl_weight == 0 and not propose.choose_kl_weight:
        raise UserError(
            "config field `propose.anchor` has no effect with `propose.kl_weight=0`; give propose.kl_weight a positive "
            "value, or remove propose.anchor"
        )
    if propose.guard_by != "task" and propose.guard is None:
        raise UserError("config field `propose.guard_by` has no effect without `propose.guard`; set that, in BPB")


def _check_update(update: Update, propose: Propose) -> None:
    """Check for update settings that are given without a parent, or that the strategy does not use."""
    if bool(update.recompute) != (update.strategy == "partial_reuse"):
        raise UserError(
            "config field `update.recompute` names the domains that `update.strategy=partial_reuse` recomputes besides "
            "the affected ones: give both or neither"
        )
    given = [name for name in ("file", "recompute", "proxies") if getattr(update, name)]
    if given and not update.parent:
        raise UserError(
            f"config field `update.{given[0]}` has no effect without `update.parent`, the path of "
            "the finished workdir to update"
        )
    if update.parent and propose.choose_kl_weight and update.strategy not in ("full", "swarm_reuse"):
        raise UserError(
            "config field `propose.choose_kl_weight` cannot be used with an update that keeps ratios, because half of "
            "its runs cannot judge the kept ratios; set propose.kl_weight, or update.strategy=full"
        )

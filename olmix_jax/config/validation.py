"""Values that no stage could work with, refused before anything is done."""

from olmix_jax.config import part
from olmix_jax.utils.errors import UserError

CHOICES = {
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
    "corpus.vocabulary corpus.min_tokens tasks.max_examples tasks.length swarm.size proxy.length train.steps "
    "train.batch train.micro_batch train.lr train.clip train.checkpoint_every fit.starts fit.train_split "
    "propose.max_repeats propose.target_tokens validate.steps validate.lr validate.seeds update.proxies update.budget "
    "swarm.members_per_device plan.utilisation plan.price"
).split()
NOT_NEGATIVE = (
    "seed corpus.max_bytes swarm.min_weight swarm.min_distance swarm.min_runs swarm.seed train.map_batch train.warmup "
    "train.lr_end train.weight_decay train.z_loss train.seed fit.resamples propose.kl_weight propose.guard "
    "propose.tail propose.next_runs"
).split()


def check(config) -> None:
    """Refuses values that no stage could work with, naming the field."""
    for name, allowed in CHOICES.items():
        if get(config, name) not in allowed:
            shown = ", ".join(str(a) for a in allowed)
            raise UserError(f"config field `{name}` must be one of {shown}, not {get(config, name)!r}")
    for name in POSITIVE + NOT_NEGATIVE:
        value = get(config, name)
        if value is None:
            continue
        if not value >= 0 or value == float("inf") or (name in POSITIVE and value == 0):
            kind = "positive" if name in POSITIVE else "zero or more"
            raise UserError(f"config field `{name}` must be {kind}, not {value!r}")
    for name in ("corpus.heldout", "train.warmup"):
        if not 0 <= get(config, name) < 1:
            raise UserError(f"config field `{name}` must be in [0, 1), not {get(config, name)!r}")
    low, high = config.swarm.strength
    if not 0 < low <= high:
        raise UserError(f"config field `swarm.strength` must be (low, high) with 0 < low ≤ high, not {low, high}")
    for name in ("seed", "swarm.seed", "train.seed"):
        if (get(config, name) or 0) >= 2**31:
            raise UserError(f"config field `{name}` must be less than 2**31, not {get(config, name)}")
    for name in ("train.beta1", "train.beta2"):
        if not 0 <= get(config, name) < 1:
            raise UserError(f"config field `{name}` must be in [0, 1), not {get(config, name)!r}")
    for name, other in (
        ("swarm.ratios", "swarm.metrics"),
        ("swarm.metrics", "swarm.ratios"),
        ("swarm.meta", "swarm.ratios"),
        ("swarm.test_ratios", "swarm.test_metrics"),
        ("swarm.test_metrics", "swarm.test_ratios"),
    ):
        # The plan of an update needs to know the sizes of domains that no run has yet.
        planned = name == "swarm.meta" and config.update.parent
        if get(config, name) and not get(config, other) and not planned:
            raise UserError(f"config field `{name}` is given without `{other}`; an external swarm needs both")
    if config.fit.folds < 2:
        raise UserError(f"config field `fit.folds` must be 2 or more, not {config.fit.folds}")
    split = config.fit.train_split
    if split > 1 and split != int(split):
        raise UserError(f"config field `fit.train_split` must be a share of runs or a whole number, not {split}")
    if config.train.batch % (config.train.micro_batch or 1):
        raise UserError(
            f"config field `train.micro_batch` must divide train.batch={config.train.batch}, not "
            f"{config.train.micro_batch}"
        )
    part.parse(config.swarm.part)
    _check_propose(config.propose)
    _check_effects(config.propose, config.fit.law)
    _check_update(config.update)
    if (
        config.update.parent
        and config.propose.choose_kl_weight
        and config.update.strategy not in ("full", "swarm_reuse")
    ):
        raise UserError(
            "config field `propose.choose_kl_weight` cannot be with an update that keeps ratios, as halves of its runs "
            "say nothing of them; give propose.kl_weight, or update.strategy=full"
        )


def _check_update(update) -> None:
    """Settings of an update without one, or that its strategy does not look at."""
    if bool(update.recompute) != (update.strategy == "partial_reuse"):
        raise UserError(
            "config field `update.recompute` names what `update.strategy=partial_reuse` recomputes beside the affected "
            "domains: give both or neither"
        )
    given = [name for name in ("file", "recompute", "proxies") if getattr(update, name)]
    if given and not update.parent:
        raise UserError(f"config field `update.{given[0]}` has no effect without `update.parent`, the run before")


def _check_propose(propose) -> None:
    """What only some ways to a proposal can do."""
    if propose.tail is not None and propose.tail > 1:
        raise UserError(f"config field `propose.tail` must be a share of samples, from 0 to 1, not {propose.tail}")
    if "{domain}" not in propose.data_path:
        raise UserError("config field `propose.data_path` must contain {domain}, which each domain's name is put for")
    special = [name for name in ("guard", "tail") if getattr(propose, name) is not None]
    special += [name for name in ("worst", "choose_kl_weight") if getattr(propose, name)]
    if special and propose.method != "exact":
        raise UserError(f"config field `propose.{special[0]}` has no effect with `propose.method={propose.method}`")
    if propose.worst and special != ["worst"]:
        others = [name for name in special if name != "worst"]
        raise UserError(f"config field `propose.{others[0]}` has no effect with `propose.worst`; give one of them")


def _check_effects(propose, law: str) -> None:
    """Settings of a proposal that others leave without an effect."""
    for field, only_runs in (("propose.method", propose.method == "search"), ("fit.law", law == "search")):
        # Of that law the sampled mixtures are no runs, and keep ratios.
        if propose.keep_ratios.strip() and only_runs and propose.method != "simulation":
            raise UserError(
                f"config field `propose.keep_ratios` has no effect with `{field}=search`, which proposes one of the "
                "runs as it is"
            )
    if propose.anchor.strip() and propose.kl_weight == 0 and not propose.choose_kl_weight:
        raise UserError(
            "config field `propose.anchor` has no effect with `propose.kl_weight=0`, as nothing pulls towards it; give "
            "propose.kl_weight a positive value, or leave propose.anchor out"
        )
    if propose.guard_by != "task" and propose.guard is None:
        raise UserError("config field `propose.guard_by` has no effect without `propose.guard`; give that in BPB")


def get(config, name: str):
    value = config
    for step in name.split("."):
        value = getattr(value, step)
    return value

"""validation.py: settings that no stage could use, alone or together, raise errors that name the field."""

import dataclasses

import pytest

from olmix_jax import config
from olmix_jax.config import validation
from olmix_jax.utils.errors import UserError


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"swarm": {"strength": (2.0, 1.0)}}, "`swarm.strength` must be"),
        ({"train": {"steps": 0}}, "`train.steps` must be positive, not 0"),
        ({"train": {"lr": float("nan")}}, "`train.lr` must be positive, not nan"),
        ({"train": {"mapping": "pvmap"}}, "`train.mapping` must be one of None, vmap, map, pmap, shard, fsdp, auto"),
        ({"swarm": {"sparsity": "medium"}}, "`swarm.sparsity` must be one of sparse, dense"),
        ({"propose": {"kl_weight": -1}}, "`propose.kl_weight` must be zero or more"),
        ({"corpus": {"heldout": 1.0}}, r"`corpus.heldout` must be in \[0, 1\)"),
        ({"fit": {"folds": 1}}, "`fit.folds` must be 2 or more"),
        ({"fit": {"missing": "ignore"}}, "`fit.missing` must be one of error, drop_run, drop_task, not 'ignore'"),
        ({"fit": {"granularity": "domain"}}, "`fit.granularity` must be one of task, family, aggregated"),
        ({"propose": {"method": "grid"}}, "`propose.method` must be one of exact, search, simulation"),
        ({"propose": {"tail": 1.5}}, "`propose.tail` must be a share of samples"),
        ({"propose": {"guard": -0.1}}, "`propose.guard` must be zero or more"),
        ({"propose": {"guard": 0.1, "method": "search"}}, "`propose.guard` has no effect with `propose.method=search`"),
        ({"propose": {"guard": 0.1, "worst": True}}, "`propose.guard` has no effect with `propose.worst`"),
        ({"propose": {"data_path": "data"}}, "`propose.data_path` must contain {domain}"),
        ({"fit": {"train_split": 0}}, "`fit.train_split` must be positive, not 0"),
        ({"fit": {"train_split": 1.5}}, "`fit.train_split` must be a share of the runs or a whole number of runs"),
        ({"fit": {"resamples": -1}}, "`fit.resamples` must be zero or more"),
        ({"update": {"strategy": "half"}}, "`update.strategy` must be one of auto, full, full_reuse"),
        ({"update": {"strategy": "partial_reuse", "parent": "x"}}, "give both or neither"),
        ({"update": {"recompute": ["a"], "parent": "x"}}, "give both or neither"),
        ({"update": {"file": "u.yaml"}}, "`update.file` has no effect without `update.parent`"),
        ({"update": {"proxies": 0, "parent": "x"}}, "`update.proxies` must be positive"),
        ({"seed": 2**31}, "`seed` must be less than 2\\*\\*31"),
        ({"train": {"batch": 6, "micro_batch": 4}}, "`train.micro_batch` must divide train.batch=6, not 4"),
        ({"swarm": {"ratios": "r.csv"}}, "`swarm.ratios` is given without `swarm.metrics`"),
        ({"swarm": {"meta": "m.json"}}, "`swarm.meta` is given without `swarm.ratios`"),
        ({"swarm": {"tokens": "t.csv"}}, "`swarm.tokens` is given without `swarm.ratios`"),
        (
            {"swarm": {"ratios": "r", "metrics": "m", "tokens": "t"}, "rounds": {"metrics": "s.csv"}},
            "`swarm.tokens` cannot be used with `rounds.metrics`",
        ),
        (
            {"swarm": {"ratios": "r", "metrics": "m", "tokens": "t"}, "update": {"parent": "x"}},
            "`swarm.tokens` cannot be used with `update.parent`",
        ),
        ({"swarm": {"trunk": 1.0}}, r"`swarm.trunk` must be in \[0, 1\), not 1.0"),
        ({"swarm": {"trunk": 0.99}, "train": {"steps": 20}}, "of 20 steps the trunk has 20 and a branch 0"),
        ({"swarm": {"trunk": 0.01}, "train": {"steps": 20}}, "of 20 steps the trunk has 0 and a branch 20"),
        ({"swarm": {"trunk": 0.5}, "train": {"common": False}}, "`train.common` must be True with `swarm.trunk`"),
        ({"swarm": {"trunk": 0.5, "ratios": "r", "metrics": "m"}}, "`swarm.trunk` has no effect with `swarm.ratios`"),
        ({"swarm": {"merged": 20}}, "`swarm.merged` needs `swarm.trunk`, .* such as 0.75"),
        ({"swarm": {"merged": -1}}, "`swarm.merged`"),
        ({"swarm": {"merged": 9, "trunk": 0.01}, "train": {"steps": 20}}, "so of .* steps the trunk has 0"),
        ({"swarm": {"merged": 9, "trunk": 0.5}, "update": {"parent": "x"}}, "`swarm.merged` has no effect with"),
        ({"swarm": {"trunk_from": "x"}}, "`swarm.trunk_from` has no effect without `swarm.trunk`"),
        ({"swarm": {"trunk_mixture": "a=1"}}, "`swarm.trunk_mixture` has no effect without `swarm.trunk`"),
        ({"swarm": {"trunk": 0.5, "trunk_mixture": "a=1", "trunk_from": "x"}}, "has no effect with `swarm.trunk_from`"),
        ({"swarm": {"part": "5/4"}}, "`swarm.part` must look like 3/16"),
        ({"propose": {"guard_by": "family"}}, "`propose.guard_by` has no effect without `propose.guard`"),
        ({"propose": {"anchor": "a.json", "kl_weight": 0}}, "`propose.anchor` has no effect with `propose.kl_w"),
        ({"propose": {"choose_kl_weight": True}, "update": {"parent": "x"}}, "`propose.choose_kl_weight` cannot be"),
    ],
)
def test_invalid_setting_is_an_error_that_names_the_field(content, message):
    with pytest.raises(UserError, match=message):
        config.from_dict(content)


def test_every_checked_field_exists_and_its_default_is_valid():
    names = [*validation.CHOICES, *validation.POSITIVE, *validation.NOT_NEGATIVE, *validation.FRACTIONS]
    assert set(names) | set(validation.SEEDS) <= set(config.field_names())
    validation.check(config.Config())


def test_meta_without_tables_is_accepted_for_an_update():
    swarm, update = config.Swarm(meta="meta.json"), config.Update(parent="runs/first")
    validation.check(dataclasses.replace(config.Config(), swarm=swarm, update=update))

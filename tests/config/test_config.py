"""config.py and configs/: unknown, ill-typed and impossible settings are named; every config instantiates."""

import importlib
import json
import pathlib

import pytest

from olmix_jax import config
from olmix_jax.utils.errors import UserError

CONFIGS = sorted(p.stem for p in (pathlib.Path(__file__).parents[2] / "configs").glob("[!_]*.py"))


@pytest.mark.parametrize("variant", ["", "smoke"])
@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_instantiates(name, variant):
    built = importlib.import_module(f"configs.{name}").get_config(variant)
    assert isinstance(config.from_dict(built), config.Config)


def test_a_config_survives_json():
    built = config.default()
    built.swarm.size = 30
    built.swarm.strength = (0.5, 2.0)
    assert config.from_dict(json.loads(built.to_json())) == config.from_dict(built)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"swarm": {"sizee": 3}}, "no field `swarm.sizee`; the nearest is `swarm.size`"),
        ({"trian": {}}, "no field `trian`; the nearest is `train"),
        ({"swarm": {"size": "many"}}, "`swarm.size` must be int | None, not 'many'"),
        ({"swarm": {"size": 3.5}}, "`swarm.size` must be"),
        ({"swarm": {"strength": (1.0, "x")}}, r"`swarm.strength\[1\]` must be float, not 'x'"),
        ({"swarm": {"strength": (2.0, 1.0)}}, "`swarm.strength` must be"),
        ({"train": {"common": 1}}, "`train.common` must be bool, not 1"),
        ({"train": {"steps": True}}, "`train.steps` must be int, not True"),
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
        ({"fit": {"train_split": 1.5}}, "`fit.train_split` must be a share of runs or a whole number, not 1.5"),
        ({"fit": {"resamples": -1}}, "`fit.resamples` must be zero or more"),
        ({"olmix_yaml": 3}, "`olmix_yaml` must be str, not 3"),
        ({"update": {"strategy": "half"}}, "`update.strategy` must be one of auto, full, full_reuse"),
        ({"update": {"strategy": "partial_reuse", "parent": "x"}}, "give both or neither"),
        ({"update": {"recompute": ["a"], "parent": "x"}}, "give both or neither"),
        ({"update": {"file": "u.yaml"}}, "`update.file` has no effect without `update.parent`"),
        ({"update": {"proxies": 0, "parent": "x"}}, "`update.proxies` must be positive"),
    ],
)
def test_bad_settings_are_named(content, message):
    with pytest.raises(UserError, match=message.replace("|", r"\|")):
        config.from_dict(content)


def test_whole_numbers_pass_for_floats():
    assert config.from_dict({"propose": {"max_repeats": 2}}).propose.max_repeats == 2.0

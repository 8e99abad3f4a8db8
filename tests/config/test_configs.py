"""configs/: every config builds, and has a `smoke` variant; an unknown variant is an error."""

import importlib
import json
import pathlib

import pytest

from olmix_jax import config

CONFIGS = sorted(p.stem for p in (pathlib.Path(__file__).parents[2] / "configs").glob("[!_]*.py"))


@pytest.mark.parametrize("variant", ["", "smoke"])
@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_builds(name, variant):
    built = importlib.import_module(f"configs.{name}").get_config(variant)
    assert isinstance(config.from_dict(built), config.Config)


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "update"])
def test_unknown_variant_is_an_error(name):
    with pytest.raises(ValueError, match=f"configs/{name}.py has no variant 'big'"):
        importlib.import_module(f"configs.{name}").get_config("big")


def test_update_takes_settings_of_its_parent_but_none_of_its_tables(tmp_path):
    tables = dict.fromkeys(("ratios", "metrics", "meta", "tokens", "test_ratios", "test_metrics"), "table.csv")
    settings = {"seed": 3, "swarm": {"size": 7, **tables}, "update": {"file": "old.yaml"}}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    built = importlib.import_module("configs.update").get_config(str(tmp_path))
    assert (built.seed, built.swarm.size, built.update.parent, built.update.file) == (3, 7, str(tmp_path), "")
    assert not any(built.swarm[name] for name in tables)
    config.from_dict(built)

"""configs/: every config builds, and has a `smoke` variant; an unknown variant is an error."""

import importlib
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

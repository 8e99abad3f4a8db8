"""runner.py: ``config.json`` holds the settings of what finished."""

import dataclasses

import pytest

from olmix_jax import config
from olmix_jax.config import workdir
from olmix_jax.pipeline import runner
from olmix_jax.pipeline.stage import Stage
from olmix_jax.utils.errors import UserError


def stage(name: str, settings: tuple[str, ...], refuses: bool = False) -> Stage:
    """Return a stage that writes one file, or refuses its settings."""

    def run(config, workdir):
        if refuses:
            raise UserError("refused")
        (workdir / name).write_text("result")

    return Stage(name, run, lambda config: True, lambda config, workdir: (), (name,), settings)


def test_refused_setting_is_not_recorded(tmp_path):
    first = config.from_dict({})
    runner.run_stage(first, tmp_path, stage("solve", ("propose",)))
    assert workdir.read_config(tmp_path) == first
    other = config.from_dict({"propose": {"target_tokens": 1e13}})
    with pytest.raises(UserError, match="refused"):
        runner.run_stage(other, tmp_path, stage("solve", ("propose",), refuses=True))
    assert workdir.read_config(tmp_path) == first


def test_finished_stage_records_its_own_settings_only(tmp_path):
    first = config.from_dict({})
    runner.run_stage(first, tmp_path, stage("solve", ("propose",)))
    other = config.from_dict({"propose": {"target_tokens": 1e13}, "fit": {"folds": 3}, "train": {"steps": 7}})
    runner.run_stage(other, tmp_path, stage("learn", ("fit", "train.steps")))
    train = dataclasses.replace(first.train, steps=7)
    assert workdir.read_config(tmp_path) == dataclasses.replace(first, fit=other.fit, train=train)


def test_unreadable_record_is_replaced(tmp_path):
    (tmp_path / "config.json").write_text('{"unknown": 1}')
    runner.run_stage(config.from_dict({}), tmp_path, stage("solve", ("propose",)))
    assert workdir.read_config(tmp_path) == config.from_dict({})

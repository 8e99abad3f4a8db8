"""Stamps: what makes a result stale."""

import os

import pytest

from olmix_jax import config
from olmix_jax.laws import fitting
from olmix_jax.pipeline import runner, stage, stages
from olmix_jax.utils.errors import UserError


@pytest.fixture
def external(tmp_path):
    """The config of a swarm that was trained elsewhere."""
    made = config.default()
    made.swarm.ratios = made.swarm.metrics = str(tmp_path / "x.csv")
    (tmp_path / "x.csv").write_text("run\n")
    return config.from_dict(made)


def test_fit_is_stale_when_its_code_changes(external, tmp_path, monkeypatch):
    before = stage.stamp_of(stages.FIT, external, tmp_path, {})
    assert before.covers(stage.stamp_of(stages.FIT, external, tmp_path, {}))
    monkeypatch.setattr(fitting, "code", lambda: "another")
    assert not before.covers(stage.stamp_of(stages.FIT, external, tmp_path, {}))


def test_fit_is_stale_when_an_input_file_changes(external, tmp_path):
    before = stage.stamp_of(stages.FIT, external, tmp_path, {})
    (tmp_path / "x.csv").write_text("run,name\n")
    assert not before.covers(stage.stamp_of(stages.FIT, external, tmp_path, {}))


def test_a_missing_input_names_the_stage_that_writes_it(tmp_path):
    with pytest.raises(UserError, match="sample needs .*domains.json, which does not exist; run --stages=prepare"):
        stage.stamp_of(stages.SAMPLE, config.Config(), tmp_path, {"domains.json": "prepare"})


def test_costly_files_are_not_recomputed_after_a_change(tmp_path):
    old, new = stage.Stamp({"train.lr": 0.1}, {}), stage.Stamp({"train.lr": 0.2}, {})
    with pytest.raises(UserError, match="made with train.lr = 0.1, now it is 0.2; use another --workdir"):
        old.refuse_changes(new, [tmp_path / "train"])
    old.refuse_changes(old, [tmp_path / "train"])
    other_input = stage.Stamp({"train.lr": 0.1}, {"domains.json": "digest"})
    with pytest.raises(UserError, match="made before domains.json changed; .* restore the old domains.json, or delete"):
        old.refuse_changes(other_input, [tmp_path / "train"])


def test_field_is_named_before_the_files_that_are_read_because_of_it(tmp_path):
    old = stage.Stamp({}, {"domains.json": "a", "swarm.merged": "full proxies"})
    new = stage.Stamp({}, {"domains.json": "a", "swarm/trunk/trunk.json": "b"})
    with pytest.raises(UserError, match="made before swarm.merged changed; .* restore the old swarm.merged"):
        old.refuse_changes(new, [tmp_path])


def test_setting_that_is_newer_than_a_result_had_its_default(tmp_path):
    old = stage.Stamp({"train.lr": 0.1}, {})
    old.refuse_changes(stage.Stamp({"train.lr": 0.1, "train.common": True}, {}), [tmp_path])
    assert old.covers(stage.Stamp({"train.lr": 0.1, "train.common": True}, {}))
    with pytest.raises(UserError, match="made with train.common = True, now it is False"):
        old.refuse_changes(stage.Stamp({"train.lr": 0.1, "train.common": False}, {}), [tmp_path])


def test_mapping_and_memory_settings_do_not_make_a_result_stale(tmp_path):
    one, other = (config.from_dict({"train": {"mapping": name}}) for name in ("map", "vmap"))
    (tmp_path / "domains.json").write_text("{}")
    for file in ("tasks/tasks.json", "swarm/ratios.csv"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("{}")
    stamps = [stage.stamp_of(stages.TRAIN, made, tmp_path, {}) for made in (one, other)]
    assert stamps[0].covers(stamps[1])


def test_result_stays_valid_when_the_same_files_are_given_by_another_path(tmp_path):
    (tmp_path / "text/web").mkdir(parents=True)
    (tmp_path / "text/web/a.txt").write_text("text")
    (tmp_path / "link").symlink_to(tmp_path / "text")
    stamps = []
    for name in ("text", "link"):
        made = config.from_dict({"corpus": {"path": str(tmp_path / name)}})
        stamps.append(stage.stamp_of(stages.PREPARE, made, tmp_path, {}))
        os.utime(tmp_path / "text/web/a.txt", (1, 1))
    stamps[0].refuse_changes(stamps[1], [tmp_path])
    (tmp_path / "text/web/a.txt").write_text("other")
    with pytest.raises(UserError, match="made before corpus.path changed"):
        stamps[0].refuse_changes(stage.stamp_of(stages.PREPARE, made, tmp_path, {}), [tmp_path])


def test_every_input_of_a_stage_is_written_by_an_earlier_one(tmp_path):
    written: set[str] = set()
    for each in stages.STAGES:
        assert set(each.reads(config.Config(), tmp_path)) <= written, each.name
        written |= set(each.writes)


def test_dry_run_follows_the_stages_that_tell_it_the_members():
    order = [each.name for each in runner.in_order(config.Config(), ("plan", "train", "prepare"))]
    assert order == ["prepare", "plan", "train"]

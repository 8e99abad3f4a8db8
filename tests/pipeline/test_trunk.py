"""The stage ``trunk`` and training of branches: results, resuming, parts, processes, and what makes them stale."""

import dataclasses
import json
import os
import shutil
import signal

import numpy as np
import pytest

from configs import paper
from olmix_jax import config
from olmix_jax.config import workdir as workdirs
from olmix_jax.pipeline import rehearsal, runner, stages, trunk_stage
from olmix_jax.proxy import train
from olmix_jax.proxy.train_result import TrainInfo, TrunkInfo
from olmix_jax.swarm import table
from olmix_jax.swarm.rounds import Rounds
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError
from tests.pipeline.test_processes import LARGE, finish, started

STEPS, SHARED, BATCH, LENGTH = 8, 6, 4, 32


def settings(**changes):
    c = paper.get_config("smoke")
    c.train.steps, c.swarm.size, c.train.checkpoint_every, c.train.remat = STEPS, 12, 2, False
    c.proxy.preset, c.train.match_repeats, c.validate.steps, c.validate.seeds = "tiny", False, 4, 1
    c.swarm.trunk, c.swarm.min_weight = SHARED / STEPS, 1 / 8
    c.fit.law, c.fit.resamples, c.fit.starts = "log_linear", 8, 2
    for name, value in changes.items():
        section, field = name.split("_", 1)
        c[section][field] = value
    return config.from_dict(c)


@pytest.fixture(scope="module")
def branched(tmp_path_factory):
    """A workdir whose swarm consists of branches."""
    workdir = tmp_path_factory.mktemp("branched") / "run"
    runner.run(settings(), workdir, ("prepare", "sample", "train"))
    return workdir


@pytest.fixture
def prepared(branched, tmp_path):
    """A workdir that is ready for training."""
    workdir = shutil.copytree(branched, tmp_path / "run")
    for name in ("swarm/metrics.csv", "swarm/meta.json", "swarm/curves.npz"):
        (workdir / name).unlink()
    for name in ("train", "swarm/trunk"):
        shutil.rmtree(workdir / name)
    stamps = files.read_json(workdir / "stamps.json")
    files.write_json(workdir / "stamps.json", {name: stamps[name] for name in ("prepare", "sample")})
    return workdir


def scores(workdir):
    rows = (workdir / "swarm/metrics.csv").read_text().splitlines()[1:]
    return np.array([row.split(",")[3:] for row in rows], float)


def test_members_continue_the_trunk_on_their_own_mixtures(branched):
    info, trunk = TrainInfo.read(branched / "train/info.json"), TrunkInfo.read(branched / workdirs.TRUNK)
    natural_M = workdirs.read_domains(branched).natural_M
    assert trunk.steps == SHARED and sum(trunk.sequences.values()) == SHARED * BATCH
    assert np.abs(np.array(list(trunk.sequences.values())) - natural_M * SHARED * BATCH).max() < 1
    assert set(trunk.bpb) == {t["name"] for t in files.read_json(branched / "tasks/tasks.json")["tasks"]}
    assert info.tokens_per_member == STEPS * BATCH * LENGTH and info.trunk_tokens == SHARED * BATCH * LENGTH
    assert info.full_proxies == (SHARED + 12 * (STEPS - SHARED)) / STEPS == 3.75
    with np.load(branched / "swarm/curves.npz") as curves:
        loss_KT = curves["loss_KT"]
    assert loss_KT.shape == (12, STEPS) and (loss_KT[:, :SHARED] == loss_KT[0, :SHARED]).all()
    assert len(np.unique(loss_KT[:, -1])) > 6
    # The mixtures are those of the branches, in whole sequences of these.
    counts_KM = table.read_ratios(branched / "swarm/ratios.csv").ratios_KM * BATCH * (STEPS - SHARED)
    np.testing.assert_allclose(counts_KM, np.round(counts_KM), atol=1e-9)
    # Later rounds start from the trunk, so its last checkpoint stays.
    assert (branched / "swarm/trunk/checkpoints" / str(SHARED)).is_dir() and not list(branched.glob("train/**/checkp*"))
    log_text = (branched / "swarm/trunk/metrics.jsonl").read_text().splitlines()
    assert json.loads(log_text[-1])["step"] == SHARED


def test_finished_trunk_is_skipped_and_another_share_is_refused(branched, tmp_path):
    workdir = shutil.copytree(branched, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in workdir.glob("swarm/**/*")}
    runner.run(settings(), workdir, ("trunk", "sample", "train"))
    assert {path: path.stat().st_mtime_ns for path in workdir.glob("swarm/**/*")} == before
    with pytest.raises(UserError, match="ratios.csv: made with swarm.trunk = 0.75, now it is 0.5"):
        runner.run(settings(swarm_trunk=0.5), workdir, ("sample",))
    with pytest.raises(UserError, match="swarm/trunk: made with swarm.trunk = 0.75, now it is 0.5"):
        runner.run(settings(swarm_trunk=0.5), workdir, ("train",))
    with pytest.raises(UserError, match="made with swarm.trunk = 0.75, now it is 0.0"):
        runner.run(settings(swarm_trunk=0.0), workdir, ("train",))


def test_resume_in_the_trunk_before_the_branches_and_in_the_branches_gives_identical_files(
    branched, prepared, monkeypatch
):
    from olmix_jax.pipeline import train as training

    write = train.Tracker.write

    def stop_at(step):
        def write_and_stop(self, now, *more):
            write(self, now, *more)
            if now == step:
                os.kill(os.getpid(), signal.SIGINT)

        return write_and_stop

    for owner, name, stop in (
        (train.Tracker, "write", stop_at(2)),
        (training, "run", interrupt),
        (train.Tracker, "write", stop_at(STEPS)),
    ):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(owner, name, stop)
            runner.run(settings(), prepared, ("train",))
        assert not (prepared / "swarm/metrics.csv").exists()
    assert (prepared / f"train/checkpoints/{STEPS}").is_dir()
    runner.run(settings(), prepared, ("train",))
    for name in ("metrics.csv", "ratios.csv", "meta.json", "curves.npz"):
        assert (prepared / "swarm" / name).read_bytes() == (branched / "swarm" / name).read_bytes()


def interrupt(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.slow
def test_jobs_of_an_array_share_the_trunk_that_is_trained_before_them(branched, prepared):
    with pytest.raises(UserError, match=r"train needs .*trunk.json, which does not exist; run --stages=trunk first"):
        runner.run(settings(swarm_part="1/2"), prepared, ("train",))
    with pytest.raises(UserError, match="stage trunk cannot be used with config field `swarm.part`"):
        runner.run(settings(swarm_part="1/2"), prepared, ("trunk",))
    runner.run(settings(), prepared, ("trunk",))
    for part in ("2/2", "1/2"):
        runner.run(settings(swarm_part=part), prepared, ("train",))
    runner.run(settings(), prepared, ("train",))
    np.testing.assert_allclose(scores(prepared), scores(branched), rtol=1e-5)
    info = TrainInfo.read(prepared / "train/info.json")
    assert info.members == 12 and len(info.parts) == 2 and info.full_proxies == 3.75


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "devices"), [(2, 4), (1, 8)])
def test_eight_devices_give_the_branches_of_two(branched, prepared, processes, devices):
    more = {"swarm_trunk": SHARED / STEPS, "swarm_min_weight": 1 / 8}
    ends = finish(started(prepared, processes, "train", devices, **more))
    assert [code for _, code in ends] == [0] * processes, ends[0][0][1][-2000:]
    np.testing.assert_allclose(scores(prepared), scores(branched), rtol=1e-5)
    info = TrainInfo.read(prepared / "train/info.json")
    assert info.mapping == "shard" and len(info.parts) == (processes if processes > 1 else 0)


@pytest.mark.slow
def test_trunk_and_branches_sharded_over_two_processes(branched, prepared):
    ends = finish(started(prepared, 2, "train", 1, swarm_trunk=SHARED / STEPS, swarm_min_weight=1 / 8, **LARGE))
    assert [code for _, code in ends] == [0, 0], ends[0][0][1][-2000:]
    np.testing.assert_allclose(scores(prepared), scores(branched), rtol=1e-4)
    assert TrunkInfo.read(prepared / workdirs.TRUNK).training.mapping == "fsdp"


@pytest.mark.slow
def test_rounds_train_branches_of_the_same_trunk(branched, tmp_path):
    workdir = shutil.copytree(branched, tmp_path / "run")
    made = settings(propose_next_runs=3, rounds_number=1)
    runner.run(made, workdir, ("fit", "propose", "rounds"))
    (one,) = Rounds.read(workdir).rounds
    assert one.tokens == one.runs * (STEPS - SHARED) * BATCH * LENGTH
    with np.load(workdir / "rounds/1/train/../curves.npz") as curves, np.load(branched / "swarm/curves.npz") as swarm:
        np.testing.assert_array_equal(curves["loss_KT"][0, :SHARED], swarm["loss_KT"][0, :SHARED])
    (warning,) = trunk_stage.warnings(made)
    assert "share 75 % of their tokens" in warning
    assert warning in files.read_json(workdir / "propose/proposal.json")["warnings"]
    assert trunk_stage.warnings(settings(swarm_trunk=0.0)) == ()


def test_trunk_of_another_workdir_gives_the_same_branches(branched, prepared):
    runner.run(settings(swarm_trunk_from=str(branched)), prepared, ("train",))
    info = TrunkInfo.read(prepared / workdirs.TRUNK)
    assert info.copied_from == str(branched)
    assert dataclasses.replace(info, copied_from="") == TrunkInfo.read(branched / workdirs.TRUNK)
    assert (prepared / "swarm/metrics.csv").read_bytes() == (branched / "swarm/metrics.csv").read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"swarm_trunk": 0.5}, r"trunk.json has 6 steps, but swarm.trunk = 0.5 of train.steps = 8 are 4; change one"),
        ({"train_lr": 0.5}, "was made with train.lr = 0.015, but here it is 0.5; give both runs the same"),
        ({"train_beta1": 0.5}, "was made with train.beta1 = 0.9, but here it is 0.5"),
        ({"proxy_preset": "1M"}, "was made with proxy.preset = tiny, but here it is 1M"),
    ],
)
def test_trunk_that_does_not_suit_the_config_is_an_error_that_names_the_field(branched, prepared, changes, message):
    with pytest.raises(UserError, match=message):
        runner.run(settings(swarm_trunk_from=str(branched), **changes), prepared, ("trunk",))
    assert not (prepared / workdirs.TRUNK).exists()


def test_trunk_without_its_checkpoint_is_an_error(branched, prepared, tmp_path):
    other = shutil.copytree(branched, tmp_path / "other")
    shutil.rmtree(other / "swarm/trunk/checkpoints")
    with pytest.raises(UserError, match=r"`swarm.trunk_from`: .*other/swarm/trunk/checkpoints/6 cannot be copied"):
        runner.run(settings(swarm_trunk_from=str(other)), prepared, ("trunk",))


def test_workdir_without_a_trunk_is_an_error(prepared, tmp_path):
    with pytest.raises(UserError, match=r"none/swarm/trunk/trunk.json"):
        runner.run(settings(swarm_trunk_from=str(tmp_path / "none")), prepared, ("trunk",))


def test_trunk_on_a_given_mixture(prepared):
    names = workdirs.read_domains(prepared).names
    mixture = json.dumps({names[0]: 0.75, names[2]: 0.25})
    runner.run(settings(swarm_trunk_mixture=mixture), prepared, ("trunk",))
    read = TrunkInfo.read(prepared / workdirs.TRUNK).sequences
    assert {name: n for name, n in read.items() if n} == {names[0]: 18, names[2]: 6}
    with pytest.raises(UserError, match="swarm/trunk: made with swarm.trunk_mixture"):
        runner.run(settings(), prepared, ("trunk",))


def test_settings_of_the_trunk_are_checked_before_text_is_read(branched, tmp_path, monkeypatch, caplog):
    with pytest.raises(UserError, match="trunk.json has 6 steps, but swarm.trunk = 0.5"):
        rehearsal.check_settings(settings(swarm_trunk=0.5, swarm_trunk_from=str(branched)))
    with pytest.raises(UserError, match="swarm.trunk_mixture: no domain is called books"):
        rehearsal.check_names(settings(swarm_trunk_mixture="books=1"))
    # An update whose proxies share another part of their steps.
    update = settings(update_parent=str(tmp_path / "parent"))
    for share, warned in ((0.75, False), (0.0, True)):
        with monkeypatch.context() as patch:
            patch.setattr(rehearsal.history, "parent_config", lambda _, share=share: settings(swarm_trunk=share))
            rehearsal.check_settings(update)
        assert ("differences between mixtures are smaller the longer the trunk is" in caplog.text) is warned


def test_the_stage_needs_a_share():
    with pytest.raises(UserError, match="stage trunk needs config field `swarm.trunk`"):
        runner.in_order(settings(swarm_trunk=0.0), ("trunk",))
    full = settings(swarm_trunk=0.0)
    assert list(stages.TRAIN.before(full, None)) == [] and workdirs.TRUNK not in stages.TRAIN.reads(full, None)

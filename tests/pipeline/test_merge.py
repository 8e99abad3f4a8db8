"""The stage ``merge``: experts from a trunk, scored for many mixtures, beside full proxies."""

import os
import shutil
import signal

import numpy as np
import pytest

from configs import paper
from olmix_jax import config
from olmix_jax.config import workdir as workdirs
from olmix_jax.laws.fit_result import FitResult
from olmix_jax.pipeline import merge as merging
from olmix_jax.pipeline import runner, stages
from olmix_jax.pipeline import train as training
from olmix_jax.proxy import merge, train
from olmix_jax.proxy.train_result import TrainInfo
from olmix_jax.swarm import csv_files, table
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError
from tests.pipeline.test_processes import LARGE, finish, started

STEPS, SHARED, BATCH, SIZE, MERGED = 8, 4, 8, 5, 14


def settings(**changes):
    c = paper.get_config("smoke")
    c.train.steps, c.train.batch, c.train.checkpoint_every, c.train.remat = STEPS, BATCH, 2, False
    c.proxy.preset, c.train.match_repeats, c.validate.steps, c.validate.seeds = "tiny", False, 8, 1
    c.swarm.size, c.swarm.min_runs, c.swarm.min_weight = SIZE, 1, 1 / 8
    c.swarm.trunk, c.swarm.merged = SHARED / STEPS, MERGED
    for name, value in changes.items():
        section, field = name.split("_", 1)
        c[section][field] = value
    return config.from_dict(c)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A workdir with full proxies and merged members."""
    workdir = tmp_path_factory.mktemp("merged") / "run"
    runner.run(settings(), workdir, ("prepare", "sample", "train"))
    return workdir


@pytest.fixture
def prepared(finished, tmp_path):
    """A workdir with a trunk, ready for training."""
    workdir = shutil.copytree(finished, tmp_path / "run")
    for name in ("swarm/metrics.csv", "swarm/meta.json", "swarm/curves.npz"):
        (workdir / name).unlink()
    for name in ("train", "merge", "swarm/merged"):
        shutil.rmtree(workdir / name)
    stamps = files.read_json(workdir / "stamps.json")
    files.write_json(workdir / "stamps.json", {name: stamps[name] for name in ("prepare", "sample", "trunk")})
    return workdir


def read(workdir):
    """Return the runs, columns and cells of the merged mixtures, and their scores."""
    ratios = csv_files.read_sheet(workdir / "swarm/merged/ratios.csv")
    metrics = csv_files.read_sheet(workdir / "swarm/merged/metrics.csv")
    assert list(ratios.rows) == list(metrics.rows)
    scores_KN = np.array([[float(row.cells[task]) for task in metrics.columns] for row in metrics.rows.values()])
    return ratios, metrics.columns, scores_KN


def test_merged_members_have_mixtures_scores_and_the_mark_of_cheap_runs(finished):
    ratios, tasks, scores_KN = read(finished)
    domains = workdirs.read_domains(finished)
    assert ratios.columns == (*domains.names, "fidelity") and len(ratios.rows) == MERGED
    assert {row.cells["fidelity"] for row in ratios.rows.values()} == {"cheap"}
    ratios_KM = np.array([[float(row.cells[name]) for name in domains.names] for row in ratios.rows.values()])
    np.testing.assert_allclose(ratios_KM.sum(axis=1), 1)
    assert np.abs(ratios_KM[0] - domains.natural_M).max() < 1 / (STEPS * BATCH)
    assert tasks == tuple(csv_files.read_sheet(finished / "swarm/metrics.csv").columns)
    assert np.isfinite(scores_KN).all() and len(np.unique(scores_KN[:, 0])) == MERGED
    # Other mixtures than those of the proxies, except natural.
    own = table.read_ratios(finished / "swarm/ratios.csv")
    assert not set(own.runs) & set(ratios.rows) and len(own.runs) == SIZE
    distance = 0.5 * np.abs(own.ratios_KM[:, None] - ratios_KM).sum(axis=2)
    assert (distance < 1e-9).sum() == 1


def test_proxies_beside_merged_members_are_full_and_costs_are_recorded(finished):
    proxies, experts = TrainInfo.read(finished / "train/info.json"), TrainInfo.read(finished / merging.INFO)
    domains = workdirs.read_domains(finished)
    assert (proxies.trunk_tokens, proxies.full_proxies) == (0, SIZE)
    assert experts.members == len(domains) and experts.full_proxies == (SHARED + len(domains) * SHARED) / STEPS
    assert not list(finished.glob("merge/**/checkpoints")) and (finished / "swarm/trunk/checkpoints").is_dir()
    # They are the proxies of the same swarm without merged members.
    plain = settings(swarm_merged=0, swarm_trunk=0.0)
    swarms = [training._job(given, finished, training.SWARM).swarm for given in (settings(), plain)]
    assert swarms[0].identity == swarms[1].identity


@pytest.mark.slow
def test_scores_are_those_of_experts_on_half_natural_and_half_a_domain(prepared):
    experts, domains = merging.train_experts(settings(), prepared), workdirs.read_domains(prepared)
    exact_JM = merge.expert_mixtures(domains.natural_M, 0.5)
    assert np.abs(merge.mixtures(experts.job.swarm) - exact_JM).max() < 1 / ((STEPS - SHARED) * BATCH)
    own_JN = experts.score(merge.mixtures(experts.job.swarm))
    trained = experts.job.run()  # reads the checkpoints of the last step
    np.testing.assert_allclose(own_JN, trained.bpb_KN, rtol=1e-5)
    runner.run(settings(), prepared, ("merge",))
    _, _, scores_KN = read(prepared)
    np.testing.assert_allclose(scores_KN, experts.score(merging.mixtures(settings(), prepared)), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("per_device", [None, pytest.param(1, marks=pytest.mark.slow)])
def test_resume_in_the_experts_and_waves_give_the_same_files(finished, prepared, monkeypatch, per_device):
    given, write = settings(swarm_members_per_device=per_device), train.Tracker.write

    def write_and_stop(self, step, *more):
        write(self, step, *more)
        if step == 6:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train.Tracker, "write", write_and_stop)
        runner.run(given, prepared, ("train",))
    assert not (prepared / workdirs.MERGED).exists()
    runner.run(given, prepared, ("train",))
    np.testing.assert_allclose(read(prepared)[2], read(finished)[2], rtol=1e-5)
    before = {path: path.stat().st_mtime_ns for path in prepared.glob("swarm/**/*")}
    runner.run(given, prepared, ("train", "merge"))
    assert {path: path.stat().st_mtime_ns for path in prepared.glob("swarm/**/*")} == before


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, LARGE], ids=["divided", "sharded"])
def test_two_processes_give_the_merged_members_of_one(finished, prepared, more):
    own = {"swarm_size": SIZE, "swarm_min_runs": 1, "swarm_min_weight": 1 / 8, "train_batch": BATCH}
    own |= {"swarm_trunk": SHARED / STEPS, "swarm_merged": MERGED, "validate_steps": 8}
    ends = finish(started(prepared, 2, "train", 1, **own, **more))
    assert [code for _, code in ends] == [0, 0], ends[0][0][1][-2000:]
    np.testing.assert_allclose(read(prepared)[2], read(finished)[2], rtol=1e-4)
    assert (TrainInfo.read(prepared / merging.INFO).mapping == "fsdp") == bool(more)


@pytest.mark.slow
def test_law_is_fitted_to_merged_members_and_proxies(finished, tmp_path):
    workdir = shutil.copytree(finished, tmp_path / "run")
    given = settings(fit_resamples=4, fit_starts=2)
    runner.run(given, workdir, ("fit",))
    result = FitResult.read(workdir / "fit/fit.json")
    assert (result.law, len(result.runs), result.cheap.runs) == ("two_fidelity", SIZE, MERGED)
    ratios, _, scores_KN = read(workdir)
    swarm = workdirs.read_table(given, workdir)
    assert len(swarm.runs) == SIZE and swarm.cheap.runs == tuple(ratios.rows)
    np.testing.assert_array_equal(swarm.cheap.bpb_JN, scores_KN)
    assert workdirs.MERGED in workdirs.table_files(workdir)
    assert workdirs.read_table(settings(swarm_merged=0), workdir).cheap is None


def test_other_numbers_and_settings_that_exclude_each_other_are_errors(finished, tmp_path):
    workdir = shutil.copytree(finished, tmp_path / "run")
    with pytest.raises(UserError, match=r"swarm/merged/metrics.csv.*: made with swarm.merged = 14, now it is 20"):
        runner.run(settings(swarm_merged=20), workdir, ("merge",))
    # The proxies do not depend on the number of merged members, only on whether there are any.
    for stage in (stages.SAMPLE, stages.TRAIN):
        assert runner.is_finished(settings(swarm_merged=20), workdir, stage)
        with pytest.raises(UserError, match="made before swarm.* changed"):
            runner.is_finished(settings(swarm_merged=0), workdir, stage)
    with pytest.raises(UserError, match="stage merge cannot be used with config field `swarm.part`"):
        runner.run(settings(swarm_part="1/2"), workdir, ("merge",))
    with pytest.raises(UserError, match="stage merge needs config field `swarm.merged`"):
        runner.run(settings(swarm_merged=0), workdir, ("merge",))
    shared = [stage.name for stage in stages.TRAIN.before(settings(), workdir)]
    assert shared == ["trunk", "merge"] and not stages.TRAIN.before(settings(swarm_part="1/2"), workdir)


def test_expert_that_diverged_is_an_error(prepared, monkeypatch):
    result = merging.jobs.Job.run

    def diverged(job):
        trained = result(job)
        trained.died_K[1] = 5
        return trained

    monkeypatch.setattr(merging.jobs.Job, "run", diverged)
    with pytest.raises(UserError, match="experts on .* diverged; lower `train.lr`"):
        runner.run(settings(), prepared, ("merge",))

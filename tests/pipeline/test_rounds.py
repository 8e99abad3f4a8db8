"""The stage ``rounds`` on a swarm trained here: rounds in order, their end, resuming, and what makes them stale."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from configs import paper
from olmix_jax import config, report
from olmix_jax.config import workdir as workdirs
from olmix_jax.laws.fit_result import FitResult
from olmix_jax.pipeline import next_runs, rounds, runner, stages
from olmix_jax.propose.proposal import Proposal
from olmix_jax.swarm import table
from olmix_jax.swarm.rounds import Round, Rounds
from olmix_jax.utils.errors import UserError
from tests.pipeline.test_processes import finish, started

FIRST = ("prepare", "sample", "train", "fit", "propose")


def settings(**changes):
    c = paper.get_config("smoke")
    c.train.steps, c.swarm.size, c.train.checkpoint_every, c.train.remat = 8, 12, 2, False
    c.proxy.preset, c.train.match_repeats, c.propose.next_runs, c.rounds.number = "tiny", False, 3, 2
    c.validate.steps, c.validate.seeds = 4, 1
    # A law with cheap fits.
    c.fit.law, c.fit.resamples, c.fit.starts = "log_linear", 8, 2
    for name, value in changes.items():
        section, field = name.split("_", 1)
        c[section][field] = value
    return config.from_dict(c)


@pytest.fixture(scope="module")
def proposed(tmp_path_factory):
    """A workdir with a proposal of a swarm that was trained there."""
    workdir = tmp_path_factory.mktemp("rounds") / "run"
    runner.run(settings(), workdir, FIRST)
    return workdir


@pytest.fixture
def workdir(proposed, tmp_path):
    return shutil.copytree(proposed, tmp_path / "run")


@pytest.fixture
def disagreeing(monkeypatch):
    """Every measurement disagrees with its promise."""
    measure = Round.measure
    monkeypatch.setattr(Round, "measure", lambda *a: dataclasses.replace(measure(*a), agrees=False))


def test_rounds_end_with_the_budget_also_after_interruptions(workdir, disagreeing, monkeypatch):
    """The run is interrupted after the first round is trained, and in the fit that follows."""
    planned, promised = next_runs.read(workdir), Proposal.read(workdir / "propose/proposal.json").gain
    for module, name in ((rounds, "_measure"), (FitResult, "write")):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(module, name, interrupt)
            runner.run(settings(), workdir, ("rounds",))
    before = (workdir / "rounds/1/metrics.csv").read_bytes()
    runner.run(settings(), workdir, ("rounds",))
    assert (workdir / "rounds/1/metrics.csv").read_bytes() == before
    one, two = Rounds.read(workdir).rounds
    assert (one.promised, one.low, one.high) == (promised.mean, promised.low, promised.high)
    assert one.runs == two.runs == 3 and one.tokens == 3 * 8 * 4 * 32 and one.agrees is False
    first = read_swarm(workdir / "rounds/1")
    assert first.runs == planned.runs
    np.testing.assert_array_equal(first.ratios_KM, planned.ratios_KM)
    # The first run of the swarm has the natural mixture.
    natural = read_swarm(workdir / "swarm").bpb_KN[0].mean()
    assert first.runs[0].startswith("proposal-") and one.measured == pytest.approx(natural - first.bpb_KN[0].mean())
    fit, swarm = FitResult.read(workdir / "fit/fit.json"), workdirs.read_table(settings(), workdir)
    assert fit.runs == swarm.runs and len(swarm.runs) == 12 + 3 + 3 and swarm.runs[12:15] == first.runs
    assert Proposal.read(workdir / "propose/proposal.json").fit == fit.digest
    assert list(workdir.glob("**/checkpoints")) == []
    assert report.summary(workdir)[-1] == f"round 2: {two.outcome}"
    files = {path: path.read_bytes() for path in workdir.glob("**/*.csv")}
    runner.run(settings(), workdir, ("fit", "propose", "rounds"))
    assert {path: path.read_bytes() for path in workdir.glob("**/*.csv")} == files


def interrupt(*_, **__):
    raise KeyboardInterrupt


def read_swarm(folder) -> table.SwarmTable:
    return table.SwarmTable.read(*(folder / f"{n}" for n in ("ratios.csv", "metrics.csv", "meta.json")))


def test_rounds_end_when_promise_and_measurement_agree(workdir, monkeypatch):
    measure = Round.measure
    monkeypatch.setattr(Round, "measure", lambda *a: dataclasses.replace(measure(*a), agrees=True))
    runner.run(settings(), workdir, ("rounds",))
    assert len(Rounds.read(workdir).rounds) == 1
    assert json.loads((workdir / "config.json").read_text())["rounds"]["number"] == 2
    # A swarm that was trained in another way cannot replace the one that the rounds belong to.
    with pytest.raises(UserError, match=r"made with train.lr = .*delete .*metrics.csv and .*train and .*rounds"):
        runner.run(settings(train_lr=0.5), workdir, ("train",))
    shutil.rmtree(workdir / "rounds/1/train")
    (workdir / "rounds/rounds.json").unlink()
    with pytest.raises(UserError, match="holds runs of a round that is not in .*rounds.json; restore that file"):
        runner.run(settings(), workdir, ("rounds",))


def test_rounds_that_end_without_telling_a_gain_from_none_say_so():
    unresolved = Round({}, {}, {}, 0.05, run_error=0.1, runs=2, measured=0.01, error=0.14, agrees=True)
    reason = rounds._reason_to_end(settings(), (unresolved,))
    assert "compatible, but the error is too large to tell a gain from none" in reason
    clear = dataclasses.replace(unresolved, measured=0.05, error=0.001)
    assert rounds._reason_to_end(settings(), (clear,)) == "the promise agrees with what was measured"


def test_agreement_ends_the_rounds_only_of_proposals_with_the_same_settings(workdir):
    runner.run(settings(), workdir, ("fit", "propose"))
    agreed = dataclasses.replace(next_runs.promise(settings(), workdir), measured=0.05, error=0.0, agrees=True)
    assert rounds._reason_to_end(settings(), (agreed,))
    assert rounds._reason_to_end(settings(rounds_number=9, train_remat=True), (agreed,))
    assert not rounds._reason_to_end(settings(propose_kl_weight=0.5), (agreed,))
    assert not rounds._reason_to_end(settings(fit_folds=3), (agreed,))
    assert rounds._reason_to_end(settings(fit_folds=3), (dataclasses.replace(agreed, settings=""),))


def test_checkpoints_of_a_round_stay_when_the_swarm_is_finished(tmp_path):
    for folder in ("train/checkpoints", "rounds/1/train/checkpoints"):
        (tmp_path / folder).mkdir(parents=True)
    runner._remove_checkpoints(tmp_path, stages.TRAIN)
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.glob("**/checkpoints")] == ["rounds/1/train/checkpoints"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"update": {"parent": "w"}}, "cannot be used with config field `update.parent`"),
        ({"swarm": {"part": "1/2"}}, "cannot be used with config field `swarm.part`"),
        ({"swarm": {"ratios": "r.csv", "metrics": "m.csv"}}, "needs config field `rounds.metrics`"),
        ({"propose": {"worst": True}}, "config field `propose.worst` proposes none"),
        ({"propose": {"next_runs": 1}}, "raise config field `propose.next_runs` = 1"),
    ],
)
def test_settings_that_rounds_cannot_use_are_errors(changes, message):
    with pytest.raises(UserError, match=message):
        runner.in_order(config.from_dict(changes), ("rounds",))


def test_rounds_run_on_request_or_with_scores():
    assert "rounds" not in runner.default_stages(config.Config())
    external = {"ratios": "r.csv", "metrics": "m.csv"}
    scored = config.from_dict({"swarm": external, "rounds": {"metrics": "s.csv"}})
    assert stages.ROUNDS in runner.in_order(scored, runner.default_stages(scored))


def test_rounds_without_a_swarm_name_the_stage_that_is_missing(tmp_path):
    with pytest.raises(UserError) as error:
        runner.run(settings(), tmp_path, ("rounds",))
    missing = tmp_path / "domains.json"
    assert str(error.value) == f"train needs {missing}, which does not exist; run --stages=prepare first"


def test_rounds_refuse_to_train_in_another_way_than_the_swarm(workdir):
    with pytest.raises(UserError, match=r"swarm/metrics.csv and .*: made with train.lr = .*, now it is 0.5"):
        runner.run(settings(train_lr=0.5), workdir, ("rounds",))
    assert not (workdir / "rounds").exists()


@pytest.mark.slow
def test_two_processes_train_the_runs_of_one(workdir, tmp_path):
    runner.run(settings(rounds_number=1), workdir, ("rounds",))
    other = shutil.copytree(workdir, tmp_path / "other")
    shutil.rmtree(other / "rounds")
    more = {"fit_law": "log_linear", "fit_resamples": 8, "fit_starts": 2, "propose_next_runs": 3, "rounds_number": 1}
    ends = finish(started(other, 2, "rounds", **more))
    assert [code for _, code in ends] == [0, 0], ends[0][0][1][-2000:]
    assert len(list((other / "rounds/1/train/parts").glob("*.npz"))) == 2
    ours, theirs = (read_swarm(folder / "rounds/1") for folder in (other, workdir))
    assert ours.runs == theirs.runs
    np.testing.assert_allclose(ours.bpb_KN, theirs.bpb_KN, rtol=1e-5)

"""Rounds of an external swarm, from ``propose/next.csv`` and back."""

import dataclasses
import logging
import shutil

import pytest

import olmix_jax
from olmix_jax import config, report
from olmix_jax.config import workdir as workdirs
from olmix_jax.laws.fit_result import FitResult
from olmix_jax.pipeline import collect, next_runs, runner
from olmix_jax.propose.proposal import Proposal
from olmix_jax.swarm import table
from olmix_jax.swarm.rounds import Rounds
from olmix_jax.utils.errors import UserError
from tests.pipeline import external
from tests.propose.cases import TASKS


@pytest.fixture
def given(tmp_path):
    """A workdir with a proposal, the file for scores of its next runs, and a config that names that file."""
    scores, workdir = tmp_path / "scores.csv", tmp_path / "work"
    settings = external.settings(tmp_path, metrics=str(scores))
    olmix_jax.run(settings, workdir, ("fit", "propose"))
    return workdir, scores, settings


def test_scores_of_next_runs_are_fitted_and_compared_with_the_promise(given, caplog):
    """Two rounds with the default stages: the first is trained in two parts, each in its own file."""
    workdir, scores, settings = given
    assert runner.default_stages(settings) == ("fit", "propose", "rounds", "report")
    promised = Proposal.read(workdir / "propose/proposal.json")
    first = external.train(workdir / "propose/next.csv", scores, slice(0, 5))
    with caplog.at_level(logging.INFO):
        olmix_jax.run(settings, workdir)
    assert "round 1: 3 runs without scores: next-" in caplog.text
    (one,) = Rounds.read(workdir).rounds
    assert (one.runs, one.tokens, one.promised) == (5, None, promised.gain.mean)
    true = external.bpb([list(one.natural.values()), list(one.proposed.values())]).mean(axis=1)
    assert one.measured == pytest.approx(true[0] - true[1]) and one.agrees
    assert FitResult.read(workdir / "fit/fit.json").runs[12:] == tuple(first)
    assert f"round 1: {one.outcome}" in report.summary(workdir)
    assert "Rounds: promise and measurement" in (workdir / "report/index.html").read_text()
    # The other runs of the first round, and the second round.
    planned, second = table.read_ratios(workdir / "rounds/1/next.csv"), next_runs.read(workdir)
    assert not set(first) & set(second.runs)
    # A mixture that was not trained may be proposed again; it has the same id.
    mixtures = dict(zip(planned.runs[5:] + second.runs, [*planned.ratios_KM[5:], *second.ratios_KM]))
    external.write(scores, mixtures, TASKS, external.bpb(list(mixtures.values())).tolist())
    olmix_jax.run(settings, workdir, ("rounds",))
    rounds = Rounds.read(workdir).rounds
    assert [each.runs for each in rounds] == [8, 8] and all(each.agrees for each in rounds)
    assert len(FitResult.read(workdir / "fit/fit.json").runs) == 12 + 5 + len(mixtures)


def test_scores_are_collected_before_a_changed_setting_replaces_the_proposal(given):
    """The default stages start with fit and propose, and would write another ``next.csv``."""
    workdir, scores, settings = given
    trained = external.train(workdir / "propose/next.csv", scores)
    promised = Proposal.read(workdir / "propose/proposal.json").gain.mean
    other = dataclasses.replace(settings, propose=dataclasses.replace(settings.propose, kl_weight=0.5))
    olmix_jax.run(other, workdir)
    (one,) = Rounds.read(workdir).rounds
    assert (one.runs, one.promised) == (8, promised)
    assert FitResult.read(workdir / "fit/fit.json").runs[12:] == tuple(trained)


def test_nothing_changes_when_the_same_scores_are_read_again(given, caplog):
    workdir, scores, settings = given
    external.train(workdir / "propose/next.csv", scores)
    olmix_jax.run(settings, workdir, ("rounds",))
    before = {path: path.read_bytes() for path in workdir.glob("*/**/*.csv")}
    with caplog.at_level(logging.INFO):
        olmix_jax.run(settings, workdir, ("rounds",))
    assert caplog.text.count("finished, skipped") == 2
    assert {path: path.read_bytes() for path in workdir.glob("*/**/*.csv")} == before


def test_runs_without_scores_are_not_trained_yet(given, caplog):
    workdir, scores, settings = given
    runs = next_runs.read(workdir).runs
    external.write(scores, runs, TASKS, [["", ""]] * len(runs))
    with caplog.at_level(logging.INFO):
        collect.run(settings, workdir)
    assert "scores.csv has no scores of runs of" in caplog.text and not Rounds.read(workdir).rounds


def test_columns_may_have_the_prefix_of_regmix(given):
    workdir, scores, settings = given
    mixtures = next_runs.read(workdir)
    columns = [f"metric/{task}" for task in TASKS]
    external.write(scores, mixtures.runs, columns, external.bpb(mixtures.ratios_KM).tolist())
    collect.run(settings, workdir)
    assert workdirs.read_table(settings, workdir).runs[12:] == mixtures.runs


def test_scores_of_the_swarm_may_be_in_the_same_file(given):
    workdir, _, settings = given
    swarm, mixtures = workdirs.read_table(settings, workdir), next_runs.read(workdir)
    rows = [*swarm.bpb_KN.tolist(), *external.bpb(mixtures.ratios_KM).tolist()]
    external.write(settings.swarm.metrics, [*swarm.runs, *mixtures.runs], TASKS, rows)
    settings = dataclasses.replace(settings, rounds=config.Rounds(metrics=settings.swarm.metrics))
    collect.run(settings, workdir)
    assert Rounds.read(workdir).rounds[0].runs == 8


def test_rounds_are_not_joined_to_another_swarm(given, tmp_path):
    workdir, scores, settings = given
    external.train(workdir / "propose/next.csv", scores)
    collect.run(settings, workdir)
    assert len(Rounds.read(workdir).rounds[0].swarm) == 12
    ratios = tmp_path / "ratios.csv"
    ratios.write_text(ratios.read_text().replace("\nr", "\ns"))
    (tmp_path / "metrics.csv").write_text((tmp_path / "metrics.csv").read_text().replace("\nr", "\ns"))
    with pytest.raises(UserError, match="rounds/1 belongs to another swarm"):
        olmix_jax.run(settings, workdir)


def test_columns_that_the_swarm_lacks_are_left_out(given):
    workdir, scores, settings = given
    mixtures = next_runs.read(workdir)
    rows = [[*bpb_N, "a note"] for bpb_N in external.bpb(mixtures.ratios_KM).tolist()]
    external.write(scores, mixtures.runs, [*TASKS, "note"], rows)
    collect.run(settings, workdir)
    assert (workdir / "rounds/1/metrics.csv").read_text().startswith("run,name,index,math,chat\n")


def test_only_recorded_rounds_are_fitted(given, monkeypatch):
    """The run is interrupted before the round is recorded, and then completed."""
    workdir, scores, settings = given
    external.train(workdir / "propose/next.csv", scores)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Rounds, "write", interrupt)
        collect.run(settings, workdir)
    assert len(workdirs.read_table(settings, workdir).runs) == 12
    collect.run(settings, workdir)
    assert len(workdirs.read_table(settings, workdir).runs) == 20


def interrupt(*_):
    raise KeyboardInterrupt


def test_next_runs_with_other_domains_are_an_error_that_changes_nothing(given):
    workdir, scores, settings = given
    path = workdir / "propose/next.csv"
    shutil.rmtree(workdir / "rounds")
    path.write_text(path.read_text().replace("index,a,b,c", "index,a,b,d"))
    external.train(path, scores)
    with pytest.raises(UserError, match="next.csv: its domains and those of .*ratios.csv differ in c, d; give"):
        collect.run(settings, workdir)
    assert not (workdir / "rounds").exists()


def test_scores_of_a_replaced_proposal_are_compared_with_its_own_promise(given):
    """``next.csv`` is replaced twice before the runs of the first one are trained; a run is in several of them."""
    workdir, scores, settings = given
    first = workdir.with_name("first.csv")
    shutil.copyfile(workdir / "propose/next.csv", first)
    promised = Proposal.read(workdir / "propose/proposal.json").gain.mean
    for kl_weight in (0.5, 0.3):
        other = dataclasses.replace(settings, propose=dataclasses.replace(settings.propose, kl_weight=kl_weight))
        olmix_jax.run(other, workdir, ("fit", "propose"))
    trained = external.train(first, scores)
    assert next_runs.read(workdir).runs != tuple(trained)
    collect.run(other, workdir)
    (one,) = Rounds.read(workdir).rounds
    assert (one.runs, one.promised) == (8, promised)
    assert table.read_ratios(workdir / "rounds/1/next.csv").runs == tuple(trained)


def test_scores_of_a_proposal_for_another_swarm_are_an_error(given, tmp_path):
    workdir, scores, settings = given
    external.train(workdir / "propose/next.csv", scores)
    for path in (tmp_path / "ratios.csv", tmp_path / "metrics.csv"):
        path.write_text(path.read_text().replace("\nr", "\ns"))
    with pytest.raises(UserError, match="scores.csv: proposal-.* was proposed for another swarm than .*; give"):
        olmix_jax.run(settings, workdir)
    assert not Rounds.read(workdir).rounds


@pytest.mark.parametrize(
    ("runs", "tasks", "row", "message"),
    [
        (["proposal-0000"], TASKS, [1, 1], "proposal-0000: no such run in .*next.csv.*add its mixture to swarm.ratios"),
        ([], ("math", "talk"), [1, 1], "line 1: no column chat; it needs the scores of all 2 tasks of .*metrics.csv"),
        ([], TASKS, [1, ""], r"line 2 \(run proposal-.*column chat: empty; complete the scores of the run"),
        ([], TASKS, [1, "1,5"], "column chat: '1,5' is not a finite number; write decimals with a point"),
    ],
)
def test_wrong_scores_are_errors_that_change_nothing(given, runs, tasks, row, message):
    workdir, scores, settings = given
    external.write(scores, runs or next_runs.read(workdir).runs[:1], tasks, [row])
    with pytest.raises(UserError, match=message):
        olmix_jax.run(settings, workdir, ("rounds",))
    assert not (workdir / "rounds/1").exists()
    assert len(workdirs.read_table(settings, workdir).runs) == 12


def test_scored_cheap_runs_join_the_cheap_ones(given):
    workdir, scores, settings = given
    mixtures = next_runs.read(workdir)
    for path in (workdir / next_runs.PATH, *(workdir / next_runs.ARCHIVE).glob("*.csv")):
        table.write_ratios(path, *mixtures._replace(cheap=mixtures.runs[5:]))
    trained = external.train(workdir / next_runs.PATH, scores, slice(6, 8))
    collect.run(settings, workdir)
    found = workdirs.read_table(settings, workdir)
    assert len(found.runs) == 12 and found.cheap.runs == tuple(trained) and found.cheap.cost is None
    trained += external.train(workdir / next_runs.PATH, scores, slice(1, 6))
    collect.run(settings, workdir)
    found = workdirs.read_table(settings, workdir)
    assert found.runs[12:] == mixtures.runs[1:5] and found.cheap.runs == mixtures.runs[5:]
    assert Rounds.read(workdir).rounds[0].runs == 7

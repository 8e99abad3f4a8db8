"""pipeline/next_runs.py: the runs in ``propose/next.csv``, and what a proposal promises for them."""

import dataclasses

import numpy as np
import pytest

import olmix_jax
from olmix_jax.config import workdir as workdirs
from olmix_jax.laws.fit_result import FitResult
from olmix_jax.pipeline import next_runs, propose, rounds
from olmix_jax.propose.proposal import Proposal
from olmix_jax.swarm import table
from olmix_jax.utils.errors import UserError
from tests.pipeline import external


@pytest.fixture(scope="module")
def proposed(tmp_path_factory):
    """A workdir with a proposal for an external swarm, and its config."""
    folder = tmp_path_factory.mktemp("next")
    settings = external.settings(folder)
    olmix_jax.run(settings, folder / "work", ("fit", "propose"))
    return folder / "work", settings


def roles(mixtures) -> list[str]:
    return [run.rpartition("-")[0] for run in mixtures.runs]


def test_proposal_natural_and_points_between_them_come_first(proposed):
    workdir, _ = proposed
    proposal, mixtures = Proposal.read(workdir / "propose/proposal.json"), next_runs.read(workdir)
    assert roles(mixtures) == ["proposal", "natural", "path", "path", *["next"] * 4]
    p_M, natural_M = (np.array(list(of.values())) for of in (proposal.weights, proposal.natural))
    expected = [p_M, natural_M, (2 * p_M + natural_M) / 3, (p_M + 2 * natural_M) / 3]
    np.testing.assert_allclose(mixtures.ratios_KM[:4], expected, atol=1e-12)
    assert list(proposal.next_runs) == list(mixtures.runs)
    left = list(proposal.next_runs.values())
    assert left == sorted(left, reverse=True) and 0 < left[-1] < 1


def test_runs_have_the_same_ids_only_if_their_mixtures_are_the_same(proposed, tmp_path):
    workdir, settings = proposed
    first = next_runs.read(workdir).runs
    propose.run(settings, workdir)
    assert next_runs.read(workdir).runs == first
    other = dataclasses.replace(settings, propose=dataclasses.replace(settings.propose, kl_weight=0.5))
    (tmp_path / "fit").symlink_to(workdir / "fit")
    propose.run(other, tmp_path)
    again = next_runs.read(tmp_path).runs
    assert first[1] == again[1] and not set(first[:1] + first[2:4]) & set(again)


def test_law_without_covariances_has_only_the_runs_that_test_the_proposal(proposed, tmp_path):
    workdir, settings = proposed
    settings = dataclasses.replace(settings, fit=dataclasses.replace(settings.fit, resamples=0))
    olmix_jax.run(settings, tmp_path, ("fit", "propose"))
    assert roles(next_runs.read(tmp_path)) == ["proposal", "natural", "path", "path"]
    assert not Proposal.read(tmp_path / "propose/proposal.json").next_runs
    promised = next_runs.promise(settings, tmp_path)
    assert promised.low is promised.high is None and promised.promised > 0


def test_mixtures_that_the_swarm_has_and_close_points_are_left_out(proposed):
    workdir, settings = proposed
    swarm, proposal = workdirs.read_table(settings, workdir), Proposal.read(workdir / "propose/proposal.json")
    ratios_KM = np.vstack([swarm.ratios_KM[:-1], list(proposal.natural.values())])
    swarm = dataclasses.replace(swarm, ratios_KM=ratios_KM)
    testing = next_runs._testing_runs(settings, workdir, swarm, proposal)
    assert [role for role, _ in testing] == ["proposal", "path", "path"]
    settings = dataclasses.replace(settings, swarm=dataclasses.replace(settings.swarm, min_distance=0.5))
    assert [role for role, _ in next_runs._testing_runs(settings, workdir, swarm, proposal)] == ["proposal"]
    assert next_runs._testing_runs(settings, workdir, swarm, dataclasses.replace(proposal, worst=True)) == []


def test_promise_is_that_of_the_proposal_with_the_error_of_held_out_runs(proposed):
    workdir, settings = proposed
    promised, proposal = next_runs.promise(settings, workdir), Proposal.read(workdir / "propose/proposal.json")
    gain = proposal.gain
    assert (promised.promised, promised.low, promised.high) == (gain.mean, gain.low, gain.high)
    assert promised.proposed == pytest.approx(proposal.weights) and promised.runs == 0
    fit = FitResult.read(workdir / "fit/fit.json")
    error_K = np.mean([np.subtract(fit.measured[t], fit.predicted_cv[t]) for t in fit.tasks], axis=0)
    assert promised.run_error == pytest.approx(np.sqrt(np.mean(error_K**2)))


def test_missing_next_runs_are_an_error_that_says_what_to_change(tmp_path):
    with pytest.raises(UserError, match="next.csv does not exist.*raise propose.next_runs.*--stages=propose"):
        next_runs.read(tmp_path)


def test_cheap_runs_are_marked_and_a_round_trains_the_real_ones(proposed, tmp_path, monkeypatch):
    """The law of this swarm has no cheap runs, so the choice is replaced."""
    workdir, settings = proposed
    choose, proposal = next_runs.next_runs.propose_next, Proposal.read(workdir / "propose/proposal.json")
    (tmp_path / "fit").symlink_to(workdir / "fit")

    def with_cheap(*args, **arguments):
        found = choose(*args, **arguments)
        return found._replace(cheap_B=np.arange(len(found.cheap_B)) >= 6)

    monkeypatch.setattr(next_runs.next_runs, "propose_next", with_cheap)
    propose.run(settings, tmp_path)
    mixtures = next_runs.read(tmp_path)
    assert roles(mixtures) == ["proposal", "natural", "path", "path", "next", "next", "cheap", "cheap"]
    assert set(mixtures.cheap) == set(mixtures.runs[6:])
    assert list(Proposal.read(tmp_path / "propose/proposal.json").next_runs.values()) == list(
        proposal.next_runs.values()
    )
    assert next_runs.archived(tmp_path)[0][0].cheap == mixtures.cheap
    rounds._choose(settings, tmp_path, 1)
    assert table.read_ratios(tmp_path / "rounds/1/ratios.csv").runs == mixtures.runs[:6]
    # Without cheap runs, the file has no column of kinds.
    assert (workdir / next_runs.PATH).read_text().splitlines()[0] == "run,name,index,a,b,c"

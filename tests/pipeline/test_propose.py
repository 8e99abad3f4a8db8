"""The stage ``propose`` on a swarm of CSV files."""

import csv
import re
import shutil

import numpy as np
import pytest

import olmix_jax
from olmix_jax import config, report
from olmix_jax.laws import evaluate, log_linear
from olmix_jax.laws.fit_result import FitResult
from olmix_jax.pipeline import handover, propose
from olmix_jax.propose import make_proposal, next_runs, uncertainty
from olmix_jax.propose.proposal import Proposal
from olmix_jax.report import results
from olmix_jax.solver.status import Status
from olmix_jax.swarm import table
from olmix_jax.utils import files, progress
from olmix_jax.utils.errors import UserError
from tests.propose.cases import PARAMS, TASKS, log_linear_proposal, weights_of
from tests.report import samples


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A workdir with a finished proposal for runs without noise, and its config."""
    folder = tmp_path_factory.mktemp("propose")
    ratios_KM = np.random.default_rng(0).dirichlet(np.ones(3), size=12)
    bpb_KN = evaluate(log_linear.LAW, PARAMS, ratios_KM)
    for name, columns, rows in (("ratios", ("a", "b", "c"), ratios_KM), ("metrics", TASKS, bpb_KN)):
        with open(folder / f"{name}.csv", "w", newline="") as f:
            writer = csv.writer(f)
            writer.writerow(["run", "name", "index", *columns])
            writer.writerows([f"r{k}", f"r{k}", k, *row.tolist()] for k, row in enumerate(rows))
    settings = config.from_dict(
        {
            "swarm": {
                "ratios": str(folder / "ratios.csv"),
                "metrics": str(folder / "metrics.csv"),
                "meta": '{"relative_sizes": {"a": 0.1, "b": 0.3, "c": 0.6}}',
            },
            "fit": {"law": "log_linear", "resamples": 12, "folds": 3},
            "propose": {"explore": False},
        }
    )
    olmix_jax.run(settings, folder, ("fit", "propose"))
    return folder, settings


def test_stage_writes_the_proposal_of_the_fitted_law(workdir):
    folder, _ = workdir
    proposal = Proposal.read(folder / "propose/proposal.json")
    assert proposal.status is Status.OPTIMAL and 0 < proposal.gain.samples <= 12
    assert proposal.fit == files.read_json(folder / "fit/fit.json")["digest"]
    np.testing.assert_allclose(weights_of(proposal), weights_of(log_linear_proposal()), atol=1e-4)


def test_stage_writes_next_runs_and_files_for_trainers(workdir):
    folder, _ = workdir
    proposal = Proposal.read(folder / "propose/proposal.json")
    assert len((folder / "propose/next.csv").read_text().splitlines()) == 1 + 8 == 1 + len(proposal.next_runs)
    assert all((folder / export.file).is_file() for export in proposal.handover.values())


def test_failed_optional_parts_leave_the_proposal(workdir, tmp_path, monkeypatch):
    folder, settings = workdir
    shutil.copytree(folder, tmp_path / "run")
    path, written = tmp_path / "run/propose/proposal.json", []
    (tmp_path / "run/propose/handover/old.json").write_text("of an earlier proposal")
    path.unlink()

    def fail(*_, **__):
        written.append(Proposal.read(path).fit)
        raise ValueError("a defect")

    failing = (
        (make_proposal, "sensitivity"),
        (uncertainty, "error_bars"),
        (handover, "write"),
        (next_runs, "propose_next"),
    )
    for module, name in failing:
        monkeypatch.setattr(module, name, fail)
    propose.run(settings, tmp_path / "run")
    # The required part was on disk when each optional part failed.
    proposal = Proposal.read(path)
    assert written == [proposal.fit] * 4
    assert [text.split(" are left out: ValueError")[0] for text in proposal.left_out] == [
        "sensitivities",
        "error bars",
        "files for trainers",
        "next runs",
    ]
    assert not (tmp_path / "run/propose/handover/old.json").exists()
    np.testing.assert_allclose(weights_of(proposal), weights_of(log_linear_proposal()), atol=1e-4)


def test_no_text_contradicts_what_was_minimised(workdir, tmp_path):
    """The weighted BPB falls and the plain mean rises: every comparison says lower, except those of the plain mean."""
    folder, settings = workdir
    shutil.copytree(folder, tmp_path / "run")
    plain = files.plain(settings)
    sections = {
        "swarm": plain["swarm"] | {"meta": '{"relative_sizes": {"a": 0.6, "b": 0.2, "c": 0.2}}'},
        "propose": plain["propose"] | {"task_weights": '{"chat": 1}'},
    }
    weighted = config.from_dict(plain | sections)
    propose.run(weighted, tmp_path / "run")
    headline = files.read_json(tmp_path / "run/propose/proposal.json")["headline"]
    assert headline["name"] == "task chat alone" and headline["proposed"] < headline["natural"]
    assert headline["plain_proposed"] > headline["plain_natural"]
    files.write_json(tmp_path / "run/config.json", weighted)
    text = samples.page_without_figures(results.read(tmp_path / "run")).text
    for line in (*report.summary(tmp_path / "run"), text):
        for rise in re.finditer(r"% higher|: \+[\d.]+ %", line):
            assert "plain mean over tasks" in line[: rise.start()][-90:]
    assert re.search(r"against natural [\d.]+ \([\d.]+ % lower\), task chat alone; plain mean", text)
    assert f"{100 * (headline['proposed'] / headline['natural'] - 1):+.2f} %".replace("-", "−") in text


def test_next_runs_are_drawn_with_the_settings_of_the_swarm(workdir, monkeypatch):
    folder, settings = workdir
    seen = {}

    def record(*_, **arguments):
        seen.update(arguments)
        raise UserError("enough")

    monkeypatch.setattr(next_runs, "propose_next", record)
    sampler = {"sparsity": "dense", "strength": (2.0, 3.0), "min_weight": 1e-5, "min_distance": 0.3, "min_runs": 7}
    plain = files.plain(settings)
    propose.run(config.from_dict(plain | {"swarm": plain["swarm"] | sampler}), folder)
    assert sampler.items() <= seen.items() and seen["total"] == 100_000


def test_fit_with_a_law_other_than_the_configured_one_is_an_error(workdir):
    folder, settings = workdir
    other = config.from_dict(files.plain(settings) | {"fit": {"law": "warped_gp"}})
    with pytest.raises(UserError, match="different law or different tasks.*--stages=fit,propose"):
        propose.run(other, folder)


@pytest.mark.slow
def test_cheap_runs_are_fitted_by_default_and_a_proposal_follows(tmp_path, monkeypatch):
    draw = np.random.default_rng(0)
    ratios_KM, cheap_K = draw.dirichlet(np.ones(3), size=30), np.arange(30) >= 8
    bpb_KN = evaluate(log_linear.LAW, PARAMS, ratios_KM)
    bpb_KN = np.where(cheap_K[:, None], bpb_KN.mean(axis=0) * (bpb_KN / bpb_KN.mean(axis=0)) ** 0.5, bpb_KN)
    bpb_KN = bpb_KN * np.exp(0.003 * draw.normal(size=bpb_KN.shape))
    runs, natural_M = [f"r{k}" for k in range(30)], np.array([0.1, 0.3, 0.6])
    facts = ratios_KM, bpb_KN, natural_M, 1e9 * natural_M, {}
    table.write_swarm(tmp_path, runs, runs, ("a", "b", "c"), TASKS, *facts, cheap=runs[8:])
    files_of_swarm = {name: str(tmp_path / f"{name}.csv") for name in ("ratios", "metrics")}
    settings = config.from_dict(
        {
            "swarm": files_of_swarm | {"meta": str(tmp_path / "meta.json")},
            "fit": {"resamples": 12, "folds": 4},
            "propose": {"explore": False},
        }
    )
    lines = []
    monkeypatch.setattr(progress.log, "info", lambda text, *args: lines.append(text % args))
    olmix_jax.run(settings, tmp_path / "run", ("fit", "propose"))
    fit = FitResult.read(tmp_path / "run/fit/fit.json")
    assert (fit.law, len(fit.runs), fit.cheap.runs, fit.cheap.used) == ("two_fidelity", 8, 22, True)
    assert {"fit: two_fidelity from 22 cheap runs and 8 real runs", f"fit: {fit.cheap}"} <= set(lines)
    proposal = Proposal.read(tmp_path / "run/propose/proposal.json")
    assert proposal.gain.mean > 0 and not proposal.left_out
    assert np.abs(weights_of(proposal) - weights_of(log_linear_proposal())).sum() < 0.5
    assert len(proposal.next_runs) > 2

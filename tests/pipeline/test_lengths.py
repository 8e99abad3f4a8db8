"""A swarm of files whose runs differ in length and pools, from ``swarm.tokens`` to the page."""

import dataclasses
import json
import logging

import pytest

import olmix_jax
from olmix_jax import config
from olmix_jax.laws.fit_result import FitResult
from olmix_jax.propose.proposal import Proposal
from olmix_jax.utils.errors import UserError
from tests.laws.exposed import DOMAINS, TASKS, UNIQUE_M, world
from tests.pipeline import external


def settings(folder, **fit):
    of, ids = world(0, runs=16), [f"r{k}" for k in range(16)]
    meta = {"token_counts": dict(zip(DOMAINS, UNIQUE_M.tolist()))}
    tokens = [[tokens, *unique_M] for tokens, unique_M in zip(*(x.tolist() for x in of.lengths))]
    swarm = {
        "ratios": str(external.write(folder / "ratios.csv", ids, DOMAINS, of.ratios_KM.tolist())),
        "metrics": str(external.write(folder / "metrics.csv", ids, TASKS, of.bpb_KN.tolist())),
        "tokens": str(external.write(folder / "tokens.csv", ids, ("tokens", *DOMAINS), tokens)),
        "meta": json.dumps(meta),
    }
    fit = {"law": "exposure", "resamples": 8, "folds": 3} | fit
    return config.from_dict({"swarm": swarm, "fit": fit, "propose": {"explore": False, "target_tokens": 1e9}})


@pytest.mark.slow
def test_law_is_fitted_to_lengths_and_read_at_the_target(tmp_path, caplog):
    given, work = settings(tmp_path), tmp_path / "work"
    with caplog.at_level(logging.INFO):
        olmix_jax.run(given, work)
    sentence = "mixtures are read at 1e+09 training tokens (runs: 1e+09 to 4e+09) and the repetition that follows"
    assert f"propose: {sentence}" in caplog.text
    assert sentence in (work / "report/index.html").read_text()
    fit = FitResult.read(work / "fit/fit.json")
    assert "length" in fit.tasks["x"].parameters and fit.warnings == () and fit.outliers == ()
    first = Proposal.read(work / "propose/proposal.json")
    assert first.left_out == () and first.next_runs
    # Another target needs no new fit, and other lengths do.
    other = dataclasses.replace(given, propose=dataclasses.replace(given.propose, target_tokens=3e9))
    olmix_jax.run(other, work, ("propose",))
    assert FitResult.read(work / "fit/fit.json").digest == fit.digest
    second = Proposal.read(work / "propose/proposal.json")
    assert second.read_at.tokens == 3e9 and second.predicted_natural["x"] < first.predicted_natural["x"]
    text = (tmp_path / "tokens.csv").read_text()
    (tmp_path / "tokens.csv").write_text(text.replace("1000000000.0", "2e9"))
    olmix_jax.run(other, work, ("fit",))
    assert FitResult.read(work / "fit/fit.json").digest != fit.digest


def test_law_of_weights_says_that_lengths_are_noise_to_it(tmp_path):
    olmix_jax.run(settings(tmp_path, law="log_linear", starts=1, resamples=0), tmp_path / "work", ("fit",))
    (text,) = FitResult.read(tmp_path / "work/fit/fit.json").warnings
    assert "fit.law=log_linear reads weights only and takes the difference for noise; set fit.law=exposure" in text


def test_missing_file_is_an_error_that_names_it(tmp_path):
    given = settings(tmp_path)
    (tmp_path / "tokens.csv").unlink()
    with pytest.raises(UserError, match="tokens.csv"):
        olmix_jax.run(given, tmp_path / "work", ("fit",))

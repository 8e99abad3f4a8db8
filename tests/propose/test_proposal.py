"""The record of ``proposal.json`` and its parts (:mod:`olmix_jax.propose.proposal_parts`)."""

import dataclasses
import json

import numpy as np
import pytest

from olmix_jax.propose.proposal import Proposal
from olmix_jax.propose.proposal_parts import Certificate, Counts, by_name
from olmix_jax.solver.status import Status
from olmix_jax.utils import files, records
from olmix_jax.utils.errors import UserError
from tests.propose.cases import log_linear_proposal, sampled_params


def reread(proposal: Proposal) -> Proposal:
    """The proposal as it comes back from its file; JSON has no NaN or infinity."""
    return records.from_plain(Proposal, json.loads(json.dumps(records.plain(proposal), allow_nan=False)))


def full_proposal() -> Proposal:
    return log_linear_proposal(
        samples=sampled_params(0.1),
        tokens_M=np.array([5e9, 20e9, 1e12]),
        target_tokens=1e11,
        bounds={"web:*": [0, 0.5]},
        families={"m": ["math"], "c": ["chat"]},
        explore=True,
    )


def test_written_proposal_reads_back_equal(tmp_path):
    proposal = full_proposal()
    proposal.write(tmp_path / "proposal.json")
    assert Proposal.read(tmp_path / "proposal.json") == proposal
    content = files.read_json(tmp_path / "proposal.json")
    assert content["schema"] == 1 and content["status"] == "optimal" and "guard" not in content


@pytest.mark.parametrize(
    "change, message",
    [
        ({"status": "fine"}, "status must be one of optimal"),
        ({"weights": [1]}, "weights must be an object"),
        ({"natural": {"web:a": 1.0}}, "natural lacks a value for 'web:b'"),
        ({"predicted_low": {"math": 1.0}}, "predicted_low lacks a value for 'chat'"),
    ],
)
def test_malformed_file_is_an_error_that_names_the_field(tmp_path, change, message):
    content = records.plain(full_proposal()) | change
    files.write_json(tmp_path / "proposal.json", content)
    with pytest.raises(UserError, match=message):
        Proposal.read(tmp_path / "proposal.json")


@pytest.mark.parametrize(
    "status, certificate, text",
    [
        (Status.OPTIMAL, Certificate(gap=1e-12, iterations=9, residual=0.0), "optimal"),
        (Status.LOCAL_OPTIMUM, Certificate(gap=None, starts=8, agreeing=3, residual=0.0), "reached from 3 of 8 starts"),
        (Status.SEARCHED, Certificate(gap=None, candidates=3), "best of 3 candidates"),
        (Status.MAX_ITERATIONS, Certificate(gap=0.01, iterations=500, residual=0.1), "not converged (gap 0.01"),
    ],
)
def test_outcome_describes_the_status(status, certificate, text):
    proposal = dataclasses.replace(log_linear_proposal(), status=status, certificate=certificate)
    assert text in proposal.outcome


def test_counts_are_either_sequences_or_tokens():
    with pytest.raises(ValueError, match="either sequences or tokens"):
        Counts(8).check()
    with pytest.raises(ValueError, match="either sequences or tokens"):
        Counts(8, sequences={"a": 1}, tokens={"a": 8}).check()
    Counts(8, sequences={"a": 1}).check()


def test_by_name_needs_as_many_values_as_names():
    assert by_name(("a", "b"), np.array([1.0, 2.0])) == {"a": 1.0, "b": 2.0}
    with pytest.raises(ValueError):
        by_name(("a", "b"), np.ones(3))

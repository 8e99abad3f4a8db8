"""Domains at their caps, and what sets the caps."""

import dataclasses

from olmix_jax.report import caps
from tests.report.samples import HOSTILE


def test_domain_at_its_repetition_cap(small):
    assert caps.at_cap(small.proposal) == caps.at_repetition_cap(small.proposal) == (HOSTILE,)
    assert caps.at_upper_bound(small.proposal) == ()


def test_upper_bound_is_not_a_repetition_cap(small):
    _, bounded, _ = small.proposal.weights
    changed = {"caps": small.proposal.caps | {bounded: small.proposal.weights[bounded]}}
    changed["capped_by"] = small.proposal.capped_by | {bounded: "bound"}
    proposal = dataclasses.replace(small.proposal, **changed)
    assert caps.at_cap(proposal) == (HOSTILE, bounded)
    assert caps.at_repetition_cap(proposal) == (HOSTILE,) and caps.at_upper_bound(proposal) == (bounded,)


def test_excluded_domain_is_not_at_its_cap(small):
    weights = small.proposal.weights | {HOSTILE: 0.0}
    proposal = dataclasses.replace(small.proposal, weights=weights, caps=small.proposal.caps | {HOSTILE: 0.0})
    assert caps.at_cap(proposal) == ()


def test_no_cap_is_a_cap_of_one(small):
    proposal = dataclasses.replace(small.proposal, caps=dict.fromkeys(small.proposal.weights) | {HOSTILE: 7.0})
    assert {caps.cap_of(proposal, d) for d in proposal.weights} == {1.0}

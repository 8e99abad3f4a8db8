import dataclasses
import logging

import numpy as np
import pytest

from olmix_jax.propose.swarm_facts import SwarmFacts
from olmix_jax.swarm.lengths import Lengths
from olmix_jax.swarm.table import SwarmTable
from olmix_jax.utils.errors import UserError


def table(runs, natural_M):
    ratios_KM, bpb_KN = np.full((runs, 2), 0.5), np.ones((runs, 1))
    names = tuple(f"r{k}" for k in range(runs))
    return SwarmTable(names, ("a", "b"), ("t",), ratios_KM, bpb_KN, natural_M, None, ())


def test_facts_of_a_table_include_its_runs():
    facts = SwarmFacts.from_table(table(3, np.array([0.4, 0.6])), {"all": ["t"]})
    assert facts.domains == ("a", "b") and facts.tasks == ("t",) and facts.families == {"all": ["t"]}
    assert facts.ratios_KM.shape == (3, 2) and facts.bpb_KN.shape == (3, 1)


def test_table_without_runs_gives_no_runs():
    facts = SwarmFacts.from_table(table(0, np.array([0.4, 0.6])))
    assert facts.ratios_KM is None and facts.bpb_KN is None


def test_pools_of_the_median_run_stand_for_token_counts(caplog):
    lengths = Lengths(np.array([1e9, 2e9, 4e9]), np.array([[1e9, 2e9], [3e9, 4e9], [5e9, 9e9]]))
    of = dataclasses.replace(table(3, np.array([0.4, 0.6])), lengths=lengths)
    with caplog.at_level(logging.INFO):
        np.testing.assert_array_equal(SwarmFacts.from_table(of).tokens_M, [3e9, 4e9])
    assert "median run's unique tokens (swarm.tokens)" in caplog.text
    counted = dataclasses.replace(of, tokens_M=np.array([7.0, 8.0]))
    np.testing.assert_array_equal(SwarmFacts.from_table(counted).tokens_M, [7, 8])


def test_table_without_natural_distribution_is_an_error():
    with pytest.raises(UserError, match="natural distribution is unknown; set swarm.meta"):
        SwarmFacts.from_table(table(3, None))

"""Explanations of infeasible bounds."""

import re

import numpy as np
import pytest

from olmix_jax.solver.bounds import box
from olmix_jax.solver.feasibility import explain, feasible
from tests.solver.cases import EDGES, grouped

NAMES = ("web", "code", "books", "math")
Z4, O4 = [0] * 4, [1] * 4


@pytest.mark.parametrize(
    "bounds, explanation",
    [
        (grouped(Z4, [0.1, 0.2, 0.3, 0.3]), "web 0.1, code 0.2, books 0.3, math 0.3; raise them by 0.1 in total"),
        (grouped([0.6, 0.5, 0, 0], O4), "the lower bounds sum to 1.1, more than 1: web 0.6, code 0.5; lower them"),
        (grouped([0, 0.5, 0, 0], [1, 0.4, 1, 1]), "0 ≤ lower ≤ cap ≤ 1, not code [0.5, 0.4]"),
        (grouped([0, np.nan, 0, 0], O4), "not code [nan, 1]"),
        (grouped(Z4, [0.2, 0.1, 1, 1], ([0, 1], 0.5, 1)), "the caps of the domains of code:* sum to 0.3, less than"),
        (
            grouped([0.2, 0.2, 0, 0], O4, ([0, 1], 0, 0.3)),
            "the lower bounds of the domains of code:* sum to 0.4, more than its upper bound 0.3; lower them",
        ),
        (grouped(Z4, O4, ([0, 1], 0.4, 0.3)), "the lower bound of code:*, 0.4, exceeds its upper bound, 0.3"),
        (
            grouped([0, 0, 0.3, 0.2], O4, ([0, 1], 0.6, 1)),
            "the lower bounds sum to 1.1, more than 1: books 0.3, math 0.2, code:* 0.6",
        ),
        (grouped(Z4, [1, 1, 0.2, 0.3], ([0, 1], 0, 0.3)), "the caps sum to 0.8, less than 1"),
        (
            grouped(Z4, [1, 1, 0.2, 1], ([0, 1], 0, 0.1), ([0, 1, 2], 0.5, 1)),
            "the caps of the domains of text:* sum to 0.3, less than its lower bound 0.5",
        ),
    ],
)
def test_infeasible_bounds_are_explained_by_name(bounds, explanation):
    assert not feasible(bounds)
    assert re.search(re.escape(explanation), explain(bounds, NAMES, ("code:*", "text:*")))


def test_domains_and_groups_without_names_are_numbered():
    assert "domain 1 [0.5, 0.4]" in explain(box(np.array([0, 0.5]), np.array([1, 0.4])))
    assert "domains of group 0" in explain(grouped(Z4, [0.2, 0.1, 1, 1], ([0, 1], 0.5, 1)))


def test_long_lists_are_cut_after_ten_domains():
    assert explain(box(np.zeros(13), np.full(13, 0.01))).count("domain") == 10
    assert "and 3 more" in explain(box(np.zeros(13), np.full(13, 0.01)))


@pytest.mark.parametrize("name", EDGES)
def test_bounds_at_the_edge_of_feasibility_are_feasible(name):
    assert feasible(EDGES[name][0])


def test_bounds_that_admit_exactly_one_mixture_are_feasible():
    exact_M = np.array([0.1, 0.2, 0.3, 0.4])
    assert feasible(box(np.zeros(4), exact_M)) and feasible(box(exact_M, np.ones(4)))

import numpy as np

from olmix_jax.propose.pareto import pareto_front
from olmix_jax.solver import solve
from tests.propose.test_path import five_domains

TASKS, DOMAINS = tuple("abcdef"), tuple("vwxyz")
FAMILIES = {"one": ("a", "b"), "two": ("c", "d", "e"), "three": ("f",)}


def front(families):
    formulation = five_domains()
    proposed_M = solve.solve(formulation.problem).weights_M
    natural_M = formulation.natural_M
    return pareto_front(formulation.problem, families, TASKS, DOMAINS, natural_M=natural_M, proposed_M=proposed_M)


def test_no_point_of_the_front_dominates_another():
    found = front(FAMILIES)
    assert found.families == ("one", "two", "three") and len(found.points) > 10
    bpb_PF = np.array([list(point.predicted.values()) for point in found.points])
    for own_F in bpb_PF:
        assert not ((bpb_PF <= own_F).all(axis=1) & (bpb_PF < own_F).any(axis=1)).any()
    assert list(found.proposed) == list(found.natural) == list(found.families)


def test_family_is_best_where_it_has_all_the_weight():
    found = front(FAMILIES)
    for name in found.families:
        best = min(found.points, key=lambda point: point.predicted[name])
        assert best.family_weights[name] == max(point.family_weights[name] for point in found.points)


def test_one_family_has_no_front():
    assert front({"all": TASKS}) is None

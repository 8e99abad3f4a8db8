"""outliers.py: runs that do not fit the others are named; runs of clean swarms are not."""

import numpy as np
import pytest

from olmix_jax.laws import outliers
from tests.swarm.small_swarm import BASE_METRICS, BASE_RATIOS


def numbers(text):
    return np.array([[float(cell) for cell in line.split(",")[1:]] for line in text.splitlines()[1:]])


def found(ratios_KM, bpb_KN):
    runs, tasks = (tuple(f"{kind}{i}" for i in range(n)) for kind, n in zip("rt", bpb_KN.shape))
    return outliers.find(ratios_KM, bpb_KN, runs, tasks)


@pytest.mark.parametrize("factor", [10, 1.5, 0.5])
def test_one_wrong_score_is_named_in_any_run(factor):
    ratios_KM, bpb_KN = numbers(BASE_RATIOS), numbers(BASE_METRICS)
    assert found(ratios_KM, bpb_KN) == ()
    for k in range(8):
        wrong_KN = bpb_KN.copy()
        wrong_KN[k, 0] *= factor
        (outlier,) = found(ratios_KM, wrong_KN)
        assert outlier.run == f"r{k}" and outlier.deviations > outliers.LIMIT
        if outlier.task == "t0":
            assert outlier.measured == wrong_KN[k, 0] and outlier.expected == pytest.approx(bpb_KN[k, 0], rel=0.2)


def test_two_wrong_scores_are_named():
    bpb_KN = numbers(BASE_METRICS)
    bpb_KN[[1, 5], 0] = 11.0, 3.3
    assert [outlier.run for outlier in found(numbers(BASE_RATIOS), bpb_KN)] == ["r1", "r5"]


def planted(seed, runs=16, domains=3, tasks=4, noise=0.01):
    draw = np.random.default_rng(seed)
    ratios_KM = draw.dirichlet(np.full(domains, 0.7), runs)
    bpb_KN = 0.5 + np.exp(0.7 * ratios_KM @ draw.normal(size=(domains, tasks)))
    return ratios_KM, bpb_KN * np.exp(noise * draw.normal(size=bpb_KN.shape))


def test_clean_swarms_have_no_outliers():
    """320 runs; the target is less than one named run in 200."""
    assert sum(len(found(*planted(seed))) for seed in range(20)) == 0


def test_run_with_the_mixture_of_another_is_named():
    hits = 0
    for seed in range(10):
        ratios_KM, bpb_KN = planted(seed)
        ratios_KM[0] = np.roll(ratios_KM[0], 1)
        hits += "r0" in [outlier.run for outlier in found(ratios_KM, bpb_KN)]
    assert hits >= 5


def test_published_swarms_have_at_most_one_outlier_in_a_hundred_runs(published):
    from olmix_jax.swarm.table import SwarmTable

    folder = published / "olmix_dclm"
    table = SwarmTable.read(folder / "ratios.csv", folder / "metrics.csv", folder / "meta.json")
    assert len(found(table.ratios_KM, table.bpb_KN[:, ::4])) <= 1


def test_too_few_or_equal_runs_have_no_outliers():
    assert found(np.eye(3), np.ones((3, 1))) == ()
    assert found(numbers(BASE_RATIOS), np.ones((8, 2))) == ()
    assert found(numbers(BASE_RATIOS), -numbers(BASE_METRICS)) == ()

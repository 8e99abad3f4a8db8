"""sampling.py: sampled swarms meet every stated limit; impossible requests raise an error that names the field."""

import numpy as np
import pytest

from olmix_jax.swarm import apportion, sampling
from olmix_jax.utils.errors import UserError

UNEQUAL = np.array([0.55, 0.2, 0.1, 0.08, 0.04, 0.015, 0.01, 0.005])
NAMES = ("web", "code", "math", "wiki", "books", "arxiv", "stubs", "law")


def draw(**changes):
    request = dict(natural_M=UNEQUAL, size=27, total=16000, names=NAMES, seed=3)
    request.update(changes)
    return sampling.sample(request.pop("natural_M"), request.pop("size"), request.pop("total"), **request)


@pytest.mark.parametrize("sparsity", ["sparse", "dense"])
@pytest.mark.parametrize("seed", range(5))
def test_sample_meets_every_limit(sparsity, seed):
    c = draw(sparsity=sparsity, seed=seed)
    assert c.dtype == np.int64 and c.shape == (27, 8) and (c.sum(axis=1) == 16000).all()
    np.testing.assert_array_equal(c[0], apportion.snap(UNEQUAL, 16000))
    distance = np.abs(c[:, None] - c[None]).sum(axis=2) / 32000
    assert distance[~np.eye(27, dtype=bool)].min() >= 0.02
    least = 0.02 if sparsity == "sparse" else 1e-4
    assert (c[1:][c[1:] > 0] >= least * 16000).all()
    assert (c[1:] == 0).any() == (sparsity == "sparse")
    assert ((c >= np.maximum(least, UNEQUAL / 2) * 16000).sum(axis=0) >= 4).all()
    np.testing.assert_array_equal(apportion.realise(c / 16000, 16000, NAMES), c)


def test_sample_is_deterministic():
    np.testing.assert_array_equal(draw(), draw())
    assert (draw() != draw(seed=4)).any()


@pytest.mark.parametrize("sparsity", ["sparse", "dense"])
def test_columns_are_in_the_order_of_names(sparsity):
    """PITFALL 5: with prior and columns in different orders, the domain with prior 0.9 got a mean of 0.047."""
    c = draw(
        natural_M=[0.03, 0.9, 0.07],
        names=("zoo", "web", "art"),
        size=200,
        sparsity=sparsity,
        min_distance=0,
        min_runs=0,
    )
    prior = np.array([0.03, 0.9, 0.07]) ** 0.7
    np.testing.assert_allclose(c.mean(axis=0) / 16000, prior / prior.sum(), atol=0.05)
    flipped = draw(
        natural_M=[0.07, 0.9, 0.03],
        names=("art", "web", "zoo"),
        size=200,
        sparsity=sparsity,
        min_distance=0,
        min_runs=0,
    )
    assert flipped.mean(axis=0).argmax() == 1 and flipped[:, 0].mean() > flipped[:, 2].mean()


def test_candidate_with_every_weight_below_the_minimum_is_drawn_again():
    """PITFALL 6: 8 weights near 1/8 are often all below a minimum of 0.12, which must not give NaN."""
    c = draw(natural_M=np.ones(8) / 8, min_weight=0.12, strength=(5.0, 50.0), min_runs=1)
    assert (c[1:][c[1:] > 0] >= 0.12 * 16000).all()


def test_concentrations_that_underflow_are_sampled():
    """PITFALL 6: Dirichlet draws with tiny concentrations must not give NaN."""
    natural = np.array([1.0, 1e-9, 1e-12])
    c = draw(natural_M=natural, names=("a", "b", "c"), size=12, strength=(1e-6, 1e-3), min_distance=0)
    assert (c.sum(axis=1) == 16000).all() and ((c >= 320).sum(axis=0) >= 4).all()


def test_dense_minimum_holds_after_the_rest_is_scaled_down():
    c = draw(sparsity="dense", min_weight=0.11, strength=(0.1, 1.0), min_distance=0.001, min_runs=2)
    assert c[1:].min() >= 0.11 * 16000


def test_default_minimum_is_at_least_one_sequence():
    assert draw(sparsity="dense", total=400, min_distance=0.01)[1:].min() >= 1


@pytest.mark.parametrize("total", [80, 16000])
def test_design_determines_the_coefficients_of_every_domain(total):
    """3(M + 1) runs give a well-conditioned design, even with a domain of half a per cent."""
    for seed in range(5):
        x = draw(seed=seed, total=total) / total
        centred = x - x.mean(axis=0)
        values = np.linalg.svd(centred, compute_uv=False)[:7]
        assert values[0] / values[-1] < 25


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(size=9), "`swarm.size` is 9, but a law over 8 domains needs at least 10 runs, better 27"),
        (dict(natural_M=[1.0], names=("web",), size=6), "one domain, web, has only one mixture"),
        (dict(min_weight=1e-5), "`swarm.min_weight` is 1e-05, less than one"),
        (dict(min_weight=0.2, sparsity="dense"), "`swarm.min_weight` is 0.2: it must be below 0.125"),
        (dict(min_weight=1.0), "`swarm.min_weight` is 1.0: it must be below 1"),
        (
            dict(min_weight=0.99, strength=(900.0, 900.0), min_runs=0),
            "no mixture found for member 1 of 27 in 2000 draws",
        ),
        (dict(min_runs=28), "`swarm.min_runs` is 28, more than the 27 runs"),
        (dict(min_distance=0.9), "lower `swarm.min_distance`"),
        (dict(min_runs=27, min_weight=0.2), r"`swarm.min_runs` \(27\)"),
        (dict(strength=(0.0, 1.0)), "`swarm.strength`"),
        (dict(natural_M=[0.5, 0.5, 0, 0, 0, 0, 0, 0]), "every domain a positive weight"),
    ],
)
def test_impossible_request_raises_an_error_that_names_the_field(changes, message):
    with pytest.raises(UserError, match=message):
        draw(**changes)


def test_earlier_runs_make_a_smaller_swarm_possible():
    assert len(draw(size=5, earlier_runs=5, min_runs=1)) == 5
    with pytest.raises(
        UserError, match="`swarm.size` is 5 besides 4 earlier runs, but a law over 8 domains needs at least"
    ):
        draw(size=5, earlier_runs=4, min_runs=1)


def test_default_minimum_weight_leaves_mixtures_of_many_domains():
    assert [sampling.default_min_weight("sparse", domains) for domains in (8, 200, 400)] == [0.02, 0.02, 0.01]
    assert sampling.default_min_weight("dense", 400) == 1e-4
    many = 900
    c = draw(natural_M=np.ones(many), size=many + 2, total=9000, names=tuple(map(str, range(many))), min_runs=1)
    assert ((c > 0).sum(axis=0) >= 1).all() and (c[1:][c[1:] > 0] >= 40).all()


def test_runs_too_short_for_a_dense_swarm_are_not_blamed_on_the_minimum_weight():
    """With 4 sequences for 8 domains no minimum weight works: less than a sequence, or too much for a mixture."""
    with pytest.raises(UserError, match="runs of 4 sequences are too short for a dense swarm of these domains"):
        sampling.least_weight(8, 4, "dense", None)
    assert sampling.least_weight(8, 10, "dense", None) == 0.1

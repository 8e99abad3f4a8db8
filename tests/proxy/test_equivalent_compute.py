"""proxy/equivalent_compute.py: the crossing of a curve, and the interval over seeds, in closed form."""

import numpy as np
import pytest
from scipy import stats

from olmix_jax.proxy import equivalent_compute as ec
from olmix_jax.proxy.equivalent_compute import EquivalentCompute
from olmix_jax.utils.errors import UserError

TOKENS = (100, 200, 400, 800)


def test_crossing_of_a_line_in_log_tokens_is_exact():
    # 3 − log₂(tokens / 100) + 0.5 falls to 1.5 after 2² · 100 tokens, between any two points.
    tokens_P = np.array([100, 150, 700, 800])
    curve_P = 3.5 - np.log2(tokens_P / 100)
    assert ec.tokens_to_reach(tokens_P, curve_P - 1.5) == pytest.approx(400)
    assert ec.tokens_to_reach(TOKENS, [0.3, 0.2, 0.1, 0.0]) == pytest.approx(800)


def test_curve_that_is_reached_before_the_first_point_or_never():
    assert ec.tokens_to_reach(TOKENS, [-0.1, -0.2, -0.3, -0.4]) == 100
    assert ec.tokens_to_reach(TOKENS, [0.4, 0.3, 0.2, 0.1]) is None


def test_low_point_of_a_noisy_curve_does_not_count_alone():
    # Least squares joins the second and third point to 0.1, so the curve falls to 0 half-way to the last.
    assert ec.tokens_to_reach(TOKENS, [0.3, -0.1, 0.3, -0.1]) == pytest.approx(400 * 2**0.5)
    assert ec.tokens_to_reach(TOKENS, [0.3, 0.2, -0.1, 0.2]) is None


def test_interval_is_that_of_the_paired_t_test():
    rng = np.random.default_rng(0)
    natural_S = 1 + rng.normal(0, 0.1, 5)
    # Seeds differ by the same amount in both mixtures, and by little otherwise.
    proposed_SP = natural_S[:, None] + np.array([0.3, 0.2, 0.1, -0.1]) + rng.normal(0, 0.01, (5, 4))
    compute = ec.equivalent_compute(TOKENS, natural_S, proposed_SP)
    excess_SP = proposed_SP - natural_S[:, None]
    assert 800 / compute.ratio == pytest.approx(ec.tokens_to_reach(TOKENS, excess_SP.mean(axis=0)))
    assert compute.low < compute.ratio < compute.high and compute.limit == 8
    # At both ends, the one-sided test of the interpolated differences has p = 5 %.
    mean_P = excess_SP.mean(axis=0)
    error_P = excess_SP.std(axis=0, ddof=1) / np.sqrt(5)
    for end, sign in ((compute.low, 1), (compute.high, -1)):
        mean, error = (np.interp(np.log(800 / end), np.log(TOKENS), x_P) for x_P in (mean_P, error_P))
        assert stats.t.sf(-sign * mean / error, 4) == pytest.approx(0.05, abs=1e-6)


def test_interval_has_its_nominal_coverage():
    """1000 validations of three seeds; the true curve falls to natural's BPB after 400 of 800 tokens."""
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 0.02, (1000, 3, 5))
    covered = 0
    for natural_S, proposed_SP in zip(1 + noise[:, :, 4], 1 + np.array([0.2, 0.1, 0.0, -0.1]) + noise[:, :, :4]):
        compute = ec.equivalent_compute(TOKENS, natural_S, proposed_SP)
        low, high = (compute.low or 0.0), (compute.high or 0.0)
        covered += low <= 2 <= high
    assert covered / 1000 == pytest.approx(0.9, abs=0.03)


def test_ends_that_are_not_reached_and_that_exceed_the_points():
    natural_S = [1.0, 1.0]
    # The proposal is better at the end by 0.01 ± 0.01, and never significantly.
    unsure = ec.equivalent_compute(TOKENS, natural_S, np.array([[1.3, 1.2, 1.1, 0.98], [1.3, 1.2, 1.1, 1.0]]))
    assert unsure.low is None and unsure.ratio == pytest.approx(800 / (400 * 2 ** (0.1 / 0.11)))
    worse = ec.equivalent_compute(TOKENS, natural_S, np.full((2, 4), 1.1))
    assert (worse.ratio, worse.low, worse.high) == (None, None, None)
    better = ec.equivalent_compute(TOKENS, natural_S, np.full((2, 4), 0.9))
    assert (better.ratio, better.low, better.high, better.limit) == (8, 8, 8, 8)
    one = ec.equivalent_compute(TOKENS, [1.0], np.array([[1.2, 1.0, 0.9, 0.8]]))
    assert one.ratio == pytest.approx(4) and (one.low, one.high, one.seeds) == (None, None, 1)


@pytest.mark.parametrize(
    ("natural", "proposed"), [(1.0, (np.nan, 1.0, 0.9, 0.8)), (1.0, (1.1, 1.0, np.inf, 0.8)), (np.nan, (1, 1, 1, 1))]
)
def test_score_that_is_not_finite_is_an_error(natural, proposed):
    with pytest.raises(UserError, match="a score of natural or of the proposed mixture along the run is not finite"):
        ec.equivalent_compute(TOKENS, [1.0, natural], np.array([[1.2, 1.0, 0.9, 0.8], proposed]))


def test_texts_name_bounds():
    def text(*values, seeds=9):
        return ec.text(EquivalentCompute(*values, 8.0, 800, seeds)).partition(":")[0::2]

    assert text(1.138, 1.08, 1.213) == (
        "equivalent compute 1.14× (5–95 % over 9 seeds",
        " 1.08× to 1.21×): tokens of natural per token of the proposed mixture, for natural's final BPB",
    )
    assert text(None, None, 1.02)[1].startswith(" not reached to 1.02×)")
    assert ec.text(EquivalentCompute(None, None, None, 8.0, 800, 3)).startswith(
        "equivalent compute not reached (5–95 % over 3 seeds: not reached)"
    )
    assert ec.value_text(EquivalentCompute(8.0, 7.0, 8.0, 8.0, 800, 3)) == "more than 8×"
    assert ec.interval_text(EquivalentCompute(2.0, None, None, 8.0, 800, 1)) == "one seed, so there is no interval"

"""Laws of the new domain set that are sampled from the old law (METHOD §3)."""

import numpy as np

from olmix_jax.laws import FittedLaw, evaluate, log_linear, warped_gp
from olmix_jax.update import changes, prior
from tests.update.worlds import NAMES, old_law

CHANGE = changes.change(NAMES, [changes.add("new"), changes.partition("b", "b1", "b2"), changes.revise("c")])
TOKENS = np.array([5, 3, 1, 4, 4, 4, 9.0])
REVISED = np.array([NAMES.index("c") if name == "c" else -1 for name in CHANGE.new])


def sample_by_name(old, likeness_MO=None):
    """Sampled coefficients {domain: coef_SN}."""
    laws = prior.sample_laws(old, CHANGE.mixture_matrix(TOKENS), REVISED, likeness_MO)
    return {name: laws.coef_NM[:, :, m] for m, name in enumerate(CHANGE.new)}


def test_unaffected_domain_keeps_its_coefficients():
    old = old_law(np.random.default_rng(0))
    coef = sample_by_name(old)
    for name in ("a", "d", "e"):
        np.testing.assert_array_equal(coef[name], old.coef_NM[:, :, NAMES.index(name)])


def test_parts_differ_but_add_up_to_the_whole():
    old = old_law(np.random.default_rng(0))
    coef = sample_by_name(old)
    assert np.abs(coef["b1"] - coef["b2"]).max() > 0.01
    np.testing.assert_allclose(0.75 * coef["b1"] + 0.25 * coef["b2"], old.coef_NM[:, :, 1], atol=1e-12)


def test_revision_moves_coefficients_by_half_the_difference_of_two_domains():
    old = old_law(np.random.default_rng(0))
    change_SN = sample_by_name(old)["c"] - old.coef_NM[:, :, 2]
    pairs_SNOO = prior.DISTANCE * (old.coef_NM[:, :, :, None] - old.coef_NM[:, :, None, :])
    off_SOO = np.abs(change_SN[:, :, None, None] - pairs_SNOO).max(axis=1)
    np.testing.assert_allclose(off_SOO.min(axis=(1, 2)), 0, atol=1e-12)
    assert np.abs(change_SN).max() > 0.01


def test_added_domain_is_a_random_old_domain_for_all_tasks_at_once():
    old = old_law(np.random.default_rng(0))
    off_SO = np.abs(sample_by_name(old)["new"][:, :, None] - old.coef_NM).max(axis=1)
    np.testing.assert_array_equal(off_SO.min(axis=1), 0)
    assert len(set(off_SO.argmin(axis=1))) > 1


def test_added_domain_gets_the_coefficients_of_the_likeliest_old_domain():
    old = old_law(np.random.default_rng(0))
    likeness_MO = np.tile(np.eye(len(NAMES))[3], (len(CHANGE.new), 1))
    np.testing.assert_array_equal(sample_by_name(old, likeness_MO)["new"], old.coef_NM[:, :, 3])


def test_translation_to_log_linear_predicts_the_truth():
    rng = np.random.default_rng(1)
    truth = log_linear.Params(np.log(rng.uniform(0.4, 0.8, 3)), rng.normal(size=(3, 4)) * 0.7)
    ratios_KM = rng.dirichlet(np.ones(4), size=30)
    bpb_KN = evaluate(log_linear.LAW, truth, ratios_KM) + 0.002 * rng.normal(size=(30, 3))
    params = warped_gp.fit(ratios_KM, bpb_KN).params
    translated = prior.to_log_linear(FittedLaw(warped_gp.LAW, params, warped_gp.sample(params, 4)), ratios_KM)
    assert translated.coef_NM.shape == (4, 3, 4)
    other_KM = rng.dirichlet(np.ones(4), size=50)
    true_KN = evaluate(log_linear.LAW, truth, other_KM)
    predicted_SKN = FittedLaw(log_linear.LAW, None, translated).predict_samples(other_KM)
    assert (np.sqrt(((predicted_SKN - true_KN) ** 2).mean(axis=(1, 2))) < 0.03).all()


def test_log_linear_samples_are_not_translated():
    old = old_law(np.random.default_rng(1))
    translated = prior.to_log_linear(FittedLaw(log_linear.LAW, None, old), np.full((1, 5), 0.2))
    np.testing.assert_array_equal(translated.coef_NM, old.coef_NM)

"""The public API in olmix_jax/__init__.py."""

import numpy as np
import pytest

import olmix_jax
from olmix_jax import config
from olmix_jax.swarm import table
from tests.swarm.small_swarm import BASE_METRICS, BASE_RATIOS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the files of a small swarm over web, code and wiki."""
    path, draw = tmp_path_factory.mktemp("swarm"), np.random.default_rng(0)
    ratios_KM = draw.dirichlet(np.ones(3), 16)
    bpb_KN = 0.5 + np.exp(-ratios_KM @ draw.uniform(0, 1, (3, 2)))
    runs, natural_M, tokens_M = (
        tuple(f"run-{k}" for k in range(16)),
        np.array([0.5, 0.3, 0.2]),
        np.array([5e9, 3e9, 2e9]),
    )
    names = ("web", "code", "wiki"), ("qa", "math")
    table.write_swarm(path, runs, runs, *names, ratios_KM, bpb_KN, natural_M, tokens_M, {})
    return path


@pytest.fixture(scope="module")
def swarm(folder):
    return olmix_jax.read_swarm(folder / "ratios.csv", folder / "metrics.csv", folder / "meta.json")


def test_functions_lead_from_files_to_a_proposal(swarm):
    fitted = olmix_jax.fit_law(swarm, law="log_linear", samples=8, starts=4)
    np.testing.assert_allclose(fitted.predict(swarm.ratios_KM), swarm.bpb_KN, atol=1e-3)
    assert olmix_jax.judge_law(swarm, law="log_linear").spearman_of_mean > 0.9
    proposal = olmix_jax.propose_mixture(
        fitted, swarm, kl_weight=0.05, target_tokens=1e10, max_repeats=2, explore=False
    )
    assert proposal.status.value == "optimal" and proposal.gain.samples == 8
    assert all(proposal.weights[name] <= proposal.caps[name] for name in swarm.domains)
    assert tuple(proposal.weights) == swarm.domains and sum(proposal.weights.values()) == pytest.approx(1)


def test_unknown_law_or_option_is_an_error_that_lists_the_valid_names(swarm):
    with pytest.raises(olmix_jax.UserError, match="no law 'linear'; laws are warped_gp, log_linear"):
        olmix_jax.fit_law(swarm, law="linear")
    fitted = olmix_jax.fit_law(swarm, law="log_linear", samples=0, starts=4)
    assert fitted.samples is None
    with pytest.raises(olmix_jax.UserError, match="no option 'kl'; options are kl_weight"):
        olmix_jax.propose_mixture(fitted, swarm, kl=0.1)


def test_run_fits_an_external_swarm(folder, tmp_path):
    files = {name: str(folder / file) for name, file in table_files().items()}
    settings = config.from_dict({"swarm": files, "fit": {"law": "log_linear", "starts": 4, "resamples": 0}})
    olmix_jax.run(settings, tmp_path, ["fit"])
    assert (tmp_path / "fit/fit.json").is_file()


def table_files() -> dict[str, str]:
    return {"ratios": "ratios.csv", "metrics": "metrics.csv", "meta": "meta.json"}


def test_every_public_name_exists():
    assert sorted(name for name in olmix_jax.__all__ if not hasattr(olmix_jax, name)) == []


def test_bookkeeping_in_the_scores_leaves_the_proposal_unchanged(tmp_path):
    (tmp_path / "ratios.csv").write_text(BASE_RATIOS)
    head, *rows = BASE_METRICS.splitlines()
    odd = (7100, 7900, 6900, 7600, 6800, 7700, 7300, 7000)
    rows = [f"{k},{row},{seconds},{row.split(',')[1]}" for k, (row, seconds) in enumerate(zip(rows, odd, strict=True))]
    (tmp_path / "metrics.csv").write_text("\n".join([f"Unnamed: 0.1,{head},_runtime,t1.1", *rows]))
    natural = {"relative_sizes": {"web": 0.5, "code": 0.3, "wiki": 0.2}}
    swarm = olmix_jax.read_swarm(tmp_path / "ratios.csv", tmp_path / "metrics.csv", natural)
    weights = olmix_jax.propose_mixture(olmix_jax.fit_law(swarm, samples=0), swarm, explore=False).weights
    assert weights == pytest.approx({"web": 0.249, "code": 0.389, "wiki": 0.363}, abs=6e-4)


def test_cheap_runs_serve_fit_judgement_and_proposal(folder, tmp_path):
    """Cheap runs show half of an effect. Six real runs give its scale."""
    draw = np.random.default_rng(1)
    ratios_KM, effect_MN = draw.dirichlet(np.ones(3), 36), draw.uniform(-0.5, 0.5, (3, 2))
    bpb_KN = 1.5 * np.exp(ratios_KM @ effect_MN * np.where(np.arange(36) < 6, 1, 0.5)[:, None])
    bpb_KN = bpb_KN * np.exp(0.003 * draw.normal(size=bpb_KN.shape))
    runs, natural_M = tuple(f"run-{k}" for k in range(36)), np.array([0.5, 0.3, 0.2])
    names = ("web", "code", "wiki"), ("qa", "math")
    table.write_swarm(tmp_path, runs, runs, *names, ratios_KM, bpb_KN, natural_M, 1e9 * natural_M, {}, cheap=runs[6:])
    swarm = olmix_jax.read_swarm(*(tmp_path / file for file in table_files().values()))
    fitted, judged = olmix_jax.fit_law(swarm), olmix_jax.judge_law(swarm, folds=3)
    assert fitted.law.name == "two_fidelity" and judged.predicted_KN.shape == (6, 2)
    np.testing.assert_allclose(fitted.predict(ratios_KM), 1.5 * np.exp(ratios_KM @ effect_MN), rtol=0.03)
    proposal = olmix_jax.propose_mixture(fitted, swarm, explore=False)
    # Six runs are too few to judge the law, so half of its gain is promised.
    assert proposal.gain.slope == 0.5 and proposal.gain.mean > 0

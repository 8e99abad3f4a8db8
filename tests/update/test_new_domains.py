"""What is known of the new domains before any new run; errors of external swarms are in test_decide.py."""

import shutil

import numpy as np
import pytest

from olmix_jax import config
from olmix_jax.propose.proposal import Proposal
from olmix_jax.swarm.domains import DomainSet
from olmix_jax.update import changes, history, new_domains, old_runs
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError
from tests.update.workdirs import ADDED, OLD, TASKS, TOKENS, settings

BEFORE = DomainSet(("web", "code"), (50, 20), (150, 60), ("0a", "0b"))
AFTER = DomainSet(("code", "crawl", "math"), (20, 50, 5), (60, 150, 15), ("0b", "0a", "0c"))


@pytest.fixture
def trained_here(tmp_path):
    """The config and workdir of an update whose parent was trained here, not elsewhere."""
    parent, workdir = tmp_path / "parent", tmp_path / "update"
    files.write_json(parent / "config.json", config.from_dict(config.default()))
    files.write_json(parent / "propose/proposal.json", {})
    BEFORE.write(parent / "domains.json")
    AFTER.write(workdir / "domains.json")
    return settings(update_parent=str(parent)), workdir


def test_steps_are_inferred_without_an_update_file(trained_here):
    domains = new_domains.read(*trained_here, None)
    assert domains.change.updates == (changes.rename("web", "crawl"), changes.add("math"))
    assert domains.change.new == AFTER.names and (domains.old, domains.new) == (BEFORE, AFTER)


def test_given_steps_are_checked_against_the_content(trained_here):
    steps = [changes.rename("web", "math"), changes.add("crawl")]
    with pytest.raises(UserError, match="the text of math changed since the parent was trained"):
        new_domains.read(*trained_here, steps)


def test_given_steps_must_lead_to_the_new_domains(trained_here):
    with pytest.raises(UserError, match="the new set has no web and also has crawl"):
        new_domains.read(*trained_here, [changes.add("math")])


def test_external_swarm_gets_its_domains_from_the_steps_and_token_counts(parent, tmp_path):
    counts = {"token_counts": {d: TOKENS[d] for d in ADDED}}
    files.write_json(tmp_path / "meta.json", counts)
    given = settings(update_parent=str(parent), swarm_meta=str(tmp_path / "meta.json"))
    domains = new_domains.read(given, tmp_path, [changes.add("new")])
    assert domains.new.names == ADDED and domains.new.tokens[-1] == 6_000_000_000
    written = DomainSet.read(tmp_path / "domains.json")
    assert (written.names, written.tokens) == (domains.new.names, domains.new.tokens)


@pytest.mark.parametrize(
    ("changed", "warning"),
    [
        ({"train_steps": 7}, "train.steps differ from the parent's"),
        ({"proxy_preset": "30M", "train_lr": 1.0}, "proxy.preset, train.lr differ"),
        ({"train_mapping": "vmap"}, None),
    ],
)
def test_other_proxies_than_the_parents_are_a_warning(caplog, changed, warning):
    new_domains.warn_of_other_proxies(settings(**changed), settings())
    assert warning in caplog.text if warning else not caplog.text


def make_domains(*steps):
    change = changes.change(OLD, steps)
    old, new = (DomainSet(names, tuple(int(TOKENS[d]) for d in names)) for names in (OLD, change.new))
    return new_domains.NewDomains(old, new, change)


def test_simulation_setting_has_old_weights_noise_and_trusted_runs(parent):
    domains, proposal = make_domains(changes.add("new")), Proposal.read(parent / "propose/proposal.json")
    runs = old_runs.read_runs(parent, domains.change, domains.new.tokens_M, TASKS)
    given = settings(update_parent=str(parent), propose_kl_weight=0.0, propose_bounds='{"web": [0.1, 0.3]}')
    setting = new_domains.simulation_setting(given, domains, proposal, runs)
    assert setting.domains == ADDED and setting.affected_M.tolist() == [False] * 4 + [True]
    np.testing.assert_allclose(setting.weights_M, [*(proposal.weights[d] for d in OLD), 0.0])
    assert (setting.bounds.lower_M[0], setting.bounds.upper_M[0]) == (0.1, 0.3)
    assert setting.bounds.upper_M[3] == pytest.approx(0.16)
    assert setting.kl_weight == new_domains.MIN_KL_WEIGHT
    np.testing.assert_array_equal(setting.noise_N, [history.read_noise(parent).std[task] for task in TASKS])
    assert setting.old_KM.shape == (24, 5) and (setting.trust_K == old_runs.EXPECTED_TRUST).all()


def test_sampled_laws_keep_the_predictions_of_the_parents_samples(parent):
    laws = new_domains.sample_laws(parent, make_domains(changes.remove("wiki")), None, seed=0)
    assert laws.coef_NM.shape == (24, 3, 3)
    ratios_KM = np.random.default_rng(0).dirichlet(np.ones(3), size=20)
    predicted_SKN = history.read_law(parent).predict_samples(np.pad(ratios_KM, ((0, 0), (0, 1))))
    sampled_SKN = np.exp(laws.log_c_N)[:, None] + np.exp(np.einsum("snm,km->skn", laws.coef_NM, ratios_KM))
    assert np.sqrt(np.mean((sampled_SKN - predicted_SKN) ** 2)) < 0.03


def test_parent_without_samples_is_an_error(parent, tmp_path):
    copied = shutil.copytree(parent, tmp_path / "copy")
    (copied / "fit/samples.npz").unlink()
    with pytest.raises(UserError, match="its law has no samples; run its --stages=fit,propose with fit.resamples=100"):
        new_domains.sample_laws(copied, make_domains(changes.remove("wiki")), None, seed=0)

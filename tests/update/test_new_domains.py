"""What is known of the new domains before any new run; errors of external swarms are in test_decide.py."""

import dataclasses
import shutil

import numpy as np
import pytest

from olmix_jax import config
from olmix_jax.laws import LAWS
from olmix_jax.pipeline import runner
from olmix_jax.propose.options import Options
from olmix_jax.propose.proposal import Proposal
from olmix_jax.swarm import table
from olmix_jax.swarm.domains import DomainSet
from olmix_jax.update import changes, history, new_domains, old_runs
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError
from tests.update.workdirs import ADDED, OLD, TASKS, TOKENS, begin_update, measure, settings, swarm_of

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
    assert setting.problem.kl_weight == new_domains.MIN_KL_WEIGHT
    np.testing.assert_array_equal(setting.noise_N, [history.read_noise(parent).std[task] for task in TASKS])
    assert setting.old_KM.shape == (24, 5) and (setting.trust_K == old_runs.EXPECTED_TRUST).all()


def test_trial_fits_use_the_parents_law(parent):
    assert setting_for(parent, fit_law="bimix").law is LAWS[history.read_law(parent).law.name]


# What each option of a proposal changes in the plan's setting, or why it changes nothing there.
REACHES_THE_PLAN = {
    "kl_weight": (0.3, lambda s: s.problem.kl_weight == 0.3),
    "max_repeats": (2.0, lambda s: s.bounds.upper_M[3] == pytest.approx(0.08)),
    "target_tokens": (50e9, lambda s: s.bounds.upper_M[3] == pytest.approx(0.32)),
    "task_weights": ('{"qa": 1}', lambda s: s.problem.weights.tolist() == [0, 0, 1]),
    "bounds": ('{"w*": [null, 0.3]}', lambda s: s.bounds.high_G.tolist() == [0.3]),
    "anchor": (
        '{"web": 0.2, "code": 0.3, "books": 0.1, "wiki": 0.1, "new": 0.3}',
        lambda s: s.problem.anchor_M.tolist() == pytest.approx([0.2, 0.3, 0.1, 0.1, 0.3]),
    ),
    "keep_ratios": ('{"kept": {"web": 1, "code": 2}}', lambda s: [*s.units] == [new_domains.KEPT_UNIT]),
    "guard": (0.01, lambda s: s.guards.limit_F.tolist() == [0.01] * 3),
}
IRRELEVANT_TO_THE_PLAN = {
    "guard_by": "has an effect only with guard; tested below",
    "choose_kl_weight": "λ is chosen from runs that do not exist yet; the plan uses the parent's and says so",
    "tail": "needs the spread of a law that does not exist yet; the plan says that it ignores it",
    "trust": "limits weights by runs that do not exist yet; the plan says that it ignores it",
    "worst": "a counterfactual that is not trained on; the plan serves the best mixture and says so",
    "method": "a published baseline for comparison; the plan predicts the exact optimum",
    "explore": "changes what is shown around the proposal only",
}


def setting_for(parent, **changed):
    domains, proposal = make_domains(changes.add("new")), Proposal.read(parent / "propose/proposal.json")
    return new_domains.simulation_setting(settings(update_parent=str(parent), **changed), domains, proposal, [])


def test_every_option_of_a_proposal_reaches_the_plan_or_is_irrelevant_to_it(parent):
    names = {field.name for field in dataclasses.fields(Options)}
    assert names == REACHES_THE_PLAN.keys() | IRRELEVANT_TO_THE_PLAN.keys()
    default = setting_for(parent)
    for name, (value, reaches) in REACHES_THE_PLAN.items():
        assert reaches(setting_for(parent, **{f"propose_{name}": value})), name
        if name != "guard":
            assert not reaches(default), name
    assert default.guards is None
    families = {"fit_families": '{"one": ["math", "chat"], "two": ["qa"]}', "propose_guard_by": "family"}
    assert setting_for(parent, propose_guard=0.01, **families).guards.names == ("one", "two")
    with_worst = setting_for(parent, propose_worst=True).problem
    np.testing.assert_array_equal(with_worst.weights, default.problem.weights)


def test_the_plan_and_the_proposal_minimise_the_same_problem(tmp_path):
    """Families of 1 and 9 tasks weigh .1 and .9 in both, also in an update that needs no runs."""
    ratios_KM = np.random.default_rng(0).dirichlet(np.ones(4), size=24)
    tasks, runs = ("math", *(f"chat{i}" for i in range(9))), tuple(f"r{k}" for k in range(24))
    bpb_KN = measure(OLD, ratios_KM)[:, [0, *[1] * 9]] + 0.01 * np.arange(10)
    tokens_M = np.array([TOKENS[d] for d in OLD])
    facts = OLD, tasks, ratios_KM, bpb_KN, tokens_M / tokens_M.sum(), tokens_M, {}
    table.write_swarm(tmp_path / "data", runs, runs, *facts)
    options = {"fit_granularity": "family", "fit_families": '{"math": ["math"], "chat": ["chat*"]}'}
    options |= {"fit_law": "log_linear", "fit_starts": 2, "fit_folds": 2, "fit_resamples": 4}
    runner.run(settings(**swarm_of(tmp_path / "data"), **options), tmp_path / "first", ("fit", "propose"))
    proposal = Proposal.read(tmp_path / "first/propose/proposal.json")
    assert proposal.task_weights == pytest.approx({"math": 0.1, "chat": 0.9})
    given, plan = begin_update(tmp_path / "first", tmp_path, [{"remove": ["wiki"]}], OLD[:3], **options)
    domains = make_domains(changes.remove("wiki"))
    planned = new_domains.simulation_setting(settings(**given), domains, proposal, []).problem
    assert plan.needs_no_runs
    runner.run(settings(**given), tmp_path / "run", ("propose",))
    proposed = Proposal.read(tmp_path / "run/propose/proposal.json")
    assert dict(zip(proposed.predicted, planned.weights.tolist())) == pytest.approx({"math": 0.1, "chat": 0.9})
    assert proposed.task_weights == pytest.approx({"math": 0.1, "chat": 0.9})
    assert planned.bounds.upper_M.tolist() == pytest.approx([*proposed.caps.values()])


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

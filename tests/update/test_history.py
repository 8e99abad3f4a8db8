"""Finished workdirs as parents: digests, laws, noise and summaries. tests/update/test_decide.py has chains of them."""

import dataclasses
import shutil

import numpy as np
import pytest

from olmix_jax.config.schema_decision import Update
from olmix_jax.config.workdir import ancestors, read_config
from olmix_jax.laws.fit_result import FitResult
from olmix_jax.propose.proposal import Proposal
from olmix_jax.update import history
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError
from tests.update.workdirs import OLD, TASKS, begin_update


@pytest.fixture
def copied(parent, tmp_path):
    """A copy of the parent's workdir, which a test may change."""
    return shutil.copytree(parent, tmp_path / "copy")


@pytest.fixture(scope="module")
def removal(parent, tmp_path_factory):
    """An update of the parent that needed no runs."""
    folder = tmp_path_factory.mktemp("removal")
    begin_update(parent, folder, [{"remove": ["wiki"]}], OLD[:3])
    return folder / "run"


def test_evidence_digest_changes_if_and_only_if_the_mixture_changes(copied):
    path, before = copied / "propose/proposal.json", history.evidence_digest(copied)
    content = files.read_json(path)
    files.write_json(path, content | {"objective": 0.0})
    assert history.evidence_digest(copied) == before
    files.write_json(path, content | {"weights": dict.fromkeys(OLD, 0.25)})
    assert history.evidence_digest(copied) != before


def test_evidence_digest_of_an_update_includes_its_parents_law(parent, removal, copied):
    before = history.evidence_digest(copied)
    (copied / "fit/params.npz").write_bytes(b"other")
    assert history.evidence_digest(copied) != before
    assert history.evidence_digest(removal) != history.evidence_digest(parent)


def test_text_digest_changes_with_held_out_text(copied):
    before = history.text_digest(copied)
    (copied / "corpus/heldout").mkdir(parents=True)
    (copied / "corpus/heldout/web.jsonl").write_text("{}\n")
    assert history.text_digest(copied) != before


def test_ancestors_are_the_chain_of_parents(parent, removal):
    assert ancestors(removal) == [removal, parent]


def test_update_without_runs_has_the_law_and_noise_of_its_parent(parent, removal):
    ratios_KM = np.random.default_rng(0).dirichlet(np.ones(3), size=5)
    law, law_of_parent = history.read_law(removal), history.read_law(parent)
    padded_KM = np.pad(ratios_KM, ((0, 0), (0, 1)))
    np.testing.assert_allclose(law.predict(ratios_KM), law_of_parent.predict(padded_KM), rtol=1e-12)
    np.testing.assert_allclose(law.predict_samples(ratios_KM), law_of_parent.predict_samples(padded_KM), rtol=1e-12)
    assert history.read_noise(removal) == history.read_noise(parent)
    assert history.trained_table(removal) is None and history.trained_table(parent) is not None


def test_noise_is_the_held_out_error_and_its_mean_correlation(parent):
    noise, fit = history.read_noise(parent), FitResult.read(parent / "fit/fit.json")
    assert noise.tasks == TASKS
    assert noise.std == {task: fit.tasks[task].rmse_cv for task in TASKS}
    error_NK = np.array([np.subtract(fit.measured[t], fit.predicted_cv[t]) for t in TASKS])
    pairs = [np.corrcoef(error_NK[i], error_NK[j])[0, 1] for i, j in ((0, 1), (0, 2), (1, 2))]
    assert noise.shared == pytest.approx(np.clip(np.mean(pairs), 0, history.MAX_SHARED))


def test_law_fitted_on_domains_has_no_block(parent, removal):
    assert history.fitted_as_block(parent) == history.fitted_as_block(removal) == set()


def test_summary_has_predicted_scores_until_they_are_validated(copied):
    proposal = Proposal.read(copied / "propose/proposal.json")
    (past,) = history.past_updates(copied)
    assert (past.strategy, past.proxies, past.proxies_full, past.validated) == ("first swarm", 24, 24, False)
    assert past.natural == pytest.approx(np.mean(list(proposal.predicted_natural.values())))
    assert past.proposed == pytest.approx(np.mean(list(proposal.predicted.values())))
    tasks = {"t1": {"mean": 1.0}, "t2": {"mean": 3.0}}
    mixtures = {"natural": {"bpb_mean": 1.5, "tasks": tasks}, "proposed": {"bpb_mean": 1.25, "tasks": tasks}}
    files.write_json(copied / "validate/validation.json", {"mixtures": mixtures})
    (past,) = history.past_updates(copied)
    assert (past.validated, past.natural, past.proposed) == (True, 1.5, 1.25)
    assert past.plain_natural == past.plain_proposed == 2.0


def test_summary_states_what_was_minimised_and_the_plain_mean_beside_it(copied):
    proposal = Proposal.read(copied / "propose/proposal.json")
    first = next(iter(proposal.predicted))
    weights = {task: float(task == first) for task in proposal.predicted}
    dataclasses.replace(proposal, task_weights=weights).write(copied / "propose/proposal.json")
    (past,) = history.past_updates(copied)
    assert (past.natural, past.proposed) == (proposal.predicted_natural[first], proposal.predicted[first])
    assert past.plain_natural == pytest.approx(np.mean(list(proposal.predicted_natural.values())))


def test_summary_of_an_update_lists_its_parent_first(parent, removal):
    first, update = history.past_updates(removal)
    assert (first.workdir, update.workdir) == (str(parent), str(removal))
    assert (update.strategy, update.proxies, update.updates) == ("auto", 0, ({"remove": ["wiki"]},))


def test_domains_of_an_external_swarm_come_from_its_table(parent):
    domains = history.read_domains(parent, history.trained_table(parent))
    assert domains.names == OLD and domains.tokens[0] == 50_000_000_000


def test_unknown_token_counts_are_an_error(parent):
    with pytest.raises(UserError, match="the unique tokens of its domains are unknown; add `token_counts`"):
        history.read_domains(parent)


def test_workdir_without_a_fit_is_an_error(copied):
    config = read_config(copied)
    (copied / "fit/fit.json").unlink()
    with pytest.raises(UserError, match="has no fitted law; run its --stages=fit,propose first"):
        history.read_law(copied, config)


def test_parent_with_runs_of_different_lengths_is_refused(copied):
    path = copied / "config.json"
    content, tokens = files.read_json(path), copied / "tokens.csv"
    files.write_json(path, content | {"swarm": content["swarm"] | {"tokens": str(tokens)}})
    config = dataclasses.replace(read_config(copied), update=Update(parent=str(copied)))
    for longer, refused in (("2e9", True), ("1e9", False)):
        tokens.write_text("run,tokens\n" + "".join(f"r{k},1e9\n" for k in range(23)) + f"r23,{longer}\n")
        if refused:
            with pytest.raises(UserError, match=r"runs of .* differ in length or unique tokens \(.*tokens.csv\)"):
                history.parent_config(config)
        else:
            assert history.parent_config(config).swarm.tokens == str(tokens)

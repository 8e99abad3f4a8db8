"""The decision of an update, through the stages, for a swarm that was trained elsewhere (PITFALLS 22 to 24)."""

import json

import numpy as np
import pytest

from olmix_jax.laws.fit_result import FitResult, Over
from olmix_jax.pipeline import runner
from olmix_jax.propose.proposal import Proposal
from olmix_jax.swarm import table
from olmix_jax.update import history, old_runs, recompute
from olmix_jax.update.strategies import Strategy
from olmix_jax.update.update_plan import OldRuns, UpdatePlan
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError
from tests.update.workdirs import (
    ADDED,
    OLD,
    TARGET,
    TOKENS,
    begin_update,
    finish_update,
    settings,
    swarm_of,
)

ADD_NEW = [{"add": ["new"]}]


def read_proposal(folder):
    return Proposal.read(folder / "run/propose/proposal.json")


def read_fit(folder):
    return FitResult.read(folder / "run/fit/fit.json")


def test_kept_block_keeps_its_ratios_in_swarm_and_proposal(parent, tmp_path):
    """No member exceeds its cap (Lemma 1), and KL is that of the expanded mixture (PITFALL 22)."""
    given, plan = begin_update(parent, tmp_path, ADD_NEW, ADDED, update_strategy="full_reuse")
    assert plan.affected == plan.recomputed == ("new",)
    assert (plan.proxies, plan.proxies_full) == (8, 16)
    old_weights = Proposal.read(parent / "propose/proposal.json").weights
    kept = plan.kept["kept"]
    assert kept == pytest.approx({d: old_weights[d] for d in OLD})
    _, _, _, ratios_KM = table.read_ratios(tmp_path / "run/swarm/ratios.csv")
    assert len(ratios_KM) == 8
    block_K = ratios_KM[:, :4].sum(axis=1)
    np.testing.assert_allclose(ratios_KM[:, :4], block_K[:, None] * np.array([*kept.values()]), atol=1e-3)
    finish_update(tmp_path, given, ADDED)
    proposal, fit = read_proposal(tmp_path), read_fit(tmp_path)
    total = sum(proposal.weights[d] for d in OLD)
    assert {d: proposal.weights[d] / total for d in OLD} == pytest.approx(kept, abs=1e-9)
    assert all(proposal.weights[d] <= min(1, 4 * TOKENS[d] / TARGET) + 1e-12 for d in ADDED)
    assert proposal.caps["wiki"] == pytest.approx(0.16)
    assert fit.trust in (0.0, *old_runs.TRUSTS) and fit.over in Over
    assert proposal.reuse.predicted_loss["mean"] == plan.predicted_loss.mean
    p_M, natural_M = (np.array([values[d] for d in ADDED]) for values in (proposal.weights, proposal.natural))
    assert proposal.kl == pytest.approx((p_M * np.log(p_M / natural_M)).sum(), rel=1e-9)


@pytest.mark.slow
def test_chain_of_updates_uses_runs_of_every_age(parent, tmp_path):
    """Adds a domain, partitions another and removes a third (PITFALL 24)."""
    first, second, third = tmp_path / "1", tmp_path / "2", tmp_path / "3"
    given, plan = begin_update(parent, first, ADD_NEW, ADDED)
    assert plan.strategy is Strategy.AUTO and plan.predicted_loss.mean >= -1e-9
    least = min(candidate.loss.mean for candidate in plan.candidates)
    assert plan.predicted_loss.mean <= least + recompute.TOLERANCE * plan.predicted_gain.gain + 1e-12
    finish_update(first, given, ADDED)
    proposal = read_proposal(first)
    assert proposal.objective < proposal.objective_natural
    # Math wants the new domain most. Columns in the wrong order would not show this.
    assert proposal.weights["new"] > proposal.natural["new"]

    names = ("web", "code", "books", "wiki:a", "wiki:b", "new")
    given, plan = begin_update(first / "run", second, [{"partition": {"wiki": ["wiki:a", "wiki:b"]}}], names)
    assert plan.affected == ("wiki:a", "wiki:b") and not plan.lost
    assert plan.old_runs == (OldRuns(1, plan.history[1].proxies), OldRuns(2, 24))
    assert [past.strategy for past in plan.history] == ["first swarm", "auto"]
    finish_update(second, given, names)

    # Full recomputation trains even if the old law still holds (METHOD §3).
    remaining = tuple(d for d in names if d != "code")
    remove = [{"remove": ["code"]}]
    _, plan = begin_update(second / "run", tmp_path / "4", remove, remaining, update_strategy="full")
    assert plan.proxies == plan.proxies_full == 16

    _, plan = begin_update(second / "run", third, remove, remaining)
    assert plan.needs_no_runs and len(plan.history) == 3 and plan.lost == ("code",)
    weights = read_proposal(third).weights
    assert set(weights) == set(remaining) and sum(weights.values()) == pytest.approx(1)
    # The law is the old one on mixtures without the removed domain.
    p_M = np.array([[weights[d] for d in remaining]])
    padded_M = np.array([[weights.get(d, 0.0) for d in names]])
    law, law_before = history.read_law(third / "run"), history.read_law(second / "run")
    np.testing.assert_allclose(law.predict(p_M), law_before.predict(padded_M), rtol=1e-12)


@pytest.mark.slow
def test_removal_after_a_fit_over_blocks_keeps_the_ratios_of_the_block(parent, tmp_path):
    """The law cannot judge ratios within the block, so it must not change them."""
    first, second = tmp_path / "1", tmp_path / "2"
    options = {"update_strategy": "full_reuse", "update_old_runs": False}
    given, _ = begin_update(parent, first, ADD_NEW, ADDED, **options)
    finish_update(first, given, ADDED)
    before = read_proposal(first).weights
    assert read_fit(first).over is Over.BLOCKS
    assert history.fitted_as_block(first / "run") == set(OLD) and history.fitted_as_block(parent) == set()
    remaining = ("web", "books", "wiki", "new")
    _, plan = begin_update(first / "run", second, [{"remove": ["code"]}], remaining, propose_max_repeats=50.0)
    assert plan.strategy is Strategy.AUTO and plan.needs_no_runs
    assert history.fitted_as_block(second / "run") == {"web", "books", "wiki"}
    after, kept = read_proposal(second).weights, list(plan.kept["kept"])
    assert set(kept) == {"web", "books", "wiki"} and plan.recomputed == ("new",)
    ratios = [np.array([weights[d] for d in kept]) / sum(weights[d] for d in kept) for weights in (before, after)]
    np.testing.assert_allclose(*ratios, rtol=1e-6)


@pytest.mark.slow
def test_cost_of_kept_ratios_with_a_tail_objective_is_not_negative(parent, tmp_path):
    given, _ = begin_update(parent, tmp_path, ADD_NEW, ADDED, update_strategy="full_reuse", propose_tail=0.3)
    finish_update(tmp_path, given, ADDED)
    cost = read_proposal(tmp_path).reuse.loss
    assert cost is None or cost >= -1e-6


def test_choosing_the_kl_weight_with_kept_ratios_is_an_error(parent):
    with pytest.raises(UserError, match="propose.choose_kl_weight"):
        settings(update_parent=str(parent), propose_choose_kl_weight=True)


def test_domains_of_a_partly_kept_group_are_recomputed(parent, tmp_path):
    """The group w* has two domains of the block and two are outside, so its two domains leave the block."""
    options = {"update_strategy": "full_reuse", "propose_bounds": '{"w*": [0, 0.3]}'}
    _, plan = begin_update(parent, tmp_path, ADD_NEW, ADDED, **options)
    assert set(plan.recomputed) == {"new", "web", "wiki"} and [*plan.kept["kept"]] == ["code", "books"]


def test_too_few_runs_per_weight_are_an_error_before_training(parent, tmp_path):
    options = {"update_strategy": "full_reuse", "update_proxies": 3, "swarm_min_runs": 4}
    with pytest.raises(UserError, match="has 3 runs for 2 weights, but swarm.min_runs wants each weight in 4 runs"):
        begin_update(parent, tmp_path, ADD_NEW, ADDED, **options)


def test_number_of_runs_is_ignored_with_a_warning_if_none_are_needed(parent, tmp_path, caplog):
    caplog.set_level("WARNING", logger="olmix_jax")
    _, plan = begin_update(parent, tmp_path, [{"remove": ["wiki"]}], OLD[:3], update_proxies=3)
    assert plan.needs_no_runs and "update.proxies=3 is ignored" in caplog.text
    assert plan.why.startswith(
        "no domain is affected, so the old law still holds and nothing is trained; 3 of 3 weights"
    )


def test_ignoring_old_runs_refits_without_them(parent, tmp_path):
    given, _ = begin_update(parent, tmp_path, ADD_NEW, ADDED, update_strategy="full_reuse")
    finish_update(tmp_path, given, ADDED)
    assert set(read_fit(tmp_path).error) == {"0.0", "0.1", "0.3", "1.0"}
    changed = settings(**given | swarm_of(tmp_path / "data"), update_old_runs=False)
    runner.run(changed, tmp_path / "run", ("update", "fit", "propose"))
    assert read_fit(tmp_path).trust == 0.0 and set(read_fit(tmp_path).error) == {"0.0"}


def test_changed_token_counts_make_the_drawn_mixtures_stale(parent, tmp_path):
    meta, counts = tmp_path / "meta.json", {d: TOKENS[d] for d in ADDED}
    files.write_json(meta, {"token_counts": counts})
    given, _ = begin_update(parent, tmp_path, ADD_NEW, ADDED, swarm_meta=str(meta))
    files.write_json(meta, {"token_counts": counts | {"new": 60e9}})
    with pytest.raises(UserError, match="ratios.csv: made before domains.json changed"):
        runner.run(settings(**given), tmp_path / "run", ("update",))
    assert files.read_json(tmp_path / "run/domains.json")["domains"][-1]["tokens"] == 60_000_000_000


def test_changed_bounds_file_makes_the_proposal_stale(parent, tmp_path):
    bounds, data = tmp_path / "bounds.json", swarm_of(parent.parent / "data")
    for least in (0.1, 0.6):
        files.write_json(bounds, {"web": [least, None]})
        runner.run(settings(**data, propose_bounds=str(bounds)), tmp_path / "run", ("fit", "propose"))
        assert read_proposal(tmp_path).weights["web"] >= least - 1e-12


@pytest.mark.parametrize(
    ("steps", "domains", "options", "message"),
    [
        ([{"remove": ["pdfs"]}], OLD, {}, "there is no domain pdfs; the domains are web, code, books, wiki"),
        (ADD_NEW, OLD, {}, "`token_counts` lacks new"),
        (
            ADD_NEW,
            ADDED,
            {"update_strategy": "partial_reuse", "update_recompute": ("new",)},
            "update.recompute: new is not an unaffected domain",
        ),
        (ADD_NEW, ADDED, {"propose_bounds": '{"pdfs": [0, 0.1]}'}, "pdfs"),
        (ADD_NEW, ADDED, {"propose_max_repeats": 0.5}, "max_repeats"),
    ],
)
def test_impossible_update_is_an_error_before_training(parent, tmp_path, steps, domains, options, message):
    with pytest.raises(UserError, match=message):
        begin_update(parent, tmp_path, steps, domains, **options)
    assert not (tmp_path / "run/update/plan.json").exists()


def test_unfinished_parent_is_an_error(tmp_path):
    with pytest.raises(UserError, match="update.parent.*has no propose/proposal.json; finish that run first"):
        runner.run(settings(update_parent=str(tmp_path)), tmp_path / "x", ("update",))


def test_external_swarm_without_update_file_is_an_error(parent, tmp_path):
    with pytest.raises(UserError, match="was trained elsewhere: list the changes in update.file"):
        runner.run(settings(update_parent=str(parent)), tmp_path / "x", ("update",))


def test_update_without_parent_is_an_error(tmp_path):
    with pytest.raises(UserError, match="update.parent"):
        runner.run(settings(), tmp_path / "x", ("update",))


def test_workdir_cannot_be_its_own_parent(parent):
    with pytest.raises(UserError, match="the workdir itself"):
        runner.run(settings(update_parent=str(parent)), parent, ("update",))


def test_chain_of_parents_in_a_cycle_is_an_error(parent, tmp_path):
    begin_update(parent, tmp_path, [{"remove": ["wiki"]}], OLD[:3])
    path = tmp_path / "run/update/plan.json"
    files.write_json(path, {**files.read_json(path), "parent": str(tmp_path / "run")})
    with pytest.raises(UserError, match=r"plan\.json: its parent .* is an update of this workdir"):
        runner.run(settings(update_parent=str(tmp_path / "run")), tmp_path / "x", ("update",))


def test_written_plan_is_read_back(parent, tmp_path):
    _, plan = begin_update(parent, tmp_path, [{"remove": ["wiki"]}], OLD[:3])
    path = tmp_path / "again.json"
    plan.write(path)
    assert UpdatePlan.read(path) == plan
    assert json.loads(path.read_text()) == files.read_json(tmp_path / "run/update/plan.json")

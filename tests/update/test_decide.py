"""An update of a swarm that was trained elsewhere, through the stages; PITFALLS 22 to 24."""

import dataclasses
import json

import numpy as np
import pytest

from olmix_jax import config
from olmix_jax.config import workdir as workdirs
from olmix_jax.laws import evaluate, log_linear
from olmix_jax.pipeline import runner
from olmix_jax.swarm import table
from olmix_jax.update import decide, history, update_plan
from olmix_jax.update.update_plan import OldRuns, UpdatePlan
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError

OLD, TASKS = ("web", "code", "books", "wiki"), ("math", "chat", "qa")
TOKENS = {"web": 50e9, "code": 20e9, "books": 10e9, "wiki": 4e9, "new": 6e9, "wiki:a": 3e9, "wiki:b": 1e9}
EFFECT = {
    "web": (0.1, -0.3, -0.2),
    "code": (-1.2, 0.3, 0.1),
    "books": (0.2, -0.9, -0.4),
    "wiki": (0.1, -0.1, -1.0),
    "new": (-1.5, 0.2, 0.0),
    "wiki:a": (0.0, -0.1, -1.2),
    "wiki:b": (0.4, -0.1, -0.4),
}
NOISE, TARGET = 0.004, 100e9


def measured(domains, ratios_KM, seed=0):
    """Scores of runs by one truth for all domains, with noise."""
    params = log_linear.Params(np.log([0.5, 0.6, 0.7]), np.array([EFFECT[d] for d in domains]).T)
    noise_KN = np.random.default_rng(seed).normal(size=(len(ratios_KM), len(TASKS)))
    return evaluate(log_linear.LAW, params, ratios_KM) + NOISE * noise_KN


def write(folder, domains, ratios_KM, seed=0, tasks=TASKS):
    runs = tuple(f"r{k}" for k in range(len(ratios_KM)))
    tokens_M = np.array([TOKENS[d] for d in domains])
    bpb_KN = measured(domains, ratios_KM, seed)[:, [TASKS.index(task) for task in tasks]]
    data = ratios_KM, bpb_KN, tokens_M / tokens_M.sum(), tokens_M
    table.write_swarm(folder, runs, runs, domains, tasks, *data, {})


def settings(**changes):
    c = config.default()
    c.fit.resamples, c.propose.explore, c.propose.next_runs = 24, False, 0
    c.propose.target_tokens = TARGET
    for name, value in changes.items():
        section, field = name.split("_", 1)
        c[section][field] = value
    return config.from_dict(c)


def swarm_of(folder):
    return {f"swarm_{name}": str(folder / f"{name}.{end}") for name, end in FILES.items()}


FILES = {"ratios": "csv", "metrics": "csv", "meta": "json"}


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parent")
    write(folder / "data", OLD, np.random.default_rng(0).dirichlet(np.ones(4), size=24))
    runner.run(settings(**swarm_of(folder / "data")), folder / "run", ("fit", "propose"))
    return folder / "run"


def begin(parent, folder, steps, domains, **changes):
    """Plans an update and draws its swarm; (config, plan)."""
    files.write_json(folder / "update.json", {"updates": steps})
    meta = json.dumps({"token_counts": {d: TOKENS[d] for d in domains}})
    given = {"update_parent": str(parent), "update_file": str(folder / "update.json"), "swarm_meta": meta, **changes}
    made = settings(**given)
    runner.run(made, folder / "run", ("update",))
    return given, UpdatePlan.read(folder / "run/update/plan.json")


def finish(folder, given, domains):
    """Measures the swarm and goes on to the proposal."""
    _, _, columns, ratios_KM = table.read_ratios(folder / "run/swarm/ratios.csv")
    assert columns == domains
    # The tables come back with their columns in another order.
    write(folder / "data", domains[::-1], ratios_KM[:, ::-1], seed=1)
    runner.run(settings(**given | swarm_of(folder / "data")), folder / "run", ("update", "fit", "propose"))
    return files.read_json(folder / "run/propose/proposal.json"), files.read_json(folder / "run/fit/fit.json")


def test_a_domain_is_added(parent, tmp_path):
    """The kept block keeps its ratios, in the swarm and in the proposal, and no member exceeds its cap (Lemma 1)."""
    domains = (*OLD, "new")
    given, plan = begin(parent, tmp_path, [{"add": ["new"]}], domains, update_strategy="full_reuse")
    assert (plan.affected, plan.recomputed) == (("new",), ("new",))
    assert (plan.proxies, plan.proxies_full) == (8, 16)
    old = files.read_json(parent / "propose/proposal.json")["weights"]
    kept = plan.kept["kept"]
    assert kept == pytest.approx({d: old[d] for d in OLD})
    _, _, _, ratios_KM = table.read_ratios(tmp_path / "run/swarm/ratios.csv")
    assert len(ratios_KM) == 8
    block_K = ratios_KM[:, :4].sum(axis=1)
    np.testing.assert_allclose(ratios_KM[:, :4], block_K[:, None] * np.array([*kept.values()]), atol=1e-3)
    proposal, fitted = finish(tmp_path, given, domains)
    weights, caps = proposal["weights"], proposal["caps"]
    total = sum(weights[d] for d in OLD)
    assert {d: weights[d] / total for d in OLD} == pytest.approx(kept, abs=1e-9)
    assert all(weights[d] <= min(1, 4 * TOKENS[d] / TARGET) + 1e-12 for d in domains)
    assert caps["wiki"] == pytest.approx(0.16)
    assert fitted["trust"] in (0.0, *decide.TRUSTS) and fitted["over"] in ("domains", "blocks")
    assert set(proposal["reuse"]) >= {"predicted_loss", "loss"}
    # KL is of the expanded mixture against natural of the new set (PITFALL 22).
    p_M, natural_M = (np.array([proposal[of][d] for d in domains]) for of in ("weights", "natural"))
    assert proposal["kl"] == pytest.approx((p_M * np.log(p_M / natural_M)).sum(), rel=1e-9)


@pytest.mark.slow
def test_the_rule_decides_and_the_chain_goes_on(parent, tmp_path):
    """add, then partition and rename, then remove: evidence of every age is still there (PITFALL 24)."""
    domains = (*OLD, "new")
    first = tmp_path / "1"
    given, plan = begin(parent, first, [{"add": ["new"]}], domains)
    assert plan.strategy == "auto" and plan.predicted_loss.mean >= -1e-9
    least = min(c.loss.mean for c in plan.candidates)
    assert plan.predicted_loss.mean <= least + 0.02 * plan.predicted_gain.gain + 1e-12
    proposal, _ = finish(first, given, domains)
    assert proposal["objective"] < proposal["objective_natural"]
    # The new domain is what math wants most: columns that were mixed up would not find it.
    assert proposal["weights"]["new"] > proposal["natural"]["new"]

    second = tmp_path / "2"
    names = ("web", "code", "books", "wiki:a", "wiki:b", "new")
    given, plan = begin(first / "run", second, [{"partition": {"wiki": ["wiki:a", "wiki:b"]}}], names)
    assert plan.affected == ("wiki:a", "wiki:b") and not plan.lost
    assert plan.old_runs == (OldRuns(1, 8 * (plan.history[1].proxies // 8)), OldRuns(2, 24))
    assert [entry.strategy for entry in plan.history] == ["first swarm", "auto"]
    finish(second, given, names)

    # Full recomputation is the paper's: it trains, whatever the old law says (METHOD §3).
    left = tuple(d for d in names if d != "code")
    _, plan = begin(second / "run", tmp_path / "4", [{"remove": ["code"]}], left, update_strategy="full")
    assert plan.proxies == plan.proxies_full == 16

    third = tmp_path / "3"
    _, plan = begin(second / "run", third, [{"remove": ["code"]}], left)
    assert plan.proxies == 0 and len(plan.history) == 3 and plan.lost == ("code",)
    proposal = files.read_json(third / "run/propose/proposal.json")
    assert set(proposal["weights"]) == set(left) and sum(proposal["weights"].values()) == pytest.approx(1)
    # The old law on mixtures without the domain that is gone.
    law = history.read_law(third / "run")
    before = history.read_law(second / "run")
    p_M = np.array([proposal["weights"][d] for d in left])
    whole_M = np.array([proposal["weights"].get(d, 0.0) for d in names])
    np.testing.assert_allclose(law.predict(p_M[None]), before.predict(whole_M[None]), rtol=1e-12)


def test_runs_with_a_little_of_a_lost_domain_are_told_without_it(parent):
    """Their scores are moved by what the old law says of it, and doubted as much; PITFALL 24."""
    from olmix_jax.update import changes as updates

    change = updates.change(OLD, [updates.remove("wiki")])
    (found,) = history.runs_before(parent, change, np.array([50e9, 20e9, 10e9]), TASKS)
    swarm = workdirs.read_table(workdirs.read_config(parent), parent)
    kept_K = swarm.ratios_KM[:, 3] < 0.5
    assert len(found.ratios_KM) == kept_K.sum() and found.age == 1
    clean_KM = swarm.ratios_KM[kept_K, :3] / swarm.ratios_KM[kept_K, :3].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.ratios_KM, clean_KM)
    # Nearer to the truth of the mixture without the domain than the score as it was.
    truth_KN = (
        measured(OLD[:3], clean_KM)
        - measured(OLD[:3], clean_KM)
        + evaluate(
            log_linear.LAW,
            log_linear.Params(np.log([0.5, 0.6, 0.7]), np.array([EFFECT[d] for d in OLD[:3]]).T),
            clean_KM,
        )
    )
    off, off_before = (np.abs(x - truth_KN).mean() for x in (found.bpb_KN, swarm.bpb_KN[kept_K]))
    assert off < 0.4 * off_before
    most, least = swarm.ratios_KM[kept_K, 3].argmax(), swarm.ratios_KM[kept_K, 3].argmin()
    assert found.doubt_K[most] > found.doubt_K[least] >= 0
    assert (decide.trust(found, 0.3) <= 0.3).all() and decide.trust(found, 0.3)[most] < 0.3


def test_tasks_are_joined_by_name(parent, tmp_path, caplog):
    """PITFALL 24: a chain whose scores come back with their tasks in another order, then with one less."""
    from olmix_jax.update import changes as updates

    caplog.set_level("INFO", logger="olmix_jax")
    domains, first = (*OLD, "new"), tmp_path / "1"
    given, _ = begin(parent, first, [{"add": ["new"]}], domains, update_strategy="full")
    _, _, _, ratios_KM = table.read_ratios(first / "run/swarm/ratios.csv")
    write(first / "data", domains, ratios_KM, seed=1, tasks=TASKS[::-1])
    runner.run(settings(**given | swarm_of(first / "data")), first / "run", ("update", "fit", "propose"))
    assert files.read_json(first / "run/fit/fit.json")["trust"] > 0
    change, tokens_M = updates.change(domains, []), np.array([TOKENS[d] for d in domains])
    young, old = history.runs_before(first / "run", change, tokens_M, TASKS)
    assert (young.age, old.age) == (1, 2)
    np.testing.assert_allclose(young.bpb_KN, measured(domains, ratios_KM, seed=1))
    np.testing.assert_array_equal(old.bpb_KN, workdirs.read_table(workdirs.read_config(parent), parent).bpb_KN)
    turned = history.runs_before(first / "run", change, tokens_M, TASKS[::-1])[1]
    np.testing.assert_array_equal(turned.bpb_KN, old.bpb_KN[:, ::-1])
    assert history.runs_before(first / "run", change, tokens_M, (*TASKS, "law")) == []
    assert "were not scored on law" in caplog.text


def test_a_run_counts_once(parent):
    """New runs that stand among the old ones, as in a table that was appended to, and seeds of an unchanged set."""
    swarm = workdirs.read_table(workdirs.read_config(parent), parent)
    both = history.Runs(swarm.ratios_KM, swarm.bpb_KN, np.zeros(24), 1)
    new = dataclasses.replace(swarm, runs=swarm.runs[:9], names=swarm.names[:9])
    new = dataclasses.replace(new, ratios_KM=swarm.ratios_KM[:9], bpb_KN=swarm.bpb_KN[:9])
    (left,) = decide._without([both], new)
    np.testing.assert_array_equal(left.bpb_KN, swarm.bpb_KN[9:])
    assert decide._without([left], swarm) == []


def test_bounds_are_met_or_refused_before_anything_is_trained(parent, tmp_path):
    domains = (*OLD, "new")
    begun = {"update_strategy": "full_reuse", "propose_bounds": '{"w*": [0, 0.3]}'}
    _, plan = begin(parent, tmp_path / "1", [{"add": ["new"]}], domains, **begun)
    # The group has two of the four: they leave the block.
    assert set(plan.recomputed) == {"new", "web", "wiki"} and [*plan.kept["kept"]] == ["code", "books"]
    with pytest.raises(UserError, match="no domain is or matches pdfs"):
        begin(parent, tmp_path / "2", [{"add": ["new"]}], domains, propose_bounds='{"pdfs": [0, 0.1]}')
    with pytest.raises(UserError, match="so no mixture meets them"):
        begin(parent, tmp_path / "3", [{"add": ["new"]}], domains, propose_max_repeats=0.5)


def test_runs_that_cannot_be_are_refused_before_any_is_trained(parent, tmp_path, caplog):
    caplog.set_level("WARNING", logger="olmix_jax")
    few = {"update_proxies": 3, "swarm_min_runs": 4}
    with pytest.raises(UserError, match="takes 3 runs .* fewer than the 4 by .* set update.proxies"):
        begin(parent, tmp_path / "1", [{"add": ["new"]}], (*OLD, "new"), update_strategy="full_reuse", **few)
    _, plan = begin(parent, tmp_path / "2", [{"remove": ["wiki"]}], OLD[:3], **few)
    assert plan.proxies == 0 and "update.proxies=3 is not heeded" in caplog.text


def test_what_is_told_by_a_parent_is_told_again_when_it_changes(parent, tmp_path):
    domains, data = (*OLD, "new"), tmp_path / "data"
    given, _ = begin(parent, tmp_path, [{"add": ["new"]}], domains, update_strategy="full_reuse")
    finish(tmp_path, given, domains)
    made = settings(**given | swarm_of(data), update_old_runs=False)
    runner.run(made, tmp_path / "run", ("update", "fit", "propose"))
    assert files.read_json(tmp_path / "run/fit/fit.json")["trust"] == 0.0
    before = history.evidence(tmp_path / "run")
    proposal = files.read_json(tmp_path / "run/propose/proposal.json")
    files.write_json(tmp_path / "run/propose/proposal.json", {**proposal, "weights": dict.fromkeys(domains, 0.2)})
    assert history.evidence(tmp_path / "run") != before


@pytest.mark.slow
def test_a_law_over_blocks_does_not_undo_their_ratios(parent, tmp_path):
    """A remove after an update by blocks: what the law cannot tell apart keeps the ratios that an older law found."""
    domains, first = (*OLD, "new"), tmp_path / "1"
    changes = {"update_strategy": "full_reuse", "update_old_runs": False}
    given, _ = begin(parent, first, [{"add": ["new"]}], domains, **changes)
    proposal, fitted = finish(first, given, domains)
    assert fitted["over"] == "blocks" and history.tied(first / "run") == set(OLD) and history.tied(parent) == set()
    left = ("web", "books", "wiki", "new")
    _, plan = begin(first / "run", tmp_path / "2", [{"remove": ["code"]}], left, propose_max_repeats=50.0)
    assert plan.strategy == "auto" and plan.proxies == 0 and history.tied(tmp_path / "2/run") == set(left[:3])
    after = files.read_json(tmp_path / "2/run/propose/proposal.json")["weights"]
    before = proposal["weights"]
    kept = list(plan.kept["kept"])
    assert set(kept) == set(left[:3]) and plan.recomputed == ("new",)
    ratios = [np.array([weights[d] for d in kept]) / sum(weights[d] for d in kept) for weights in (before, after)]
    np.testing.assert_allclose(*ratios, rtol=1e-6)


@pytest.mark.slow
def test_caution_and_kept_ratios(parent, tmp_path):
    """What the ratios cost is reckoned as the proposal is; what cannot be is refused before anything is trained."""
    domains = (*OLD, "new")
    begun = {"update_strategy": "full_reuse", "propose_tail": 0.3}
    given, _ = begin(parent, tmp_path, [{"add": ["new"]}], domains, **begun)
    proposal, _ = finish(tmp_path, given, domains)
    assert proposal["reuse"]["loss"] is None or proposal["reuse"]["loss"] >= -1e-6
    with pytest.raises(UserError, match="choose_kl_weight` cannot be used with an update that keeps ratios"):
        settings(update_parent=str(parent), propose_choose_kl_weight=True)


def test_files_that_settings_name_are_read_again(parent, tmp_path):
    """Bounds in a file, and new token counts: a stage that was made from others is not found finished."""
    domains, meta = (*OLD, "new"), tmp_path / "meta.json"
    counts = {d: TOKENS[d] for d in domains}
    files.write_json(meta, {"token_counts": counts})
    given, _ = begin(parent, tmp_path, [{"add": ["new"]}], domains, swarm_meta=str(meta))
    files.write_json(meta, {"token_counts": counts | {"new": 60e9}})
    # Planned again; and the mixtures that were drawn by the old plan are not passed off as the new one's.
    with pytest.raises(UserError, match="ratios.csv: made with domains.json"):
        runner.run(settings(**given), tmp_path / "run", ("update",))
    assert files.read_json(tmp_path / "run/domains.json")["domains"][-1]["tokens"] == 60_000_000_000
    bounds = tmp_path / "bounds.json"
    data = {f"swarm_{name}": str(parent.parent / "data" / f"{name}.{end}") for name, end in FILES.items()}
    for least in (0.1, 0.6):
        files.write_json(bounds, {"web": [least, None]})
        runner.run(settings(**data, propose_bounds=str(bounds)), tmp_path / "whole", ("fit", "propose"))
        proposal = files.read_json(tmp_path / "whole/propose/proposal.json")
        assert proposal["weights"]["web"] >= least - 1e-12


def test_what_cannot_be_updated_is_said(parent, tmp_path):
    with pytest.raises(UserError, match="update.parent.*holds no propose/proposal.json; finish that run first"):
        runner.run(settings(update_parent=str(tmp_path)), tmp_path / "x", ("update",))
    lost = tmp_path / "lost"
    begin(parent, lost, [{"add": ["new"]}], (*OLD, "new"))
    plan = files.read_json(lost / "run/update/plan.json")
    files.write_json(lost / "run/update/plan.json", {**plan, "parent": str(lost / "run")})
    with pytest.raises(UserError, match=r"plan\.json: its parent .* is an update of this workdir"):
        workdirs.ancestors(lost / "run")
    files.write_json(lost / "run/update/plan.json", {"strategy": "auto"})
    with pytest.raises(UserError, match=r"plan\.json: parent is missing; delete the file and rerun --stages=update"):
        update_plan.read_if_any(lost / "run")
    with pytest.raises(UserError, match="stage update needs config field `update.parent`"):
        runner.run(settings(), tmp_path / "x", ("update",))
    with pytest.raises(UserError, match="the workdir itself"):
        runner.run(settings(update_parent=str(parent)), parent, ("update",))
    with pytest.raises(UserError, match="say what changed with update.file"):
        runner.run(settings(update_parent=str(parent)), tmp_path / "x", ("update",))
    with pytest.raises(UserError, match="no domain pdfs; there are web, code, books, wiki"):
        begin(parent, tmp_path / "y", [{"remove": ["pdfs"]}], OLD)
    with pytest.raises(UserError, match="`token_counts` lacks new"):
        begin(parent, tmp_path / "z", [{"add": ["new"]}], OLD)
    with pytest.raises(UserError, match="update.recompute: new is not an unaffected domain"):
        changes = {"update_strategy": "partial_reuse", "update_recompute": ("new",)}
        begin(parent, tmp_path / "w", [{"add": ["new"]}], (*OLD, "new"), **changes)

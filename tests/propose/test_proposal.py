"""Proposals of laws that are not convex, of laws without slopes, and their error bars."""

import collections
import dataclasses
import itertools
import json
import re
import types

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from olmix_jax import config
from olmix_jax.config.workdir import read_table
from olmix_jax.laws import evaluate, evaluate_each, fitting, log_linear, params_files, search, warped_gp
from olmix_jax.pipeline import deciding
from olmix_jax.propose import baselines, propose
from olmix_jax.propose.proposal import Proposal
from olmix_jax.propose.task_weights import task_weights
from olmix_jax.solver.bounds import box
from olmix_jax.solver.problem import Problem
from olmix_jax.solver.status import Status
from olmix_jax.utils import records
from olmix_jax.utils.errors import UserError

TASKS = ("math", "chat")


def waves(params, ratios_KM):
    """A law with many local minima: cosines along random directions."""
    direction_NM, phase_N = params
    return 2 + jnp.cos(ratios_KM @ direction_NM.T + phase_N[None, :])


WAVES = dataclasses.replace(log_linear.LAW, name="waves", predict=waves, convex=False)


SETTINGS = {field.name for field in dataclasses.fields(config.Propose)}


def proposal(law, params, natural_M, **changes):
    settings = config.Propose(**{"explore": False} | {n: v for n, v in changes.items() if n in SETTINGS})
    rest = {"tasks": TASKS} | {name: value for name, value in changes.items() if name not in SETTINGS}
    names = [f"d{j}" for j in range(len(natural_M))]
    return propose(law, params, natural_M=natural_M, domains=names, settings=settings, **rest)


def reread(content):
    """The proposal as it comes back from its file; JSON has no NaN or infinity."""
    return records.from_plain(Proposal, json.loads(json.dumps(records.plain(content), allow_nan=False)))


def weights(content):
    return np.array(list(content.weights.values()))


def rugged(seed=0):
    """Warped GPs through random measurements: short lengths, so that several minima exist; and their runs."""
    rng = np.random.default_rng(seed)
    ratios_KM = rng.dirichlet(np.ones(3), size=30)
    theta_NP = np.tile(np.log([1.0, 1.0, 1.0, 0.1, 1.0, 30.0, 0.01, 0.1]), (2, 1))
    near = types.SimpleNamespace(theta_NP=theta_NP)
    bpb_KN = np.exp(0.3 * rng.normal(size=(30, 2)))
    params = warped_gp.fit_weighted(ratios_KM, bpb_KN, np.ones((1, 30)), near=near)
    return warped_gp.Params(*(x[0] for x in params)), ratios_KM


@pytest.mark.parametrize("kl_weight, seed", [(0.0, 0), (0.0, 1), (0.05, 2), (0.05, 3)])
def test_a_warped_gp_against_a_grid(kl_weight, seed):
    params, ratios_KM = rugged(seed)
    natural_M, tokens_M = np.array([0.2, 0.3, 0.5]), np.array([20e9, 15e9, 50e9])
    capped = {"tokens_M": tokens_M, "target_tokens": 1e11}
    content = proposal(warped_gp.LAW, params, natural_M, ratios_KM=ratios_KM, kl_weight=kl_weight, **capped)
    upper_M = np.array([0.8, 0.6, 1.0])
    steps = np.linspace(0, 1, 201)
    grid_KM = np.array([(a, b, max(1 - a - b, 0)) for a, b in itertools.product(steps, steps) if a + b <= 1 + 1e-12])
    grid_KM = grid_KM[(grid_KM <= upper_M + 1e-12).all(axis=1)]
    posed = Problem(warped_gp.LAW, params, np.full(2, 0.5), natural_M, box(np.zeros(3), upper_M), kl_weight)
    least = posed.values(grid_KM).min()
    assert least - 0.01 < content.objective <= least + 1e-6
    assert content.objective == pytest.approx(posed.values(weights(content)[None])[0], abs=1e-12)
    assert content.status is Status.LOCAL_OPTIMUM and content.outcome == "local optimum, best of 8 starts"
    certificate = content.certificate
    assert certificate.gap is None and "convex" in certificate.no_gap
    assert certificate.starts == 8 and 1 <= certificate.agreeing <= 8 and certificate.residual < 1e-6
    assert (weights(content) <= np.array(list(content.caps.values()))).all()


@pytest.mark.parametrize("kl_weight, seed", [(0.0, 0), (0.02, 1), (0.05, 2)])
def test_never_worse_than_slsqp_from_the_same_starts(kl_weight, seed):
    rng = np.random.default_rng(seed)
    params, natural_M = (4 * rng.normal(size=(2, 6)), rng.normal(size=2)), rng.dirichlet(np.full(6, 3.0))
    ratios_KM = rng.dirichlet(np.ones(6), size=20)
    content = proposal(WAVES, params, natural_M, ratios_KM=ratios_KM, kl_weight=kl_weight)
    posed = Problem(WAVES, params, np.full(2, 0.5), natural_M, box(np.zeros(6), np.ones(6)), kl_weight)
    runs_KM = ratios_KM[np.argsort(posed.values(ratios_KM))[:3]]

    def value(p_M):
        law = 2 + np.cos(params[0] @ p_M + params[1]).mean()
        return law + kl_weight * (p_M * np.log(np.maximum(p_M, 1e-12) / natural_M)).sum()

    ends = [
        scipy.optimize.minimize(
            value,
            start_M,
            method="SLSQP",
            bounds=[(0, 1)] * 6,
            constraints={"type": "eq", "fun": lambda p_M: p_M.sum() - 1},
            options={"ftol": 1e-12, "maxiter": 300},
        )
        for start_M in [natural_M, *runs_KM]
    ]
    assert content.objective <= min(end.fun for end in ends if end.success) + 1e-6


@hypothesis.settings(deadline=None, max_examples=25)
@hypothesis.given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.05]))
def test_caps_hold_exactly_and_nothing_is_nan(seed, kl_weight):
    rng = np.random.default_rng(seed)
    params = rng.choice([1.0, 10.0]) * rng.normal(size=(2, 6)), rng.normal(size=2)
    natural_M = rng.dirichlet(np.ones(6))
    tokens_M = 1e9 * natural_M * rng.uniform(0.3, 3, size=6)
    target = 4 * tokens_M.sum() / rng.choice([1.01, 2.0, 5.0])
    capped = {"tokens_M": tokens_M, "target_tokens": target, "kl_weight": kl_weight}
    content = proposal(WAVES, params, natural_M, ratios_KM=rng.dirichlet(np.ones(6), size=20), **capped)
    found_M, caps_M = weights(content), np.array(list(content.caps.values()))
    assert (found_M >= 0).all() and (found_M <= caps_M).all() and abs(found_M.sum() - 1) < 1e-13
    assert reread(content) == content
    posed = Problem(WAVES, params, np.full(2, 0.5), natural_M, box(np.zeros(6), caps_M), kl_weight)
    # Natural's projection is where one of the starts begins.
    assert content.objective <= posed.values(posed.project(natural_M[None]))[0] + (1e-9 if kl_weight == 0 else 1e-2)


def test_a_law_that_is_not_convex_needs_no_runs_and_repeats():
    rng = np.random.default_rng(0)
    params, natural_M = (3 * rng.normal(size=(2, 6)), rng.normal(size=2)), np.full(6, 1 / 6)
    first, second = (proposal(WAVES, params, natural_M, seed=3) for _ in range(2))
    assert first == second and first.status is Status.LOCAL_OPTIMUM


# Laws without slopes.

RUNS_KM = np.array([[0.9, 0.1, 0.0], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.0, 0.2, 0.8]])
SEARCH = search.fit(RUNS_KM, np.array([[1.0, 1.2], [1.3, 1.1], [1.5, 1.4], [1.6, 1.5]])).params


def test_search_proposes_the_best_run_within_the_caps():
    natural_M = np.array([0.2, 0.3, 0.5])
    content = proposal(search.LAW, SEARCH, natural_M)
    np.testing.assert_array_equal(weights(content), RUNS_KM[0])
    capped = {"tokens_M": np.array([13e9, 50e9, 50e9]), "target_tokens": 1e11}
    content = proposal(search.LAW, SEARCH, natural_M, **capped)
    np.testing.assert_array_equal(weights(content), RUNS_KM[1])
    assert content.status is Status.SEARCHED and content.outcome == "best of 3 candidates"
    assert content.certificate.gap is None and content.certificate.candidates == 3
    assert content.shadow_prices is None and content.repeats["d0"] == pytest.approx(0.5 * 1e11 / 13e9)
    assert content.predicted == {"math": 1.3, "chat": 1.1}
    with pytest.raises(UserError, match="none of the swarm's 4 runs.*max_repeats"):
        proposal(search.LAW, SEARCH, natural_M, tokens_M=np.array([2e9, 3e9, 50e9]), target_tokens=1e11)


def steps(params, ratios_KM):
    """Constant between thresholds, as trees are: a bowl around ``params``, in stairs."""
    bowl_K = ((ratios_KM - params) ** 2).sum(axis=1)
    return np.stack([np.floor(20 * bowl_K) / 20, np.floor(30 * bowl_K) / 30], axis=1) + 1


def test_candidates_are_within_caps_and_find_the_bottom():
    law = dataclasses.replace(search.LAW, name="steps", predict=steps)
    natural_M, centre_M = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.4, 0.4, 0.1, 0.1])
    settings = {"ratios_KM": np.eye(4), "kl_weight": 0.001}
    first, second = (proposal(law, centre_M, natural_M, seed=1, **settings) for _ in range(2))
    assert first == second and first.status is Status.SEARCHED
    assert first.predicted == {"math": 1.0, "chat": 1.0}
    capped = {"tokens_M": np.array([5e9, 50e9, 50e9, 50e9]), "target_tokens": 1e11}
    content = proposal(law, centre_M, natural_M, **settings, **capped)
    assert content.weights["d0"] <= 0.2 and abs(weights(content).sum() - 1) < 1e-13
    assert content.objective < content.objective_natural and content.certificate.candidates > 1000


# Error bars.

PARAMS = log_linear.Params(np.log([0.5, 0.4]), np.array([[-1.5, 0.3, 0.2], [0.4, -0.6, 0.1]]))
NATURAL_M = np.array([0.1, 0.3, 0.6])


def sampled(noise, number=24):
    rng = np.random.default_rng(0)
    coef_RNM = PARAMS.coef_NM + noise * rng.normal(size=(number, 2, 3))
    return log_linear.Params(np.tile(PARAMS.log_c_N, (number, 1)), coef_RNM)


def test_error_bars():
    sure = proposal(log_linear.LAW, PARAMS, NATURAL_M, samples=sampled(0.1))
    gain, p = sure.gain, sure.predicted
    assert 0 < gain.low < gain.mean < gain.high and gain.probability == 1 and gain.samples == 24
    predicted = np.mean(list(sure.predicted_natural.values())) - np.mean(list(p.values()))
    assert gain.low < predicted < gain.high
    assert all(sure.predicted_low[t] < p[t] < sure.predicted_high[t] for t in TASKS)
    assert all(0 < sure.weights_std[d] < 0.2 for d in sure.weights) and "gain" not in " ".join(sure.warnings)
    unsure = proposal(log_linear.LAW, PARAMS, NATURAL_M, samples=sampled(3.0))
    assert unsure.gain.probability < 0.9 and any("not sure of the gain" in w for w in unsure.warnings)
    # Samples that agree leave nothing open, and one that overflows is left out.
    same = sampled(0.0)._replace(log_c_N=np.tile(PARAMS.log_c_N, (24, 1)))
    same.log_c_N[3] = 1e4
    agreed = proposal(log_linear.LAW, PARAMS, NATURAL_M, samples=same)
    assert agreed.gain.samples == 23 and agreed.gain.low == pytest.approx(agreed.gain.high, abs=1e-12)
    assert max(agreed.weights_std.values()) < 1e-6


def test_samples_without_slopes_have_no_spread_of_weights():
    wide = search.Params(*(np.stack([x, x]) for x in SEARCH))
    content = proposal(search.LAW, SEARCH, np.array([0.2, 0.3, 0.5]), samples=wide)
    assert content.gain.probability == 1 and content.weights_std is None


# Weights per task, and the stage.


def test_sizes_weigh_tasks_unless_weights_are_given():
    np.testing.assert_allclose(task_weights("", TASKS, [3, 1]), [0.75, 0.25])
    np.testing.assert_allclose(task_weights('{"chat": 2}', TASKS, [3, 1]), [0, 1])
    assert proposal(log_linear.LAW, PARAMS, NATURAL_M, sizes_N=[3, 1]).task_weights == {"math": 0.75, "chat": 0.25}


def test_the_stage_reads_the_law_and_its_samples(tmp_path):
    rng = np.random.default_rng(0)
    ratios_KM = rng.dirichlet(np.ones(3), size=12)
    bpb_KN = evaluate(log_linear.LAW, PARAMS, ratios_KM)
    for name, columns, rows in (("ratios", ("a", "b", "c"), ratios_KM), ("metrics", TASKS, bpb_KN)):
        lines = [f"r{k},r{k},{k}," + ",".join(map(repr, row.tolist())) for k, row in enumerate(rows)]
        (tmp_path / f"{name}.csv").write_text("\n".join([f"run,name,index,{','.join(columns)}", *lines]) + "\n")
    c = config.default()
    c.swarm.ratios, c.swarm.metrics = str(tmp_path / "ratios.csv"), str(tmp_path / "metrics.csv")
    c.fit.law = "log_linear"
    c.swarm.meta = '{"relative_sizes": {"a": 0.1, "b": 0.3, "c": 0.6}}'
    options = fitting.Options("log_linear", starts=1, folds=2, resamples=0, seed=0)
    fit = fitting.fit(read_table(config.from_dict(c), tmp_path), options, tmp_path / "fit")
    dataclasses.replace(fit, digest="a name").write(tmp_path / "fit/fit.json")
    params_files.save(tmp_path / "fit/params.npz", PARAMS)
    params_files.save(tmp_path / "fit/samples.npz", sampled(0.1))
    deciding.propose_mixture(config.from_dict(c), tmp_path)
    content = Proposal.read(tmp_path / "propose/proposal.json")
    assert content.status is Status.OPTIMAL and content.gain.samples == 24
    assert content.fit == "a name"
    np.testing.assert_allclose(weights(content), weights(proposal(log_linear.LAW, PARAMS, NATURAL_M)), atol=1e-9)
    assert len((tmp_path / "propose/next.csv").read_text().splitlines()) == 9
    c.fit.law = "warped_gp"
    with pytest.raises(UserError, match="another law.*--stages=fit,propose"):
        deciding.propose_mixture(config.from_dict(c), tmp_path)


# What a config can ask for.

DOMAINS = ("web:a", "web:b", "code")


def wanted(**changes):
    """A proposal over three domains for the log-linear law above, and its weights."""
    settings = config.Propose(**{"explore": False} | {n: v for n, v in changes.items() if n in SETTINGS})
    rest = {name: value for name, value in changes.items() if name not in SETTINGS}
    content = propose(
        log_linear.LAW, PARAMS, tasks=TASKS, domains=DOMAINS, natural_M=NATURAL_M, settings=settings, **rest
    )
    return content, weights(content)


def test_bounds_groups_and_fixed_domains_hold():
    free_M = wanted()[1]
    assert free_M[:2].sum() > 0.6 and free_M[0] > 0.2
    content, found_M = wanted(bounds='{"web:*": [null, 0.5], "web:a": 0.15}')
    assert found_M[0] == 0.15 and found_M[:2].sum() <= 0.5 + 1e-12 and abs(found_M.sum() - 1) < 1e-13
    (group,) = content.groups
    assert group.name == "web:*" and group.domains == ("web:a", "web:b") and group.high == 0.5
    assert group.weight == pytest.approx(found_M[:2].sum()) and group.multiplier >= 0
    assert content.lower["web:a"] == content.caps["web:a"] == 0.15
    with pytest.raises(UserError, match="domains of web:\\* sum to 0.2, less than its lower bound 0.9"):
        wanted(bounds='{"web:*": [0.9, 1], "web:a": [0, 0.1], "web:b": [0, 0.1]}')
    with pytest.raises(UserError, match="no domain is or matches cod; the nearest is code"):
        wanted(bounds='{"cod": 0.1}')


def test_kept_ratios_are_kept_and_solved_exactly():
    content, found_M = wanted(keep_ratios='{"web": {"web:a": 1, "web:b": 3}}', samples=sampled(0.1))
    assert found_M[1] == pytest.approx(3 * found_M[0], rel=1e-12) and content.status is Status.OPTIMAL
    # One weight is left: the best of a fine grid of it.
    grid = np.linspace(1e-6, 1 - 1e-6, 20001)
    mixed_KM = np.stack([grid / 4, 3 * grid / 4, 1 - grid], axis=1)
    posed = Problem(log_linear.LAW, PARAMS, np.full(2, 0.5), NATURAL_M, None, 0.05)
    assert content.objective == pytest.approx(posed.values(mixed_KM).min(), abs=1e-7)
    assert content.objective == pytest.approx(posed.values(found_M[None])[0], abs=1e-12)
    assert set(content.weights_std) == set(DOMAINS)
    # The cap of a member is the block's, by its ratio.
    capped, capped_M = wanted(
        keep_ratios='{"web": {"web:a": 1, "web:b": 3}}', tokens_M=np.array([5e9, 9e9, 1e11]), target_tokens=1e11
    )
    assert (capped_M <= np.array(list(capped.caps.values())) + 1e-15).all()
    assert capped_M[1] == pytest.approx(0.36) and capped.shadow_prices["web:b"] > 0 == capped.shadow_prices["web:a"]
    more = 9e9 + 1e6
    again, _ = wanted(
        keep_ratios='{"web": {"web:a": 1, "web:b": 3}}', tokens_M=np.array([5e9, more, 1e11]), target_tokens=1e11
    )
    fall = (capped.objective - again.objective) / 1e6 * 1e9
    assert capped.shadow_prices["web:b"] == pytest.approx(fall, rel=1e-3)


def test_another_anchor_pulls_there():
    anchor = '{"web:a": 0.8, "web:b": 0.1, "code": 0.1}'
    content, found_M = wanted(anchor=anchor, kl_weight=50.0)
    np.testing.assert_allclose(found_M, [0.8, 0.1, 0.1], atol=2e-3)
    assert content.natural["code"] == 0.6 and content.anchor["web:a"] == 0.8


def test_the_worst_mixture_is_the_worst_and_says_so():
    content, found_M = wanted(worst=True, kl_weight=0.0)
    corners_KN = evaluate(log_linear.LAW, PARAMS, np.eye(3)).mean(axis=1)
    assert content.objective == pytest.approx(corners_KN.max()) and content.worst
    np.testing.assert_allclose(found_M, np.eye(3)[corners_KN.argmax()], atol=1e-6)
    assert "WORST" in content.warnings[0] and content.objective >= content.objective_natural


def test_guards_keep_tasks_and_caution_says_its_price():
    free, _ = wanted(kl_weight=0.0)
    assert free.worse_tasks == ("chat",)
    guarded, _ = wanted(kl_weight=0.0, guard=0.0)
    assert guarded.worse_tasks == () and guarded.objective > free.objective
    assert guarded.guard.binding == ("chat",) and guarded.guard.worst <= 1e-9
    careful, _ = wanted(tail=0.1, samples=sampled(0.5))
    plain, plain_M = wanted(samples=sampled(0.5))
    # The worst tenth of 24 samples are two and two fifths of one.
    worst_S = np.sort(evaluate_each(log_linear.LAW, sampled(0.5), plain_M[None])[:, 0].mean(axis=1))[::-1]
    tail = (worst_S[:2].sum() + 0.4 * worst_S[2]) / 2.4
    assert careful.tail.share == 0.1 and careful.tail.samples == 24
    assert careful.objective == pytest.approx(careful.tail.value + 0.05 * careful.kl)
    assert careful.objective < tail + 0.05 * plain.kl - 1e-6
    with pytest.raises(UserError, match="fit.resamples"):
        wanted(tail=0.1)
    with pytest.raises(UserError, match=r"keeps propose.guard = 0 BPB .*takes 0\.\d+ or more"):
        wanted(guard=0.0, bounds='{"web:a": [0.9, 1]}')


def test_baselines_are_never_better_than_the_exact_solution():
    runs_KM = np.random.default_rng(0).dirichlet(np.ones(3), size=30)
    exact, _ = wanted(ratios_KM=runs_KM)
    simulated, _ = wanted(ratios_KM=runs_KM, method="simulation")
    searched, best_M = wanted(ratios_KM=runs_KM, method="search")
    assert exact.objective <= simulated.objective + 1e-12 <= exact.objective + 1e-3
    assert exact.objective < searched.objective and (best_M == runs_KM).all(axis=1).any()


def test_lambda_can_be_chosen_and_what_stands_beside_is_there():
    rng = np.random.default_rng(1)
    ratios_KM = rng.dirichlet(np.ones(3), size=30)
    bpb_KN = evaluate(log_linear.LAW, PARAMS, ratios_KM) + 1e-4 * rng.normal(size=(30, 2))
    about = {"ratios_KM": ratios_KM, "bpb_KN": bpb_KN, "explore": True, "families": '{"m": ["math"], "c": ["chat"]}'}
    content, found_M = wanted(**about, choose_kl_weight=True)
    assert content.kl_weight == content.choice.best < 0.05 and content.choice.used
    path = content.path
    at = path.kl_weight.index(content.kl_weight)
    np.testing.assert_allclose(path.weights[at][0], found_M, atol=1e-6)
    assert content.pareto.families == ("m", "c") and len(content.pareto.points) > 5
    assert reread(content) == content
    with pytest.raises(UserError, match="choose_kl_weight needs"):
        wanted(choose_kl_weight=True)


def vertices(upper_M):
    """All vertices of {0 ≤ p ≤ upper, Σp = 1}: some domains full, one with the rest, the others empty."""
    found, size = [], len(upper_M)
    for full in itertools.product([False, True], repeat=size):
        full_M = np.array(full)
        rest = 1 - upper_M[full_M].sum()
        for j in np.flatnonzero(~full_M):
            if 0 <= rest <= upper_M[j]:
                found.append(np.where(full_M, upper_M, 0.0) + rest * (np.arange(size) == j))
    return np.array(found)


@pytest.mark.parametrize("seed", [1, 4, 6, 7, 11])
def test_the_worst_mixture_is_the_worst_vertex(seed):
    """A convex law is largest at a vertex; starts that are good for its minimum lead to others, of these in two."""
    rng = np.random.default_rng(seed)
    size, tasks = 5 + seed % 4, tuple("abcd")
    params = log_linear.Params(0.3 * rng.normal(size=4), 4 * rng.normal(size=(4, size)))
    upper_M, natural_M = rng.uniform(0.1, 0.6, size), rng.dirichlet(np.ones(size))
    tokens_M = 1e10 * np.maximum(upper_M, upper_M / upper_M.sum() * 1.3)
    asked = {"tasks": tasks, "tokens_M": tokens_M, "target_tokens": 1e10, "max_repeats": 1.0, "worst": True}
    content = proposal(log_linear.LAW, params, natural_M, kl_weight=0.0, **asked)
    upper_M = np.array(list(content.caps.values()))
    corners_KM = vertices(upper_M)
    most = evaluate(log_linear.LAW, params, corners_KM).mean(axis=1).max()
    assert content.objective == pytest.approx(most, rel=1e-12)
    assert "WORST mixture that was found" in content.warnings[0] and "maximum" in content.certificate.no_gap
    # With KL, no vertex and no mixture drawn is worse.
    content = proposal(log_linear.LAW, params, natural_M, kl_weight=0.05, **asked)
    posed = Problem(log_linear.LAW, params, np.full(4, -0.25), natural_M, box(np.zeros(size), upper_M), 0.05)
    drawn_KM = posed.project(np.concatenate([corners_KM, rng.dirichlet(np.full(size, 0.3), 5000)]))
    assert -content.objective <= posed.values(drawn_KM).min() + 1e-9


def test_a_search_is_not_given_intervals_of_optima():
    """The optima of samples are those of the exact solver, around another mixture than a search's."""
    runs_KM = np.random.default_rng(0).dirichlet(np.ones(3), size=30)
    for method in ("search", "simulation"):
        content, _ = wanted(ratios_KM=runs_KM, method=method, samples=sampled(0.1))
        assert content.gain is not None and content.weights_low is None and content.weights_std is None
        assert "search has no optima" in content.no_weight_intervals
        assert content.certificate.no_gap.startswith("a search over candidates proves nothing")
    assert wanted(samples=sampled(0.1))[0].no_weight_intervals is None
    assert "propose.guard" in wanted(samples=sampled(0.1), guard=0.01)[0].no_weight_intervals


def test_a_simulation_is_the_best_of_sampled_mixtures():
    content, found_M = wanted(method="simulation")
    posed = Problem(log_linear.LAW, PARAMS, np.full(2, 0.5), NATURAL_M, box(np.zeros(3), np.ones(3)), 0.05)
    only = baselines.simulate(posed, None, 0)
    np.testing.assert_array_equal(only.weights_M, found_M)
    assert content.outcome == "best of 20,002 candidates" and content.certificate.candidates == 20002
    # Runs play no part: it is sampled, as published.
    again, _ = wanted(method="simulation", ratios_KM=np.random.default_rng(0).dirichlet(np.ones(3), size=30))
    assert again.weights == content.weights


def test_a_kept_guard_gives_no_warning_for_a_law_that_is_not_convex():
    """Solved to 1e-7 of the limits as they are, tasks rise by 1e-8, of which the proposal warned."""
    rng = np.random.default_rng(2)
    ratios_KM = rng.dirichlet(np.ones(3), size=30)
    bpb_KN = evaluate(log_linear.LAW, PARAMS, ratios_KM) + 0.003 * rng.normal(size=(30, 2))
    params = warped_gp.fit(ratios_KM, bpb_KN).params
    for kl_weight in (0.0, 0.01):
        free = proposal(warped_gp.LAW, params, NATURAL_M, ratios_KM=ratios_KM, kl_weight=kl_weight)
        content = proposal(warped_gp.LAW, params, NATURAL_M, ratios_KM=ratios_KM, kl_weight=kl_weight, guard=0.0)
        assert free.worse_tasks and content.guard.binding, "it costs something"
        assert content.worse_tasks == () and content.status is Status.LOCAL_OPTIMUM
        assert -1e-6 < content.guard.worst <= 1e-9


def test_an_anchor_with_nothing_of_a_domain():
    anchor = '{"web:a": 0, "web:b": 0.5, "code": 0.5}'
    content, found_M = wanted(anchor=anchor, kl_weight=0.05)
    assert found_M[0] == 0 and content.objective_natural is None, "natural has some, and so an infinite divergence"
    # The library may ask for λ = 0, where the anchor is nothing to the objective.
    free, free_M = wanted(anchor=anchor, kl_weight=0.0)
    assert free_M[0] > 0.1 and free.kl is None and free.status is Status.OPTIMAL
    assert reread(content) == content and reread(free) == free
    with pytest.raises(
        UserError, match=r"web:a \[0.1, 0\].*the anchor \(propose.anchor\) has nothing of.*: web:a; give"
    ):
        wanted(anchor=anchor, bounds='{"web:a": [0.1, null]}')
    # Natural's objective is by the same anchor.
    content, _ = wanted(anchor='{"web:a": 0.8, "web:b": 0.1, "code": 0.1}', kl_weight=0.05)
    kl = (NATURAL_M * np.log(NATURAL_M / np.array([0.8, 0.1, 0.1]))).sum()
    law = np.mean(list(content.predicted_natural.values()))
    assert content.objective_natural == pytest.approx(law + 0.05 * kl, rel=1e-12)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"propose": {"anchor": '{"a": 1}', "kl_weight": 0.0}}, "`propose.anchor` has no effect with .*kl_weight=0`"),
        (
            {"propose": {"keep_ratios": "{}", "method": "search"}},
            "keep_ratios` has no effect with `propose.method=search",
        ),
        (
            {"propose": {"keep_ratios": "{}"}, "fit": {"law": "search"}},
            "keep_ratios` has no effect with `fit.law=search`",
        ),
        ({"propose": {"guard_by": "family"}}, "`propose.guard_by` has no effect without `propose.guard`"),
    ],
)
def test_settings_without_an_effect_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        config.from_dict(fields)


def test_kept_ratios_and_runs_as_they_are_exclude_each_other():
    """The library refuses what the config does: the mixture was no run, or sampled without a word."""
    kept = {"keep_ratios": '{"pair": {"d0": 1, "d1": 1}}'}
    with pytest.raises(UserError, match="no effect with propose.method=search"):
        proposal(log_linear.LAW, PARAMS, NATURAL_M, ratios_KM=RUNS_KM, method="search", **kept)
    with pytest.raises(UserError, match="no effect with fit.law=search"):
        proposal(search.LAW, SEARCH, NATURAL_M, **kept)
    config.from_dict({"propose": {**kept, "method": "simulation"}})
    content = proposal(log_linear.LAW, PARAMS, NATURAL_M, method="simulation", **kept)
    assert content.weights["d0"] == pytest.approx(content.weights["d1"])


def test_caps_say_whose_they_are():
    tokens = {"tokens_M": np.array([5e9, 20e9, 1e12]), "target_tokens": 1e11}
    content, found_M = wanted(bounds='{"web:b": [null, 0.1]}', kl_weight=0.001, **tokens)
    assert content.capped_by == {"web:a": "repetition", "web:b": "bound", "code": None}
    np.testing.assert_allclose(found_M[:2], [0.2, 0.1])
    assert content.shadow_prices["web:a"] > 0 == content.shadow_prices["web:b"]
    # A bound as high as the cap, or higher, is not what limits.
    assert wanted(bounds='{"web:a": [0, 0.9]}', **tokens)[0].capped_by["web:a"] == "repetition"
    assert wanted(bounds='{"web:a": 0.05}')[0].capped_by["web:a"] == "bound"


def test_families_have_weights_in_a_proposal():
    families = '{"m": ["math"], "c": ["chat"]}'
    content, _ = wanted(task_weights='{"m": 3, "chat": 1}', families=families)
    assert content.task_weights == {"math": 0.75, "chat": 0.25}


def test_the_worst_has_no_gain_to_warn_of_and_caution_knows_natural():
    content, _ = wanted(worst=True, samples=sampled(0.1))
    assert len(content.warnings) == 2 and "not capped" in content.warnings[1]
    careful, _ = wanted(tail=0.1, samples=sampled(0.5))
    each_S = np.sort(evaluate_each(log_linear.LAW, sampled(0.5), NATURAL_M[None])[:, 0].mean(axis=1))[::-1]
    tail = (each_S[:2].sum() + 0.4 * each_S[2]) / 2.4
    assert careful.tail.natural == pytest.approx(tail) == careful.objective_natural
    assert careful.objective < careful.objective_natural


def test_a_tail_without_kl_of_weight_where_natural_has_none():
    """The divergence is infinite, and 0·∞ is no number."""
    samples = sampled(0.1)
    given = {"domains": ("a", "b", "c"), "tasks": TASKS, "samples": samples}
    settings = config.Propose(explore=False, kl_weight=0.0, tail=0.5)
    content = propose(log_linear.LAW, PARAMS, natural_M=np.array([0, 0.5, 0.5]), settings=settings, **given)
    assert reread(content) == content
    assert content.weights["a"] > 0.1 and content.kl is None and content.status is Status.OPTIMAL


def test_what_stands_beside_says_what_it_leaves_out(caplog):
    families = {"families": '{"m": ["math"], "c": ["chat"]}', "explore": True}
    content, _ = wanted(guard=0.0, **families)
    assert content.explored_without == ("guard",) and content.path and content.pareto
    assert wanted(**families)[0].explored_without == ()
    with caplog.at_level("INFO"):
        content, _ = wanted(keep_ratios='{"web": {"web:a": 1, "web:b": 3}}', **families)
    assert content.path is None and "no paths" in caplog.text and "propose.keep_ratios" in caplog.text


def test_blocks_that_fit_no_caps_are_named_with_advice_that_works():
    kept = {"keep_ratios": '{"web": {"web:a": 1, "web:b": 3}}', "target_tokens": 1e11, "max_repeats": 1.0}
    tokens = {"tokens_M": np.array([5e9, 9e9, 2e10])}
    with pytest.raises(UserError, match=r"web \(web:a \+ web:b\) 0.12.*max_repeats to") as error:
        wanted(**kept, **tokens)
    enough = float(re.search(r"max_repeats to (\S+) or", str(error.value))[1])
    assert wanted(**kept | {"max_repeats": enough}, **tokens)[0].status is Status.OPTIMAL
    with pytest.raises(UserError, match="max_repeats to"):
        wanted(**kept | {"max_repeats": 0.999 * enough}, **tokens)


def test_odd_repeats_have_an_answer():
    """Numbers beyond any use give caps or advice, not a search that gives up or a warning of NumPy's."""
    tokens = {"tokens_M": np.array([5e9, 9e9, 2e10]), "target_tokens": 1e11}
    assert set(wanted(max_repeats=1e300, **tokens)[0].caps.values()) == {1.0}
    with pytest.raises(UserError, match="set propose.max_repeats to 2.94118 or more, or add text"):
        wanted(max_repeats=1e-300, **tokens)


# Caps and prices.

TOKENS_M = np.array([20e9, 60e9, 120e9])


def capped_proposal(tokens_M=TOKENS_M, **changes):
    natural_M = np.asarray(TOKENS_M) / np.sum(TOKENS_M)
    wishes = {"kl_weight": 0.01, "max_repeats": 4.0, "target_tokens": 3e11, "explore": False} | changes
    names = {"tasks": ("math", "chat"), "domains": ("proofs", "forum", "web"), "settings": config.Propose(**wishes)}
    return propose(log_linear.LAW, PARAMS, natural_M=natural_M, tokens_M=tokens_M, **names)


def test_proposal_content():
    content = capped_proposal()
    assert reread(content) == content
    weights = content.weights
    assert content.status is Status.OPTIMAL and sum(weights.values()) == pytest.approx(1, abs=1e-14)
    assert all(weights[d] <= content.caps[d] for d in weights)
    assert content.caps["proofs"] == pytest.approx(4 * 20e9 / 3e11) == pytest.approx(weights["proofs"])
    assert content.repeats["proofs"] == pytest.approx(4)
    assert content.repeats["web"] == pytest.approx(weights["web"] * 3e11 / 120e9)
    mean = {k: np.mean(list(getattr(content, k).values())) for k in ("predicted", "predicted_natural")}
    assert content.objective_natural == pytest.approx(mean["predicted_natural"])
    assert content.objective == pytest.approx(mean["predicted"] + 0.01 * content.kl, rel=1e-12)
    assert content.objective < content.objective_natural
    assert content.predicted_natural["math"] == pytest.approx(0.5 + np.exp(-0.15 + 0.09 + 0.12))


def test_shadow_prices_are_differences():
    """The fall of the objective per billion more unique tokens, natural held as it is."""
    prices = capped_proposal().shadow_prices
    assert prices["proofs"] > 0 and prices["web"] == 0
    more, fewer = (capped_proposal(TOKENS_M + np.array([step, 0, 0])).objective for step in (1e8, -1e8))
    assert prices["proofs"] == pytest.approx((fewer - more) / 0.2, rel=1e-4)
    # With k = 4 repeats, one more raises the cap as much as a quarter more tokens: 5e9.
    assert capped_proposal().repeat_prices["proofs"] == pytest.approx((fewer - more) / (0.2e9 / 5e9), rel=1e-4)


def test_tasks_that_get_worse_are_named():
    """PITFALL 20: all weight on one task gives up the other, and the proposal says so."""
    content = capped_proposal(task_weights='{"math": 2}')
    assert content.worse_tasks == ("chat",) and any("chat" in w for w in content.warnings)
    assert content.objective_natural == pytest.approx(content.predicted_natural["math"])
    # At natural itself nothing is worse, rounding or not.
    assert capped_proposal(kl_weight=1e9).worse_tasks == ()


def test_without_token_counts_nothing_is_capped():
    content = capped_proposal(None)
    assert set(content.caps.values()) == {1.0}
    assert content.repeats is None and content.shadow_prices is None and content.warnings


def test_an_infeasible_proposal_is_refused():
    with pytest.raises(UserError, match="proofs.*max_repeats"):
        capped_proposal(max_repeats=1.0)


# Hostile settings.

FUZZED, FUZZED_TASKS = ("web:a", "web:b", "code", "law"), ("gsm8k", "mbpp", "piqa")


def hostile(rng):
    """Fields of ``propose`` that a person might set, from careful to careless."""

    def one(*choices):
        return choices[rng.integers(len(choices))]

    def mixture(zeros):
        weights = rng.dirichlet(np.ones(4)) * (rng.uniform(size=4) >= zeros)
        return dict(zip(FUZZED, (weights / max(weights.sum(), 1e-300)).tolist()))

    def bound():
        low, high = np.sort(rng.uniform(0, one(0.3, 1.0), 2)).round(3).tolist()
        odd = one([0, 0], [1, 1], [high, low], None, "x", [0, 1e-300])
        return one([low, high], [low, None], [None, high], low, odd)

    names = [*FUZZED, "web:*", "*", "c*", *["nowhere"] * (rng.uniform() < 0.1)]
    weights = [*FUZZED_TASKS, "math", "code", "qa", *["none"] * (rng.uniform() < 0.1)]
    blocks = {"old": {"web:a": one(1, 3, 1e-12, 1e12), one("web:b", "code"): one(1, 2, 0)}}
    found = {
        "kl_weight": one(0.0, 1e-9, 0.05, 0.05, 1.0, 1e9),
        "max_repeats": one(4.0, 4.0, 1.0, 20.0, 0.5, 1e-300, 1e300),
        "target_tokens": one(1e9, 3e9, 1e10, 1e10, 1e300, 1e-300),
        "bounds": json.dumps({name: bound() for name in rng.choice(names, rng.integers(1, 3), replace=False)}),
        "anchor": json.dumps(mixture(one(0.0, 0.3))),
        "keep_ratios": json.dumps(one(blocks, {"old": {"web:a": 1, "web:b": 1, "code": 2}}, {"old": 3}, {"web:a": {}})),
        "task_weights": json.dumps({n: one(1, 0, 2, 3, 5, 1e300, -1) for n in rng.choice(weights, 2, replace=False)}),
        "guard": one(0.0, 1e-300, 0.01, 0.5, 1e300),
        "guard_by": one("task", "family"),
        "tail": one(0.0, 0.1, 0.5, 1.0),
        "worst": True,
        "method": one("search", "simulation"),
    }
    chosen = [name for name in found if rng.uniform() < (0.1 if name in ("worst", "method") else 0.25)]
    return {name: found[name] for name in chosen if name != "guard_by" or "guard" in chosen}


@pytest.mark.slow
def test_hostile_settings_end_in_a_mixture_within_bounds_or_an_error():
    """PITFALL 18, for the whole proposal: no NaN, None or vector of zeros, whatever is asked for."""
    rng, done, refused = np.random.default_rng(0), 0, collections.Counter()
    for _ in range(1500):
        params = log_linear.Params(0.3 * rng.normal(size=3), rng.choice([0.3, 1, 3]) * rng.normal(size=(3, 4)))
        samples = log_linear.Params(*(x + 0.1 * rng.normal(size=(6, *x.shape)) for x in params))
        natural_M = rng.dirichlet(np.ones(4)) * (rng.uniform(size=4) >= rng.choice([0.0, 0.0, 0.2]))
        tokens_M = rng.choice([1e8, 1e9, 1e10], size=4) * rng.uniform(0.5, 2, size=4)
        wishes, natural_M = hostile(rng), natural_M if natural_M.sum() > 0 else np.ones(4)
        given = {"samples": samples if rng.uniform() < 0.5 else None, "tokens_M": tokens_M}
        given["ratios_KM"] = rng.dirichlet(np.ones(4), size=6)
        try:
            settings = config.from_dict({"propose": {"explore": bool(rng.uniform() < 0.03)} | wishes}).propose
            content = propose(
                log_linear.LAW,
                params,
                tasks=FUZZED_TASKS,
                domains=FUZZED,
                natural_M=natural_M,
                settings=settings,
                **given,
            )
        except UserError as e:
            refused[str(e)[:30]] += 1
            continue
        done += 1
        assert reread(content) == content
        found_M = weights(content)
        low_M, high_M = (np.array(list(getattr(content, side).values())) for side in ("lower", "caps"))
        assert abs(found_M.sum() - 1) < 1e-9, (wishes, content)
        assert (found_M >= low_M - 1e-12).all() and (found_M <= high_M + 1e-12).all(), (wishes, content)
        for group in content.groups:
            assert group.low - 1e-9 <= group.weight <= group.high + 1e-9, (wishes, content)
    assert done > 600 and len(refused) > 10, (done, refused)

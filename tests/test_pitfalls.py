"""Faults of other tools that concern several modules (docs/pitfalls.md): 4, 9, 12 to 15, 17 to 20."""

import ast
import collections
import dataclasses
import json
import pathlib
import re
import time

import jax
import numpy as np
import pytest

from olmix_jax import config, laws, propose
from olmix_jax.laws import FittedLaw, log_linear
from olmix_jax.pipeline import runner, stage, stages
from olmix_jax.propose import feasibility
from olmix_jax.propose.constraints import Constraints, Repetition, repetition_caps
from olmix_jax.propose.options import Options
from olmix_jax.propose.swarm_facts import SwarmFacts
from olmix_jax.propose.task_weights import task_weights
from olmix_jax.proxy import data, proxy_swarm, train
from olmix_jax.solver.bounds import box
from olmix_jax.swarm import apportion, table
from olmix_jax.utils.errors import UserError
from tests.toy import ArrayStore

ROOT = pathlib.Path(__file__).parents[1]
SOURCES = sorted(
    p for part in ("olmix_jax", "configs", "benchmarks", "experiments") for p in (ROOT / part).rglob("*.py")
)


def unsafe(tree: ast.AST) -> list[str]:
    """Return the names in a module that could execute code from a data file."""
    modules = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle"}
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [a.name for a in node.names if a.name.split(".")[0] in modules]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in modules:
            names.append(node.module)
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            if not (isinstance(node.value, ast.Constant) and node.value.value is False):
                names.append("allow_pickle")
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("eval", "exec", "yaml.load", "yaml.unsafe_load", "pd.read_pickle", "pandas.read_pickle"):
                names.append(called)
            if called in ("np.load", "numpy.load") and not any(k.arg == "allow_pickle" for k in node.keywords):
                names.append("np.load without allow_pickle=False")
    return names


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "np.load(f, allow_pickle=True)",
        "np.load(f)",
        "np.load(f, allow_pickle=flag)",
        "eval(text)",
        "exec(text)",
        "yaml.load(f)",
    ],
)
def test_unsafe_loading_is_recognised(code):
    assert unsafe(ast.parse(code))
    assert not unsafe(ast.parse("import json; np.load(f, allow_pickle=False); ast.literal_eval(t); evaluate(x)"))


def test_no_source_file_loads_data_as_code():
    """PITFALLS 4: a cache was stored as a pickle, which executes code when it is loaded."""
    assert len(SOURCES) > 30
    unsafe_names = {str(p.relative_to(ROOT)): unsafe(ast.parse(p.read_text())) for p in [*SOURCES, ROOT / "run.py"]}
    assert {path: names for path, names in unsafe_names.items() if names} == {}


@pytest.fixture
def external_swarm(tmp_path):
    """A config, a workdir, and a function write(bpb_KN, **meta) that replaces the tables of a small external swarm.

    It has three domains, 12 runs, and two tasks that follow a law with noise.
    """
    random = np.random.default_rng(0)
    ratios_KM = random.dirichlet(np.ones(3), 12)
    bpb_KN = 0.5 + np.exp(ratios_KM @ random.normal(size=(3, 2))) + random.normal(0, 0.05, (12, 2))
    runs, folder = tuple(f"r{k}" for k in range(12)), tmp_path / "swarm"

    def write(bpb_KN=bpb_KN, **meta):
        natural_M, tokens_M = np.full(3, 1 / 3), np.full(3, 1e6)
        table.write_swarm(folder, runs, runs, ("a", "b", "c"), ("t", "u"), ratios_KM, bpb_KN, natural_M, tokens_M, {})
        path = folder / "meta.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | meta))
        return bpb_KN.copy()

    write()
    names = {"ratios": "ratios.csv", "metrics": "metrics.csv", "meta": "meta.json"}
    external = config.Swarm(**{field: str(folder / name) for field, name in names.items()})
    return config.Config(swarm=external, fit=config.Fit(starts=4, folds=3)), tmp_path / "work", write


def fitted(setting, workdir):
    runner.run(setting, workdir, ("fit",))
    return json.loads((workdir / "fit/fit.json").read_text())


def test_fit_runs_again_when_tasks_or_scores_change(external_swarm):
    """PITFALLS 4: a cache whose key lacked the tasks returned the fit of another swarm."""
    setting, workdir, write = external_swarm
    first = fitted(setting, workdir)
    assert fitted(setting, workdir) == first, "a finished fit is skipped"
    without = dataclasses.replace(setting, fit=dataclasses.replace(setting.fit, drop_metrics=("u",)))
    assert list(first["tasks"]) == ["t", "u"] and list(fitted(without, workdir)["tasks"]) == ["t"]
    write(write() + 1.0)
    assert fitted(setting, workdir)["tasks"]["t"]["loss"] != first["tasks"]["t"]["loss"]


def test_fit_runs_again_when_meta_drops_a_task(external_swarm):
    """PITFALLS 4: the cache key must cover meta.json as well."""
    setting, workdir, write = external_swarm
    assert list(fitted(setting, workdir)["tasks"]) == ["t", "u"]
    write(drop_metrics=["u"])
    assert list(fitted(setting, workdir)["tasks"]) == ["t"]


def test_reported_quality_is_held_out(external_swarm):
    """PITFALLS 13: a run's score must not influence its held-out prediction, but the fitted law uses all runs."""
    setting, workdir, write = external_swarm
    first = fitted(setting, workdir)
    changed_KN = write()
    changed_KN[4] += 0.3
    write(changed_KN)
    second = fitted(setting, workdir)
    for task in ("t", "u"):
        before_K, after_K = np.array(first["predicted_cv"][task]), np.array(second["predicted_cv"][task])
        assert after_K[4] == before_K[4]
        # The changed run affects the predictions in the other two folds, but not for the 4 runs in its own fold.
        assert (after_K == before_K).sum() == 4
        measured_K = np.array(second["measured"][task])
        assert second["tasks"][task]["rmse_cv"] == pytest.approx(np.sqrt(np.mean((after_K - measured_K) ** 2)))
    assert second["tasks"]["t"]["effects"] != first["tasks"]["t"]["effects"]
    for name in ("spearman", "rmse"):
        assert {f"{name}_cv", f"{name}_loo", f"{name}_in_sample"} <= set(second["tasks"]["t"])


@pytest.fixture(scope="module")
def unsampled():
    """Mixtures and scores of a swarm over four domains. No run contains the last one."""
    random = np.random.default_rng(1)
    ratios_KM = np.concatenate([random.dirichlet(np.ones(3), 12), np.zeros((12, 1))], axis=1)
    return ratios_KM, 0.5 + np.exp(ratios_KM @ random.normal(size=(4, 2))) + random.normal(0, 0.01, (12, 2))


def test_coefficient_of_an_unseen_domain_does_not_depend_on_the_seed(unsampled):
    """PITFALLS 14: the coefficient kept its random start value."""
    one, two = (log_linear.fit(*unsampled, starts=4, seed=seed) for seed in (0, 1))
    assert one.unseen == two.unseen == (3,)
    average_N = (unsampled[0] @ one.params.coef_NM.T).mean(axis=0)
    np.testing.assert_allclose(one.params.coef_NM[:, 3], average_N, rtol=1e-9)
    np.testing.assert_allclose(one.params.coef_NM[:, 3], two.params.coef_NM[:, 3], rtol=1e-3)


FAMILIES = [name for name, law in laws.LAWS.items() if law.differentiable]


@pytest.mark.parametrize("family", FAMILIES)
def test_fit_of_a_task_does_not_depend_on_its_column(unsampled, family):
    """PITFALLS 15: start values used the task's index as a domain index."""
    ratios_KM, bpb_KN = unsampled
    law = laws.LAWS[family]
    one, turned = (law.fit(ratios_KM, bpb, starts=4, seed=0) for bpb in (bpb_KN, bpb_KN[:, ::-1]))
    one_KN, turned_KN = (laws.evaluate(law, fit.params, ratios_KM) for fit in (one, turned))
    np.testing.assert_allclose(turned_KN[:, ::-1], one_KN, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_prediction_for_an_unseen_domain_does_not_depend_on_the_seed(unsampled, family):
    """PITFALLS 14, for every law: the domain is reported, and its prediction is finite."""
    law = laws.LAWS[family]
    fits = [law.fit(*unsampled, starts=4, seed=seed) for seed in (0, 1)]
    assert fits[0].unseen == fits[1].unseen == (3,)
    corner_1M = np.array([[0.2, 0.2, 0.2, 0.4]])
    one_1N, other_1N = (laws.evaluate(law, fit.params, corner_1M) for fit in fits)
    assert np.isfinite(one_1N).all()
    np.testing.assert_allclose(one_1N, other_1N, rtol=1e-2)


@pytest.mark.parametrize("family", ["warped_gp", "log_linear"])
def test_fit_of_52_tasks_takes_seconds(family):
    """PITFALLS 16: a task took minutes. Here 52 tasks share one program; the bound allows for a busy CPU."""
    random = np.random.default_rng(0)
    ratios_KM = random.dirichlet(np.full(24, 0.3), 127)
    bpb_KN = 0.5 + np.exp(ratios_KM @ random.normal(size=(24, 52))) + random.normal(0, 0.02, (127, 52))
    begun = time.process_time()
    laws.LAWS[family].fit(ratios_KM, bpb_KN)
    assert time.process_time() - begun < 0.2 * 52


def test_task_weights_sum_to_1_and_unnamed_tasks_get_0():
    """PITFALLS 17: weights defaulted to 1, and their sum rescaled λ."""
    weights_N = task_weights({"u": 30, "w": 10}, ("t", "u", "v", "w"))
    np.testing.assert_allclose(weights_N, [0, 0.75, 0, 0.25])
    np.testing.assert_allclose(task_weights(None, ("t", "u")).sum(), 1)
    with pytest.raises(UserError, match="unknown tasks: dropped"):
        task_weights({"dropped": 1}, ("t", "u"))


class RecordingSwarm(proxy_swarm.ProxySwarm):
    """A toy swarm that counts the tokens of its steps and keeps the last state."""

    def __init__(self, swarm):
        super().__init__(**{f.name: getattr(swarm, f.name) for f in dataclasses.fields(swarm)})
        self.__dict__["tokens"], self.__dict__["state"] = [], []

    def steps(self, mapping):
        run = super().steps(mapping)

        def recorded(states, tokens_KTBL1, n):
            self.tokens.append(tokens_KTBL1[:, :n, :, 1:].size)
            states, loss_KT = run(states, tokens_KTBL1, n)
            self.state[:] = [states]
            return states, loss_KT

        return recorded


def test_tokens_trained_are_steps_times_batch_times_length(make_swarm, toy_tasks, tmp_path):
    """PITFALLS 9: the batch was multiplied by the length twice, so a run had 1.4 steps. The last chunk is partial."""
    swarm = RecordingSwarm(make_swarm(members=2, steps=7, batch=4, length=8))
    done = train.train(swarm, toy_tasks, tmp_path, "toy")
    assert sum(swarm.tokens) == 2 * 7 * 4 * 8 and done.info.tokens_per_member == 7 * 4 * 8
    assert done.loss_KT.shape == (2, 7) and (done.loss_KT > 0).all()
    (states,) = swarm.state
    assert np.asarray(states.step)[:2].tolist() == [7, 7]
    counts = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(states.momentum) if "count" in str(path[-1])]
    assert counts and all((np.asarray(c)[:2] == 7).all() for c in counts)


@pytest.mark.parametrize("sequences", [9, 10, 27])
@pytest.mark.parametrize("repeats", [1, 3])
def test_domain_at_its_cap_is_read_a_whole_number_of_times(sequences, repeats):
    """PITFALLS 12: rounding added a few steps of another epoch. Sizes include one that does not divide the run, 27."""
    length, steps, batch = 8, 30, 4
    stores = {"a": ArrayStore(np.arange(sequences * length + 1)), "b": ArrayStore(np.arange(5000, 9000))}
    tokens_M = np.array([store.sequences(length) * length for store in stores.values()])
    upper_M = repetition_caps(tokens_M, steps * batch * length, repeats)
    counts_M = apportion.snap(np.array([upper_M[0], 1 - upper_M[0]]), steps * batch, upper_M)
    runs = data.Runs(("x",), counts_M[None], np.zeros(1, int), np.zeros(1, int))
    read_S = np.concatenate([c[0].reshape(-1, length + 1) for c in data.chunks(runs, stores, length, batch, 30, steps)])
    seen = collections.Counter(read_S[:, 0].tolist())
    assert sum(seen.values()) == steps * batch
    assert [n for token, n in seen.items() if token < 5000] == [repeats] * sequences
    assert {n for token, n in seen.items() if token >= 5000} == {1}


def proposal(coef_NM, natural_M=(1, 1, 1), tokens_M=None, **options):
    """A proposal over the domains web, code and law, with a uniform natural distribution, for a law with c = 1."""
    fitted = FittedLaw(log_linear.LAW, log_linear.Params(np.zeros(len(coef_NM)), np.array(coef_NM, float)))
    swarm = SwarmFacts(("t", "u")[: len(coef_NM)], ("web", "code", "law"), natural_M, tokens_M)
    return propose.propose(fitted, swarm, Options(**{"explore": False} | options))


def test_advice_for_infeasible_caps_is_exact():
    """PITFALLS 18: infeasible caps gave None or zeros. The advice is the smallest change that makes them feasible."""
    tokens_M, target = np.array([100.0, 300.0, 50.0]), 4000.0

    def check(target_tokens, max_repeats):
        limit = Repetition(tokens_M, target_tokens, max_repeats)
        feasibility.check_feasible(
            Constraints(("web", "code", "law"), box(np.zeros(3), limit.caps()), repetition=limit)
        )

    with pytest.raises(UserError, match="law 0.05, web 0.1, code 0.3") as error:
        proposal([[0, 1, 2]], tokens_M=tokens_M, target_tokens=target)
    repeats = float(re.search(r"propose\.max_repeats to ([\d.]+) or more", str(error.value))[1])
    longest = float(re.search(r"propose\.target_tokens to ([\d.]+) or less", str(error.value))[1])
    check(target, repeats)
    check(longest, 4.0)
    for less in ((target, repeats * 0.999), (longest * 1.001, 4.0)):
        with pytest.raises(UserError, match="no mixture meets them"):
            check(*less)


def test_tasks_predicted_worse_than_natural_are_named():
    """PITFALLS 20: the average improved at the expense of single tasks, without a warning."""
    proposed = proposal([[-2, 0, 2], [0.2, 0, -0.2]])
    assert proposed.objective < proposed.objective_natural
    assert proposed.worse_tasks == ("u",) and "worse than under the natural mixture: u" in " ".join(proposed.warnings)


def reads_of(tree: ast.AST, sections: dict[str, type]) -> set[str]:
    """Return the config fields that a module reads: `….section.field`, or `name.field` where name is a section.

    A name is a section if it is assigned from `….section` or annotated with the section's class.
    """
    names: dict[str, str] = {}
    classes = {kind.__name__: section for section, kind in sections.items()}
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.annotation is not None:
            kind = ast.unparse(node.annotation).split(".")[-1]
            names |= {node.arg: classes[kind]} if kind in classes else {}
        elif isinstance(node, ast.Assign):
            for target, value in _pairs(node):
                if isinstance(value, ast.Attribute) and value.attr in sections:
                    names[target] = value.attr
    read = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            base = node.value
            section = base.attr if isinstance(base, ast.Attribute) else names.get(getattr(base, "id", ""))
            if section in sections:
                read.add(f"{section}.{node.attr}")
    return read


def _pairs(node: ast.Assign) -> list[tuple[str, ast.expr]]:
    """Return the names and values of an assignment, also of `a, b = x, y`."""
    (target,) = node.targets[:1]
    if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
        return [(t.id, v) for t, v in zip(target.elts, node.value.elts) if isinstance(t, ast.Name)]
    return [(target.id, node.value)] if isinstance(target, ast.Name) else []


def test_reads_of_a_setting_are_recognised():
    sections = {"fit": config.Fit, "train": config.Train}
    code = "def f(config, t: config.Train):\n f, x = config.fit, 1\n return f.law, t.lr, config.train.steps, x.starts"
    assert reads_of(ast.parse(code), sections) == {"fit.law", "train.lr", "train.steps"}


# Settings that change how a run is computed or shown, not its result.
NOT_IN_RESULTS = {"olmix_yaml", "track.tensorboard", "track.wandb"} | set(stage.NOT_STAMPED)


def test_every_setting_is_read_and_makes_a_result_stale():
    """PITFALLS 19: a flag was accepted but had no effect."""
    sections = {f.name: f.type for f in dataclasses.fields(config.Config) if dataclasses.is_dataclass(f.type)}
    trees = [ast.parse(path.read_text()) for path in SOURCES if "configs" not in path.parts]
    read = set().union(*(reads_of(tree, sections) for tree in trees))
    fields = config.field_names()
    assert [name for name in fields if "." in name and name not in read] == []
    covered = {setting for each in stages.STAGES for setting in each.settings}
    unstamped = [name for name in fields if not {name, name.split(".")[0]} & covered and name not in NOT_IN_RESULTS]
    assert unstamped == []

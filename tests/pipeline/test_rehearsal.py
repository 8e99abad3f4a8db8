"""rehearsal.py: what later stages refuse is refused before anything is trained."""

import ast
import importlib.util
import json
import pathlib
import sys
import traceback

import pytest

from olmix_jax import config
from olmix_jax.pipeline import rehearsal
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError

DOMAINS, TASKS = ("web", "code", "wiki"), ("qa_a", "qa_b", "math_a", "mmlu_virology", "mmlu_other")
FAMILIES = json.dumps({"qa": ["qa_*"], "rest": ["m*"]})
# Settings that a rehearsal accepts; the target run has a tenth of the unique tokens.
GOOD = {
    "swarm": {"size": 12},
    "train": {"steps": 10, "batch": 4},
    "proxy": {"preset": "tiny"},
    "fit": {"families": FAMILIES, "drop_metrics": ["mmlu_other"]},
    "propose": {"target_tokens": 1e6},
}


def with_settings(**changes) -> config.Config:
    """Return GOOD with changed fields: ``propose_bounds`` sets ``propose.bounds``; mappings become JSON text."""
    content = {section: dict(values) for section, values in GOOD.items()}
    for name, value in changes.items():
        section, _, field = name.partition("_")
        value = json.dumps(value) if isinstance(value, dict) else value
        content.setdefault(section, {})[field] = value
    return config.from_dict(content)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A workdir with the results of ``prepare``, as far as they name domains and tasks."""
    workdir = tmp_path_factory.mktemp("prepared")
    rows = [{"name": name, "tokens": tokens, "bytes": 9} for name, tokens in zip(DOMAINS, (5e6, 3e6, 2e6))]
    files.write_json(workdir / "domains.json", {"domains": [row | {"tokens": int(row["tokens"])} for row in rows]})
    files.write_json(workdir / "tasks/tasks.json", {"tasks": [{"name": name, "examples": 9} for name in TASKS]})
    (workdir / "swarm").mkdir()
    return workdir


def rehearse(settings: config.Config, workdir: pathlib.Path) -> None:
    rehearsal.check_settings(settings)
    rehearsal.check_prepared(settings, workdir)


def tables(folder: pathlib.Path, domains: str, tasks: str) -> dict[str, str]:
    """Write a held-out swarm; return the settings that name it."""
    (folder / "r.csv").write_text(f"run,{domains}\na,.5,.3,.2\nb,.2,.3,.5\n")
    (folder / "m.csv").write_text(f"run,{tasks}\na,1.1,1.2,1.3,1.25\nb,1.05,1.1,1.2,1.15\n")
    return {"swarm_test_ratios": str(folder / "r.csv"), "swarm_test_metrics": str(folder / "m.csv")}


# Settings that a later stage refuses, and part of its error.
REFUSED = [
    ({"propose_target_tokens": 1e8}, "the caps sum to 0.4, less than 1"),
    ({"propose_bounds": {"web": 0.1, "code": 0.1, "wiki": [0, 0.2]}}, "no number of repeats helps"),
    ({"propose_bounds": {"web": [0, 0.1], "*": [0, 1]}, "propose_target_tokens": 1e8}, "caps sum to 0.3"),
    ({"propose_target_tokens": None, "propose_bounds": {"web": 0.1, "code": 0.1, "wiki": 0.1}}, "sum"),
    ({"propose_bounds": {"books": [0, 1]}}, "no domain is called or matches books"),
    ({"propose_bounds": {"web": "a"}}, "web must be"),
    ({"propose_bounds": {"web": [0.5, 0.2]}}, "0 ≤ low ≤ high ≤ 1"),
    ({"propose_bounds": {"w*": [0, 1], "*b": [0, 1], "[wc]*e*": [0, 1]}}, "overlap"),
    ({"propose_anchor": {"books": 1}}, "no domain is called books"),
    ({"propose_anchor": {"web": "x"}}, "the weight of web must be a number"),
    ({"propose_anchor": {"web": 0.5}}, "the weights must sum to 1, not 0.5"),
    ({"propose_anchor": {"web": 1}, "propose_bounds": {"web": [0, 0.5]}}, "without weight in the anchor"),
    ({"propose_anchor": "no/such.json"}, "no such file"),
    ({"propose_keep_ratios": {"web": {"code": 1}}}, "has the name of a domain"),
    ({"propose_keep_ratios": {"b": 1}}, "b must be"),
    ({"propose_keep_ratios": {"b": {"books": 1}}}, "which is not a domain"),
    ({"propose_keep_ratios": {"b": {"web": 1}, "c": {"web": 1}}}, "is in both"),
    ({"propose_keep_ratios": {"b": {"web": 0}}}, "must be a positive number"),
    ({"propose_keep_ratios": {"b": {}}}, "contains no domain"),
    ({"propose_keep_ratios": {"b": {"web": 1, "code": 1}}, "propose_bounds": {"w*": [0, 0.9]}}, "only a part"),
    ({"propose_keep_ratios": {"b": {"web": 1, "code": 1}}, "fit_law": "search"}, "`fit.law=search`"),
    ({"propose_task_weights": {"books": 1}}, "unknown tasks: books"),
    ({"propose_task_weights": {"qa_a": -1}}, "must be a number of 0 or more"),
    ({"propose_task_weights": {"qa_a": 0}}, "all weights are 0"),
    ({"propose_task_weights": {"qa_a": 1, "qa": 1}}, "weighted by name and by its family"),
    ({"propose_guard": 0.1, "fit_law": "search"}, "need a differentiable law"),
    ({"propose_tail": 0.1, "fit_resamples": 0}, "propose.tail needs samples"),
    ({"propose_choose_kl_weight": True, "fit_law": "search"}, "propose.choose_kl_weight needs a differentiable law"),
    ({"propose_choose_kl_weight": True, "swarm_size": 6, "fit_law": "log_linear"}, "too few to fit laws to halves"),
    ({"propose_guard": 0.1, "propose_guard_by": "family", "fit_families": {"qa": ["qa_*"]}}, "without a family"),
    ({"fit_granularity": "family", "fit_families": {"qa": ["q*"], "b": ["*"]}}, "is in families qa and b"),
    ({"fit_granularity": "family", "fit_families": {"all": ["*"], "none": ["x"]}}, "family without tasks: none"),
    ({"fit_granularity": "family", "fit_families": {"all": "*"}}, "all must be a list of task names"),
    ({"fit_families": "{"}, "not valid JSON"),
    ({"fit_drop_metrics": []}, "both mmlu_other and its subjects"),
    ({"fit_drop_metrics": ["books"]}, "no column books"),
    ({"fit_keep_metrics": ["books"]}, "no column books"),
    ({"fit_drop_metrics": list(TASKS)}, "every task is dropped"),
    ({"fit_folds": 13}, "12 different mixtures cannot be split into 13 folds"),
    ({"fit_train_split": 13}, "asks for 13 runs, and the swarm has 12"),
    ({"fit_train_split": 4, "fit_law": "log_linear", "fit_folds": 2}, "4 runs for 3 domains, but a fit"),
    ({"swarm_size": 4}, "`swarm.size` is 4, but a law over 3 domains needs at least 5"),
    ({"swarm_min_runs": 13}, "`swarm.min_runs` is 13, more than the 12 runs"),
    ({"swarm_min_weight": 0.01}, "less than one of 40 sequences"),
    ({"swarm_test_ratios": "no/r.csv", "swarm_test_metrics": "no/m.csv"}, "no/r.csv"),
    ({"propose_target_tokens": 4000, "train_steps": 10}, "a proxy trains on 5,120 tokens, more than .* 4,000"),
    ({"propose_bounds": {"web": 0.333, "code": 0.333, "wiki": 0.334}, "validate_steps": 10}, "raise validate.steps"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_what_a_later_stage_refuses_is_refused_before_training(changes, message, prepared):
    with pytest.raises(UserError, match=message):
        rehearse(with_settings(**changes), prepared)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"propose_bounds": {"w*": [0, 0.9], "web": [0.1, None]}, "propose_guard": 0.1},
        {"propose_keep_ratios": {"b": {"web": 1, "code": 2}}, "propose_task_weights": {"qa": 1, "math_a": 2}},
        {"propose_anchor": {"web": 0.5, "code": 0.5}, "propose_choose_kl_weight": True},
        {"fit_granularity": "family", "propose_task_weights": {"qa": 1}},
        {"fit_granularity": "aggregated", "fit_law": "search"},
        {"swarm_size": 5, "fit_folds": 5, "propose_target_tokens": None},
        {"propose_tail": 0.1, "propose_guard": 0.1, "propose_guard_by": "family"},
        {"propose_worst": True, "fit_train_split": 0.8},
        {"train_match_repeats": False, "propose_target_tokens": 4000, "train_steps": 10},
    ],
)
def test_what_later_stages_accept_is_accepted(changes, prepared):
    rehearse(with_settings(**changes), prepared)


def test_held_out_swarm_must_have_the_domains_and_tasks(prepared, tmp_path):
    rehearse(with_settings(**tables(tmp_path, "web,code,wiki", "qa_a,qa_b,math_a,mmlu_virology")), prepared)
    with pytest.raises(UserError, match="has books, wiki"):
        rehearse(with_settings(**tables(tmp_path, "web,code,books", "qa_a,qa_b,math_a,mmlu_virology")), prepared)
    with pytest.raises(UserError, match="math_a"):
        rehearse(with_settings(**tables(tmp_path, "web,code,wiki", "qa_a,qa_b,x,mmlu_virology")), prepared)


def test_names_are_checked_before_text_is_read(tmp_path):
    for name in DOMAINS:
        (tmp_path / f"{name}.txt").write_text("text")
    rehearsal.check_names(with_settings(corpus_path=str(tmp_path), propose_bounds={"w*": [0, 0.9]}))
    for changes, message in (
        ({"propose_bounds": {"books": 1}}, "no domain is called or matches books"),
        ({"propose_anchor": {"books": 1}}, "no domain is called books"),
        ({"propose_keep_ratios": {"b": {"books": 1}}}, "contains books, which is not a domain"),
        ({"swarm_size": 4}, "a law over 3 domains needs at least 5"),
    ):
        with pytest.raises(UserError, match=message):
            rehearsal.check_names(with_settings(corpus_path=str(tmp_path), **changes))


def test_search_needs_a_run_within_the_caps(prepared):
    path = prepared / "swarm/ratios.csv"
    path.write_text("run,web,code,wiki\n" + "".join(f"r{k},{0.9 - k / 100},{0.1 + k / 100},0\n" for k in range(12)))
    try:
        with pytest.raises(UserError, match="none of the swarm's 12 runs is within the caps"):
            rehearse(with_settings(propose_method="search", propose_bounds={"wiki": [0.1, 1]}), prepared)
    finally:
        path.unlink()


def test_nothing_is_checked_before_domains_are_known_or_for_an_external_swarm(tmp_path, prepared):
    rehearse(with_settings(propose_bounds={"books": [0, 1]}), tmp_path)
    rehearse(with_settings(propose_bounds={"books": [0, 1]}, swarm_ratios="r.csv", swarm_metrics="m.csv"), prepared)


# Functions that raise errors, and are tested above or cannot be rehearsed: they judge scores, a fitted law or the
# results of an interrupted run, or they check arguments that the stages always give correctly.
NEEDS_RESULTS = {
    "propose/baselines.py": {"_best", "runs_within"},
    "propose/make_proposal.py": {"solve"},
    "propose/optimum.py": {"_guarded_mixture"},
    "propose/options.py": {"__post_init__"},
    "propose/swarm_facts.py": {"from_table"},
    "propose/variants.py": {"solve_variants"},
    "swarm/table.py": {"_common", "write_swarm", "read", "ordered"},
    "swarm/task_groups.py": {"grouped"},
}
MODULES = (
    "propose/baselines.py propose/blocks.py propose/constraints.py propose/exploration.py propose/feasibility.py "
    "propose/formulation.py propose/kl_choice.py propose/make_proposal.py propose/optimum.py propose/options.py "
    "propose/swarm_facts.py propose/task_weights.py propose/variants.py laws/quality.py laws/scores.py swarm/table.py "
    "swarm/task_groups.py"
).split()


def test_every_check_of_settings_is_rehearsed(prepared, tmp_path):
    """Every function that raises a UserError is reached by a case above, or is listed as one that needs results."""
    root = pathlib.Path(rehearsal.__file__).parents[1]
    reached: dict[str, set[str]] = {}
    cases = [changes for changes, _ in REFUSED]
    cases.append(tables(tmp_path, "web,code,books", "qa_a,qa_b,math_a,mmlu_virology"))
    for changes in cases:
        try:
            rehearse(with_settings(**changes), prepared)
        except UserError as e:
            for error in (e, e.__cause__, e.__context__):
                for frame in traceback.extract_tb(error.__traceback__) if error is not None else ():
                    path = pathlib.Path(frame.filename)
                    if path.is_relative_to(root):
                        reached.setdefault(str(path.relative_to(root)), set()).add(frame.name)
    missed = {}
    for module in MODULES:
        raising = set(_raising((root / module).read_text()))
        left = raising - reached.get(module, set()) - NEEDS_RESULTS.get(module, set())
        if left:
            missed[module] = left
    assert not missed


def _raising(source: str) -> list[str]:
    """Return the functions that raise a UserError."""
    names = []
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef):
            raises = [node.exc for node in ast.walk(function) if isinstance(node, ast.Raise)]
            calls = [exc.func for exc in raises if isinstance(exc, ast.Call)]
            if any(isinstance(call, ast.Name) and call.id == "UserError" for call in calls):
                names.append(function.name)
    return names


@pytest.mark.skipif(importlib.util.find_spec("lightgbm") is not None, reason="lightgbm is installed")
def test_missing_library_is_an_error_before_training(prepared):
    with pytest.raises(UserError, match="requirements-lightgbm.txt"):
        rehearse(with_settings(fit_law="lightgbm"), prepared)


@pytest.mark.parametrize("track, library", [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_missing_tracker_is_an_error_before_text_is_read(track, library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UserError, match=f"`track.{track}` needs {library}: pip install -r requirements-track.txt"):
        rehearsal.check_settings(with_settings(**{f"track_{track}": True if track == "tensorboard" else "mine"}))


def test_contradictions_are_warned_of_once(prepared, monkeypatch):
    warned: list[str] = []
    monkeypatch.setattr(rehearsal, "_WARNED", set())
    monkeypatch.setattr(rehearsal.log, "warning", lambda text, *args: warned.append(text % args))
    for _ in range(2):
        rehearse(with_settings(train_warmup=0.6, tasks_length=256), prepared)
    assert len(warned) == 2 and "60% of the steps" in warned[0] and "tasks are cut to 256 tokens" in warned[1]

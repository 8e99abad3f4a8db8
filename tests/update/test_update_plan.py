"""The record of an update's decision, and the checks of its file."""

import dataclasses

import pytest

from olmix_jax import config
from olmix_jax.update import update_plan
from olmix_jax.update.strategies import Strategy
from olmix_jax.update.update_plan import Candidate, Interval, OldRuns, PastUpdate, PredictedGain, UpdatePlan
from olmix_jax.utils import files, rng
from olmix_jax.utils.errors import UserError

FIRST = PastUpdate(
    workdir="runs/first",
    strategy="first swarm",
    updates=(),
    validated=True,
    natural=1.0,
    proposed=0.9,
    weights={"web": 0.6, "code": 0.4},
    proxies=20,
    proxies_full=20,
)
PLAN = UpdatePlan(
    strategy=Strategy.AUTO,
    parent="runs/first",
    updates=({"rename": {"code": "source"}}, {"add": ["math", "wiki"]}),
    old=("web", "code"),
    new=("wiki", "web", "source", "math"),
    unaffected=("web", "source"),
    affected=("wiki", "math"),
    lost=(),
    kept={"kept": {"web": 0.6, "source": 0.4}},
    recomputed=("wiki", "math"),
    proxies=8,
    proxies_full=16,
    predicted_loss=Interval(0.01, 0.0, 0.02),
    predicted_gain=PredictedGain(0.05, 0.01, 0.09),
    candidates=(Candidate(("wiki", "math"), 8, Interval(0.01, 0.0, 0.02)),),
    old_runs=(OldRuns(1, 20),),
    why="because",
    history=(FIRST,),
)


def write(folder, plan=PLAN, **changes):
    """Write a plan with some fields replaced; a value of ``...`` removes the field."""
    path = folder / "update/plan.json"
    plan.write(path)
    content = files.read_json(path) | changes
    files.write_json(path, {name: value for name, value in content.items() if value is not ...})
    return path


def past(**changes):
    return [dataclasses.asdict(dataclasses.replace(FIRST, **changes))]


def test_written_plan_is_read_back(tmp_path):
    assert UpdatePlan.read(write(tmp_path)) == PLAN


def test_loss_of_a_fit_that_knows_the_form_is_optional(tmp_path):
    candidate = dataclasses.replace(PLAN.candidates[0], loss_if_form_known=0.004)
    plan = dataclasses.replace(PLAN, candidates=(candidate,), predicted_loss_if_form_known=0.005)
    assert UpdatePlan.read(write(tmp_path, plan)) == plan
    assert PLAN.predicted_loss_if_form_known is PLAN.candidates[0].loss_if_form_known is None


def test_change_and_blocks_follow_the_order_of_new():
    assert PLAN.change.new == PLAN.new and PLAN.change.origin == {"web": "web", "source": "code"}
    assert PLAN.kept_blocks.names == ("kept", "wiki", "math")
    assert PLAN.kept_blocks.ratios_DM[0].tolist() == [0.0, 0.6, 0.4, 0.0]


def test_digest_ignores_the_history_only():
    validated = dataclasses.replace(FIRST, proposed=0.8)
    assert dataclasses.replace(PLAN, history=(validated,)).digest == PLAN.digest
    assert dataclasses.replace(PLAN, proxies=16).digest != PLAN.digest


def test_every_update_of_a_chain_has_another_seed():
    second = dataclasses.replace(PLAN, history=(FIRST, FIRST))
    seeds = {7, PLAN.derive_seed(7), second.derive_seed(7), PLAN.derive_seed(8)}
    assert len(seeds) == 4
    assert PLAN.derive_seed(7) == rng.derive(7, "update 1")


def test_plan_without_proxies_needs_no_runs():
    assert dataclasses.replace(PLAN, proxies=0).needs_no_runs and not PLAN.needs_no_runs


def test_first_run_has_no_plan(tmp_path):
    assert update_plan.read_if_any(tmp_path) is None
    write(tmp_path)
    assert update_plan.read_if_any(tmp_path) == PLAN


def test_plan_of_an_earlier_config_is_ignored_by_a_first_run(tmp_path):
    write(tmp_path)
    first, update = config.default(), config.default()
    update.update.parent = "runs/first"
    assert update_plan.read_for(config.from_dict(first), tmp_path) is None
    assert update_plan.read_for(config.from_dict(update), tmp_path) == PLAN


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"why": None}, "why must be text, not null"),
        ({"parent": ...}, "parent is missing"),
        ({"history": ...}, "history is missing"),
        ({"proxies": "8"}, "proxies must be a whole number, not text"),
        ({"strategy": "half"}, "strategy must be one of auto, full, full_reuse"),
        ({"predicted_loss": {"mean": 1.0, "low": 0.0}}, r"predicted_loss\.high is missing"),
        ({"kept": {"kept": {"web": 0.0}}}, r"kept\.kept\.web must be a positive number, not 0\.0"),
        ({"kept": {"kept": {"nobody": 1.0}}}, r"kept\.kept has the domain 'nobody', which `new` does not have"),
        ({"recomputed": ["nobody"]}, "recomputed has the domain 'nobody', which `new` does not have"),
        ({"candidates": [{"recomputed": ["web"], "proxies": 8}]}, r"candidates\[0\]\.loss is missing"),
        ({"old_runs": [{"age": 1}]}, r"old_runs\[0\]\.runs is missing"),
        ({"updates": None}, "updates must be a list, not null"),
        ({"updates": [{"melt": ["web"]}]}, r"updates\[0\]: must be .*, where kind is one of add, remove"),
        ({"updates": [{"remove": ["nobody"]}]}, "update `remove nobody`: there is no domain nobody"),
        ({"updates": [{"remove": ["web"]}]}, "the update does not lead to the new domains"),
        ({"history": []}, "history must have at least one entry, the parent"),
        ({"history": past(updates=(1,))}, r"updates\[0\] must be an object"),
        ({"history": past(updates=({"melt": []},))}, r"updates\[0\]: must be .*, where kind is one of add"),
        ({"history": past(weights={"web": 1.0})}, r"history\[0\]\.weights has no number for 'code'"),
    ],
)
def test_damaged_plan_is_an_error_that_names_the_field(tmp_path, changes, message):
    path = write(tmp_path, **changes)
    with pytest.raises(UserError, match=message) as error:
        UpdatePlan.read(path)
    assert str(error.value).startswith(f"{path}: ") and "--stages=update" in str(error.value)

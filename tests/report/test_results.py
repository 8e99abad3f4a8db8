"""Reading a workdir: all parts, other tables than the default, stale and damaged files."""

import dataclasses
import json

import numpy as np
import pytest

from olmix_jax.report.results import read
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError
from tests.report import samples
from tests.report.samples import DIVERGED


def write_parts(results, folder, *parts):
    """Write only some parts of the results."""
    rest = {f.name: None for f in dataclasses.fields(results) if f.name not in (*parts, "workdir")}
    return samples.write(dataclasses.replace(results, **rest), folder)


def edit(file, **changes):
    files.write_json(file, files.read_json(file) | changes)


def test_all_parts_are_read(results, workdir):
    read_back = read(workdir)
    for part in ("config", "domains", "training", "fit", "proposal", "validation"):
        assert getattr(read_back, part) == getattr(results, part)
    assert read_back.table.runs == results.table.runs and read_back.table.diverged == (DIVERGED,)
    assert read_back.curves.runs == results.curves.runs and read_back.update is None
    np.testing.assert_array_equal(read_back.curves.loss_KT, results.curves.loss_KT)


def test_external_swarm_is_read_from_the_configured_paths(small, tmp_path):
    elsewhere = write_parts(small, tmp_path / "swarm files", "table")
    folder = write_parts(small, tmp_path / "work", "fit")
    paths = {"ratios": "ratios.csv", "metrics": "metrics.csv", "meta": "meta.json"}
    swarm = {field: str(elsewhere / "swarm" / file) for field, file in paths.items()}
    files.write_json(folder / "config.json", {"swarm": swarm, "fit": {"drop_metrics": [samples.HOSTILE_TASK]}})
    read_back = read(folder)
    assert len(read_back.table.runs) == 8 and read_back.table.tasks == ("minerva_math_number_1::olmes",)
    assert read_back.natural == pytest.approx(small.proposal.natural)
    # The meta file may also be given as text, and tasks may be averaged before the fit.
    swarm["meta"] = (elsewhere / "swarm/meta.json").read_text()
    files.write_json(folder / "config.json", {"swarm": swarm, "fit": {"granularity": "aggregated"}})
    assert read(folder).table.tasks == ("average",)


def test_train_split_limits_the_table(small, tmp_path):
    folder = write_parts(small, tmp_path, "table")
    files.write_json(folder / "config.json", {"fit": {"train_split": 0.5}})
    assert len(read(folder).table.runs) == 4


def test_update_table_has_the_order_of_its_domains(small, tmp_path):
    folder = write_parts(small, tmp_path, "table")
    reversed_names = tuple(reversed(small.domains.names))
    tokens = tuple(reversed(small.domains.tokens))
    dataclasses.replace(small.domains, names=reversed_names, tokens=tokens).write(folder / "domains.json")
    assert read(folder).table.domains == small.domains.names
    files.write_json(folder / "config.json", {"update": {"parent": "parent"}})
    assert read(folder).table.domains == reversed_names


def test_validation_of_another_proposal_is_ignored(small, tmp_path, caplog):
    folder = samples.write(small, tmp_path)
    edit(folder / "validate/validation.json", proposal=dict.fromkeys(small.proposal.weights, 0.0))
    with caplog.at_level("WARNING", logger="olmix_jax"):
        read_back = read(folder)
    assert read_back.validation is None and read_back.validation_curves is None
    assert "ignoring validate/validation.json, run on another proposal" in caplog.text
    assert f"delete {folder / 'validate'}, then run --stages=validate" in caplog.text


def test_proposal_from_another_fit_is_ignored(small, tmp_path, caplog):
    folder = samples.write(small, tmp_path)
    edit(folder / "propose/proposal.json", fit="another digest")
    with caplog.at_level("WARNING", logger="olmix_jax"):
        read_back = read(folder)
    assert read_back.proposal is None and read_back.validation is None
    assert "ignoring propose/proposal.json, made from another fit" in caplog.text


def test_empty_workdir_is_an_error(tmp_path):
    with pytest.raises(UserError, match="has no results to report; run the earlier stages first"):
        read(tmp_path)


def test_truncated_curves_are_left_out_with_a_warning(small, tmp_path, caplog):
    folder = write_parts(small, tmp_path, "fit", "curves")
    path = folder / "swarm/curves.npz"
    path.write_bytes(path.read_bytes()[:500])
    assert read(folder).curves is None and read(folder).fit is not None
    assert "training curves are left out" in caplog.text and "curves.npz is damaged" in caplog.text


def test_curves_of_another_shape_are_left_out(small, tmp_path, caplog):
    curves = dataclasses.replace(small.curves, runs=small.curves.runs[:-1])
    folder = write_parts(dataclasses.replace(small, curves=curves), tmp_path, "fit", "curves")
    assert read(folder).curves is None
    assert "loss_KT must have shape (runs, steps), not (9, 3)" in caplog.text


def test_pickle_is_not_loaded(small, tmp_path, caplog):
    folder = write_parts(small, tmp_path, "fit")
    arrays = {"steps_T": np.arange(2), "loss_KT": np.ones((1, 2)), "tokens_per_step": 1}
    (folder / "swarm").mkdir()
    np.savez(folder / "swarm/curves.npz", runs=np.array(["a"], object), **arrays)
    assert read(folder).curves is None and "curves.npz is damaged" in caplog.text


@pytest.mark.parametrize(
    ("file", "part", "field"),
    [("fit/fit.json", "fit", "law"), ("propose/proposal.json", "proposal", "predicted_natural")],
)
def test_missing_field_is_named(small, tmp_path, file, part, field):
    folder = write_parts(small, tmp_path, part)
    content = files.read_json(folder / file)
    del content[field]
    (folder / file).write_text(json.dumps(content))
    stage = file.split("/")[0]
    with pytest.raises(UserError, match=rf"json: {field} is missing; .*rerun --stages={stage}"):
        read(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights_low": [1]}, "weights_low must be an object"),
        ({"predicted_high": {"a": "x"}}, r"predicted_high\.a must be a finite number"),
        ({"worst": 1}, "worst must be true or false"),
        ({"status": "converged"}, "status must be one of optimal"),
        ({"path": {"kl_weight": 3}}, r"path\.kl_weight must be a list"),
        ({"handover": {"m": {}}}, r"handover\.m\.file is missing"),
        ({"guard": {"by": "task", "slack": None}}, r"guard\.slack must be a finite number"),
        ({"groups": [{"name": 1}]}, r"groups\[0\]\.name must be text"),
    ],
)
def test_malformed_proposal_names_its_field(small, tmp_path, change, message):
    folder = write_parts(small, tmp_path, "proposal")
    edit(folder / "propose/proposal.json", **change)
    with pytest.raises(UserError, match=rf"proposal\.json: {message}"):
        read(folder)


def test_incomplete_paths_and_fronts_are_errors(small, tmp_path):
    folder = write_parts(small, tmp_path, "proposal")
    proposal = samples.explored(small.proposal)
    pareto = dataclasses.replace(proposal.pareto, natural={"b": 1.0, "c": 1.0})
    dataclasses.replace(proposal, pareto=pareto).write(folder / "propose/proposal.json")
    with pytest.raises(UserError, match=r"proposal\.json: pareto\.natural lacks a value for 'a_<i>family</i>'"):
        read(folder)
    path = dataclasses.replace(proposal.path, weights=(((0.5, 0.5),) * 2,) * 3)
    dataclasses.replace(proposal, path=path).write(folder / "propose/proposal.json")
    with pytest.raises(UserError, match=r"path\.weights must have 3 weights in each mixture, one per domain"):
        read(folder)


def test_without_a_fit_tasks_come_from_the_table(small):
    swarm_only = dataclasses.replace(small, fit=None, proposal=None, domains=None)
    assert swarm_only.tasks == small.table.tasks
    assert swarm_only.natural == pytest.approx(small.proposal.natural)
    assert swarm_only.unique_tokens == pytest.approx(small.unique_tokens)
    nothing = dataclasses.replace(swarm_only, table=None)
    assert (nothing.tasks, nothing.natural, nothing.unique_tokens) == ((), None, {})


def test_comparison_needs_natural_and_proposed(small):
    assert small.compared is small.validation
    mixtures = {k: v for k, v in small.validation.mixtures.items() if k != "natural"}
    validation = dataclasses.replace(small.validation, mixtures=mixtures)
    assert dataclasses.replace(small, validation=validation).compared is None

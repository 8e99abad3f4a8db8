"""olmix_yaml.py: published configs of `olmix fit` are translated to settings."""

import fnmatch
import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from olmix_jax import config as configs
from olmix_jax.config import json_fields
from olmix_jax.config import workdir as workdirs
from olmix_jax.propose.task_weights import task_weights
from olmix_jax.swarm.task_groups import FAMILIES
from olmix_jax.utils.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]


def task_weights_of(config):
    return json_fields.read_mapping(config.propose.task_weights, "propose.task_weights")


def test_every_field_is_translated(translate, tmp_path):
    got = translate()
    assert got.swarm.ratios == str(tmp_path / "ratios.csv") and got.swarm.metrics == str(tmp_path / "metrics.csv")
    assert json.loads(got.swarm.meta) == {
        "source": f"{tmp_path / 'fit.yaml'}: priors",
        "relative_sizes": {"web": 0.75, "dclm:code": 0.25},
        "token_counts": {"web": 67760078203, "dclm:code": 1e9},
        "drop_metrics": ["old"],
    }
    assert got.seed == 3 and got.olmix_yaml == ""
    assert (got.fit.law, got.fit.granularity, got.fit.train_split) == ("log_linear", "family", 1.0)
    assert json.loads(got.fit.families) == {"math": ["math:a", "math:b"], "qa": ["qa::olmes"]}
    assert got.fit.keep_metrics == ("math:a", "math:b", "qa::olmes") and got.fit.drop_metrics == ()
    assert (got.propose.kl_weight, got.propose.max_repeats, got.propose.target_tokens) == (0.05, 4.5, 1e9)
    assert json.loads(got.propose.task_weights) == {"math": 2 / 3, "qa": 1 / 3}
    # The resolved config can be read back without the YAML file.
    (tmp_path / "fit.yaml").unlink()
    assert configs.from_dict(json.loads(json.dumps({"swarm": {"meta": got.swarm.meta, "ratios": "r", "metrics": "m"}})))


def test_translated_config_reads_the_table_of_the_file(translate, tmp_path):
    table = workdirs.read_table(translate(), tmp_path)
    assert table.tasks == ("math", "qa") and table.sizes_N.tolist() == [2, 1] and table.domains == ("web", "dclm:code")
    np.testing.assert_allclose(table.natural_M, [0.75, 0.25])
    np.testing.assert_array_equal(table.tokens_M, [67760078203, 1e9])
    per_task = workdirs.read_table(translate({"regression.aggregate_task_families": False}), tmp_path)
    assert per_task.tasks == ("math:a", "math:b", "qa::olmes")
    everything = {"eval": None, "regression.aggregate_task_families": False, "regression.train_split": [7]}
    subsampled = workdirs.read_table(translate(everything), tmp_path)
    assert subsampled.tasks == ("math:a", "math:b", "qa::olmes", "other") and len(subsampled.runs) == 7


def test_families_choose_the_columns_when_tasks_are_fitted(translate, tmp_path):
    """Columns outside all families are not read. Without families, all columns that are not dropped are read."""
    got = translate({"regression.aggregate_task_families": False, "filtering.obj_weights": {"math:b": 1, "old": 2}})
    assert (got.fit.granularity, got.fit.families) == ("task", "")
    assert got.fit.keep_metrics == ("math:a", "math:b", "qa::olmes")
    assert workdirs.read_table(got, tmp_path).tasks == ("math:a", "math:b", "qa::olmes")
    assert json.loads(got.propose.task_weights) == {"math:b": 1}
    unweighted = translate({"regression.aggregate_task_families": False, "filtering.obj_weights": {}})
    assert unweighted.propose.task_weights == ""


def test_families_have_equal_weights_unless_the_file_gives_weights(translate, tmp_path, logged):
    """`olmix fit` gives families equal weights. The default of this package would be their numbers of tasks, 2 to 1."""
    got = translate({"filtering.obj_weights": None})
    table = workdirs.read_table(got, tmp_path)
    weights_N = task_weights(
        json_fields.read_mapping(got.propose.task_weights, "propose.task_weights"), table.tasks, table.sizes_N
    )
    assert table.sizes_N.tolist() == [2, 1] and weights_N.tolist() == [0.5, 0.5]
    assert any("families have equal weights" in line for line in logged)
    weighted = task_weights(
        json_fields.read_mapping(translate().propose.task_weights, "propose.task_weights"), table.tasks, table.sizes_N
    )
    np.testing.assert_allclose(weighted, [2 / 3, 1 / 3])
    # A file without families gets the families of the paper.
    paper = translate({"eval": None, "filtering.obj_weights": None})
    assert json.loads(paper.propose.task_weights) == {"math": 1, "code": 1, "qa": 1}
    assert list(json.loads(paper.fit.families)) == ["math", "code", "qa"] and paper.fit.keep_metrics == ()


def test_granularity_and_families_can_be_set_by_flags(translate, tmp_path):
    flags = {"fit": {"granularity": "task", "families": ""}}
    per_task = translate({"filtering.obj_weights": None}, given={"fit.granularity"}, config=flags)
    assert (per_task.fit.granularity, per_task.fit.families, per_task.propose.task_weights) == ("task", "", "")
    flags = {"fit": {"granularity": "family", "families": ""}}
    off = {"filtering.obj_weights": None, "regression.aggregate_task_families": False}
    by_family = translate(off, given={"fit.granularity"}, config=flags)
    assert workdirs.read_table(by_family, tmp_path).tasks == ("math", "qa")
    flags = {"fit": {"families": json.dumps({"a": ["math:a"], "b": ["math:b", "qa*"]})}}
    by_flag = translate({"filtering.obj_weights": None}, given={"fit.families"}, config=flags)
    assert workdirs.read_table(by_flag, tmp_path).tasks == ("a", "b")
    assert json.loads(by_flag.propose.task_weights) == {"a": 1, "b": 1}


def test_dropped_columns_are_removed_from_their_families(translate, tmp_path, logged):
    """A family without columns is removed, with its weight."""
    got = translate({"filtering.drop_metrics": ["qa::olmes", "old", "math:b", "ghost"]})
    assert json.loads(got.fit.families) == {"math": ["math:a"]} and got.fit.keep_metrics == ("math:a",)
    assert json.loads(got.propose.task_weights) == {"math": 2 / 3}
    assert any("`filtering.drop_metrics` drops all tasks of qa" in line for line in logged)
    assert any("`filtering.obj_weights`: ignored, because of `drop_metrics`: qa" in line for line in logged)
    assert workdirs.read_table(got, tmp_path).tasks == ("math",)
    # An unknown column is not an error, because swarms share published lists.
    assert any("no such columns to drop: ghost" in line for line in logged)
    # As in `olmix fit`, a dropped name can be a family.
    assert list(json.loads(translate({"filtering.drop_metrics": ["qa"]}).fit.families)) == ["math"]
    both = {"regression.aggregate_task_families": False, "filtering.drop_metrics": ["math:a", "math:b"]}
    assert translate(both).fit.keep_metrics == ("qa::olmes", "old")


@pytest.mark.parametrize("as_file", [True, False])
def test_columns_are_dropped_when_a_flag_gives_the_meta(translate, tmp_path, as_file):
    meta = {"relative_sizes": {"web": 0.5, "dclm:code": 0.5}, "drop_metrics": ["other"]}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    flags = {"swarm": {"meta": str(tmp_path / "meta.json") if as_file else json.dumps(meta)}}
    changes = {"eval": None, "regression": None, "filtering.obj_weights": None}
    table = workdirs.read_table(translate(changes, given={"swarm.meta"}, config=flags), tmp_path)
    assert table.tasks == ("math:a", "math:b", "qa::olmes") and table.natural_M.tolist() == [0.5, 0.5]
    none = translate(changes, given={"swarm.meta"}, config={"swarm": {"meta": ""}})
    assert workdirs.read_table(none, tmp_path).tasks == ("math:a", "math:b", "qa::olmes", "other")
    (tmp_path / "meta.json").write_text(json.dumps(meta | {"drop_metrics": "other"}))
    flags["swarm"]["meta"] = str(tmp_path / "meta.json")
    with pytest.raises(UserError, match="meta.json: `drop_metrics` must be a list"):
        workdirs.read_table(translate(changes, given={"swarm.meta"}, config=flags), tmp_path)


def test_published_families_fit_the_published_swarm(translate, published, tmp_path):
    """The config of RQ5: two columns in its drop list are not in the table, and no family becomes empty."""
    folder = published / "olmix_dclm"
    meta = json.loads((folder / "meta.json").read_text())
    header = (folder / "metrics.csv").read_text().splitlines()[0].split(",")[4:]
    patterns = {family: re.compile("|".join(map(fnmatch.translate, p))) for family, p in FAMILIES.items()}
    tasks = {family: [name for name in header if pattern.match(name)] for family, pattern in patterns.items()}
    weights = {"math": "7/52.0", "code": "19/52.0", "qa": "26/52.0"}
    swarm = {name: str(folder / f"{name}.csv") for name in ("ratios", "metrics")}
    priors = {name: meta[name] for name in ("relative_sizes", "token_counts")}
    filtering = {"drop_metrics": meta["drop_metrics"], "obj_weights": weights}
    got = translate({"swarm": swarm, "priors": priors, "eval.tasks": tasks, "filtering": filtering})
    table = workdirs.read_table(got, tmp_path)
    assert dict(zip(table.tasks, table.sizes_N)) == {"math": 7, "code": 19, "qa": 26}
    assert len(table.columns) == 110 - 5
    weights_N = task_weights(json_fields.read_mapping(got.propose.task_weights, "propose.task_weights"), table.tasks)
    np.testing.assert_allclose(weights_N, table.sizes_N / 52)


def test_held_out_swarm_is_grouped_like_the_fitted_one(translate, tmp_path):
    """Families of the held-out swarm are means over the same columns as in the fit."""
    held_out = {"test_ratios": str(tmp_path / "ratios.csv"), "test_metrics": str(tmp_path / "metrics.csv")}
    config = translate({"filtering.drop_metrics": ["old", "math:b"]}, config={"swarm": held_out})
    fitted = workdirs.read_table(config, tmp_path)
    other = workdirs.read_test_table(config, fitted)
    assert other.tasks == fitted.tasks == ("math", "qa") and other.columns == ("math:a", "qa::olmes")
    np.testing.assert_array_equal(other.bpb_KN, fitted.bpb_KN)


def test_absent_fields_get_the_defaults_of_the_format(translate):
    got = translate({"regression": None, "proposer": None, "constraints": None, "filtering": {"drop_metrics": ["old"]}})
    assert (got.fit.law, got.fit.granularity, got.fit.families, got.seed) == ("log_linear", "task", "", 0)
    assert got.propose.kl_weight == 0 and got.propose.target_tokens is None and got.propose.task_weights == ""


def test_fields_of_earlier_versions_are_accepted(translate, logged):
    in_loop = {"type": "inloop", "tasks": {"math": {"a_id": "math:a"}, "qa": {"qa_id": "qa::olmes"}}}
    got = translate({"eval": in_loop, "priors.total_tokens": 7, "proposer.use_natural_kl": True, "regression.alpha": 1})
    assert got.fit.keep_metrics == ("math:a", "qa::olmes")
    assert "relative_sizes" not in json.loads(got.swarm.meta)
    assert any("fields not used: priors.total_tokens, eval.type, regression.alpha" in line for line in logged)


def test_repetition_factor_defaults_to_that_of_the_release(translate):
    """4 in the release; an explicit value stays."""
    changes = {"constraints": {"enabled": True, "target_tokens": 10}}
    assert translate(changes).propose.max_repeats == 4.0
    assert translate({"constraints.repetition_factor": 5}).propose.max_repeats == 5.0
    assert translate({"constraints.requested_tokens": 7}).propose.target_tokens == 7.0


def test_worst_mixture_simulation_and_fixed_weights_are_translated(translate):
    assert translate({"proposer.make_worst_mix": True}).propose.worst
    simulated = translate({"proposer.type": "simulation"}).propose
    assert (simulated.method, simulated.kl_weight, simulated.worst) == ("simulation", 0.0, False)
    for fixed in ({"dclm:code": "1/4"}, '{"dclm:code": 0.25}'):
        assert json.loads(translate({"filtering.fixed_weight": fixed}).propose.bounds) == {"dclm:code": 0.25}
    assert translate().propose.bounds == "" and translate().propose.method == "exact"


def test_prior_of_the_parts_of_collapsed_sources_becomes_the_anchor(translate):
    """KL of the expanded mixture to the prior of the parts differs from KL to the anchor by a constant."""
    prior, parts = {"web": 0.5, "a": 0.1, "b": 0.4}, {"a": 0.5, "b": 0.5}
    expanded = {"priors.expanded_relative_sizes": prior, "proposer.expanded_kl_source_mixtures": {"dclm:code": parts}}
    anchor = json.loads(translate(expanded).propose.anchor)
    assert sum(anchor.values()) == pytest.approx(1)
    differences = []
    for web in (0.2, 0.5, 0.9):
        leaves = {"web": web, "a": (1 - web) / 2, "b": (1 - web) / 2}
        kl = sum(p * np.log(p / prior[name]) for name, p in leaves.items())
        collapsed = {"web": web, "dclm:code": 1 - web}
        differences.append(kl - sum(p * np.log(p / anchor[name]) for name, p in collapsed.items()))
    assert differences == pytest.approx([differences[0]] * 3)
    assert translate(expanded | {"proposer.kl_reg": None}).propose.anchor == ""


def test_flags_override_the_file(translate, logged, tmp_path):
    got = translate(
        {"swarm.ratios": "nowhere.csv"},
        given={"swarm.ratios", "propose.kl_weight"},
        config={"swarm": {"ratios": "mine.csv"}, "propose": {"kl_weight": 0.5, "max_repeats": 9.0}},
    )
    assert got.swarm.ratios == "mine.csv" and got.propose.kl_weight == 0.5
    assert got.propose.max_repeats == 4.5, "the file overrides a value that is not from a flag"
    assert any("propose.kl_weight is given as a flag" in line for line in logged)


def test_command_line_runs_a_published_config(translate, tmp_path):
    """`run.py --config.olmix_yaml=…` fits the swarm in the file, and a flag overrides the file."""
    translate()
    flags = ["--config=configs/fit_csv.py:smoke", f"--workdir={tmp_path / 'work'}", "--stages=fit"]
    flags += [f"--config.olmix_yaml={tmp_path / 'fit.yaml'}", "--config.propose.kl_weight=0.25"]
    done = subprocess.run([sys.executable, "run.py", *flags], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    override = "propose.kl_weight is given as a flag, which overrides the file"
    assert override in done.stderr and override in (tmp_path / "work/log.txt").read_text()
    assert list(json.loads((tmp_path / "work/fit/fit.json").read_text())["tasks"]) == ["math", "qa"]
    resolved = json.loads((tmp_path / "work/config.json").read_text())
    assert resolved["propose"]["kl_weight"] == 0.25 and resolved["propose"]["max_repeats"] == 4.5

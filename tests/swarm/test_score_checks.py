"""score_checks.py: columns that cannot be a loss per byte are errors; copies and accuracies are warnings."""

import numpy as np
import pytest

from olmix_jax.swarm import score_checks
from olmix_jax.utils.errors import UserError
from tests.swarm.small_swarm import BASE_METRICS, BASE_RATIOS, write_and_read


def with_column(name, cells, first=False):
    """Return the base swarm's scores with another column."""
    head, *rows = BASE_METRICS.splitlines()
    lines = [f"{name},{head}" if first else f"{head},{name}"]
    return "\n".join(lines + [f"{c},{row}" if first else f"{row},{c}" for c, row in zip(cells, rows, strict=True)])


T1 = [row.split(",")[1] for row in BASE_METRICS.splitlines()[1:]]


@pytest.mark.parametrize(
    "name, cells, first, what",
    [
        ("_runtime", (7100, 7900, 6900, 7600, 6800, 7700, 7300, 7000), False, "_runtime (a leading underscore)"),
        ("Unnamed: 0.1", range(8), True, "Unnamed: 0.1 (row numbers)"),
        ("t1.1", T1, False, "t1.1 (a copy of t1)"),
        ("bpb_stderr", (0.01,) * 8, False, "bpb_stderr (a standard error)"),
        ("Notes", ["good"] * 8, False, "Notes (data about the run)"),
        ("ppl", (19.1, 23, 16, 20, 18, 21, 17, 19), False, "ppl (a perplexity beside other scores)"),
        ("w", (0.6, 0.2, 0.1, 0.4, 0.3, 0.1, 0.8, 0.3), False, "w (the weights of web)"),
        ("comment", ["good"] * 8, False, "comment (text)"),
        ("hellaswag_acc", (0.25, 0.28, 0.3, 0.26, 0.3, 0.27, 0.27, 0.28), False, "hellaswag_acc (better when higher)"),
    ],
)
def test_columns_that_are_no_scores_are_left_out_and_named(tmp_path, name, cells, first, what):
    got = write_and_read(tmp_path, BASE_RATIOS, with_column(name, cells, first))
    assert got.tasks == ("t1", "t2")
    path = tmp_path / "metrics.csv"
    assert got.warnings == (f"{path}: these columns are no scores and are left out: {what}",)


def test_named_columns_are_read_whatever_their_names(tmp_path):
    metrics = with_column("t1_min", [float(cell) - 0.01 - 0.04 * (k % 2) for k, cell in enumerate(T1)])
    assert write_and_read(tmp_path, BASE_RATIOS, metrics).tasks == ("t1", "t2")
    got = write_and_read(tmp_path, BASE_RATIOS, metrics, keep_metrics=("t1", "t1_min"))
    assert got.tasks == ("t1", "t1_min") and not got.warnings
    assert write_and_read(tmp_path, BASE_RATIOS, metrics, every_column=True).tasks == ("t1", "t2", "t1_min")


@pytest.mark.parametrize(
    "name, cells, message",
    [
        (
            "x",
            (1.1, 1.2, -0.5, 1, 1.1, 1, 1.1, 1.2),
            r"line 4 \(run r2\), column x: -0.5: .* above 0 .*; correct it, or",
        ),
        ("x", (90.5, 80, 70, 60, 50, 40, 31, 33), r"\(run r0\), column x: 90.5: .* at most 30; .*drop_metrics=x;"),
        ("x", (1.5,) * 8, "column x: 1.5: the column is the same in every run; if this is no score, leave out the"),
        ("x", range(1, 9), r"column x: 1: the column has only whole numbers"),
        ("x", range(8), r"column x: 0: the column has only whole numbers"),
        ("x", ("3f2a",) * 8, r"column x: '3f2a' is not a finite number; if x is no score, name it in fit.drop_metrics"),
        ("a b", (99,) * 8, r"drop_metrics='\[\"a b\"\]'"),
    ],
)
def test_columns_that_cannot_be_scores_are_refused_with_run_and_column(tmp_path, name, cells, message):
    metrics = with_column(name, cells)
    with pytest.raises(UserError, match=message):
        write_and_read(tmp_path, BASE_RATIOS, metrics)
    assert write_and_read(tmp_path, BASE_RATIOS, metrics, drop_metrics=(name,)).tasks == ("t1", "t2")
    if "3f2a" in cells:
        return
    got = write_and_read(tmp_path, BASE_RATIOS, metrics, keep_metrics=("t1", name))
    assert got.tasks == ("t1", name)


def test_base_swarm_has_no_warning(tmp_path):
    """Its two tasks are in conflict: their rank correlation is -0.85."""
    assert write_and_read(tmp_path, BASE_RATIOS, BASE_METRICS).warnings == ()


def test_scores_of_another_scale_are_named(tmp_path):
    metrics = with_column("x", (19.1, 23, 16, 20, 18, 21, 17, 19))
    (warning,) = write_and_read(tmp_path, BASE_RATIOS, metrics).warnings
    assert (
        warning.startswith("x: level and spread are over 4 times those of other tasks") and "drop_metrics=x," in warning
    )
    bpb_KN = np.random.default_rng(0).normal((1, 1, 20, 20, 20), (0.1, 0.1, 2, 2, 2), (30, 5))
    (text,) = score_checks.warnings(tuple("abcde"), bpb_KN)
    assert text.startswith("c, d, e: level")
    hard = with_column("x", [2.5 * float(cell) for cell in (1.1, 1.2, 1.0, 1.1, 1.05, 1.15, 1.1, 1.1)])
    assert write_and_read(tmp_path, BASE_RATIOS, hard).warnings == ()


@pytest.mark.parametrize(
    "name, cells, which",
    [
        ("State", ["finished"] * 3 + ["crashed"] + ["finished"] * 4, "r3 (State crashed)"),
        ("_step", [1000, 1000, 640, 1000, 990, 1000, 1000, 1000], "r2 (_step 640)"),
        (
            "train/tokens",
            [2e9, 2e9, 1e9, 2e9, 2e9, 2e9, 2e9, 1.5e9],
            "r2 (train/tokens 1000000000.0), r7 (train/tokens",
        ),
        ("State", ["finished"] * 8, None),
        ("_step", [1000, 1002, 990, 1000, 1000, 1001, 1000, 1000], None),
    ],
)
def test_runs_that_did_not_reach_their_end_are_named(tmp_path, name, cells, which):
    got = write_and_read(tmp_path, BASE_RATIOS, with_column(name, cells))
    texts = [text for text in got.warnings if "trained to the end" in text]
    assert len(got.runs) == 8 and len(texts) == (which is not None)
    assert which is None or f"end: {which}" in texts[0]


def test_runs_with_the_same_scores_are_named(tmp_path):
    rows = with_column("x", (1.1, 1.2, 1.3, 1.15, 1.25, 1.05, 1.1, 1.22)).splitlines()
    rows[3] = "r2" + rows[2].removeprefix("r1")
    (warning,) = write_and_read(tmp_path, BASE_RATIOS, "\n".join(rows)).warnings
    assert warning.startswith("runs r1, r2 have the same scores in all 3 tasks; if one is a copy, correct it")


def test_outlier_does_not_make_other_scores_look_the_same():
    bpb_KN = np.random.default_rng(0).normal(1.5, 0.1, (20, 2))
    assert score_checks.warnings(("a", "b"), bpb_KN) == []
    bpb_KN[7] *= 2.7
    assert score_checks.warnings(("a", "b"), bpb_KN) == []
    assert score_checks.warnings(("a", "b"), bpb_KN[:, [0, 0]]) != []


def test_perplexities_alone_are_read(tmp_path):
    metrics = BASE_METRICS.replace("t1", "a_ppl").replace("t2", "b_perplexity")
    assert write_and_read(tmp_path, BASE_RATIOS, metrics).tasks == ("a_ppl", "b_perplexity")


def test_copies_are_named(tmp_path):
    t1_K = np.array(T1, float)
    for name, copy_K in (("equal", t1_K), ("rounded", t1_K.round(2) + 0.001), ("nats", t1_K * 0.6931)):
        got = write_and_read(tmp_path, BASE_RATIOS, with_column(name, copy_K))
        assert got.warnings == (
            f"t1, {name} are the same scores, up to rounding or a factor, so they count 2 times; leave out the copies "
            f"with --config.fit.drop_metrics={name}",
        )


def test_column_that_rises_where_others_fall_is_named(tmp_path):
    rising = (1.6 - np.array(T1, float)) / 2
    (text,) = write_and_read(tmp_path, BASE_RATIOS, with_column("arc", rising)).warnings
    assert text.startswith("arc rises in the runs in which other scores fall; if it is an accuracy, leave it out with")


def test_column_that_rises_from_row_to_row_is_named(tmp_path):
    hours = [1.1, 2.3, 3.2, 4.1, 5.6, 6.5, 7.7, 8.1]
    (text,) = write_and_read(tmp_path, BASE_RATIOS, with_column("wall", hours)).warnings
    assert text.startswith("wall: each row is higher than the one before; if this is a counter or a time, leave it out")


def test_published_scores_have_only_one_warning(published):
    from olmix_jax.swarm.table import SwarmTable

    dclm, regmix = published / "olmix_dclm", published / "regmix_1m"
    got = SwarmTable.read(dclm / "ratios.csv", dclm / "metrics.csv", dclm / "meta.json")
    (text,) = got.warnings
    assert len(got.tasks) == 105 and text.startswith("mbpp:3shot::none, mt_mbpp_v2fix:python are the same scores")
    got = SwarmTable.read(regmix / "train_mixture_1m.csv", regmix / "train_pile_loss_1m.csv")
    assert len(got.tasks) == 13 and got.warnings == ()


def test_constant_columns_are_the_same_as_no_other():
    assert score_checks.warnings(("a", "b"), np.full((8, 2), 1.5)) == []

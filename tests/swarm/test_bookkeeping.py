"""bookkeeping.py: columns that are no scores are recognised by name and cells, and tasks are not."""

import pytest

from olmix_jax.swarm import bookkeeping


@pytest.mark.parametrize(
    "column, what",
    [
        *((name, "a leading underscore") for name in ("_runtime", "_step", "_timestamp", "_wandb.runtime")),
        *((name, "row numbers") for name in ("Unnamed: 0", "Unnamed: 0.1", "level_0", "")),
        *((name, "an id") for name in ("ID", "Name", "run_id", "Index")),
        *((name, "a standard error") for name in ("bpb_stderr,none", "acc_stderr", "t1/bpb_stderr", "stderr")),
        *((name, "a statistic of another column") for name in ("r0 - t1__MIN", "t1__MAX")),
        *((name, "data about the run") for name in ("step", "train/global_step", "Epoch", "lr", "learning-rate")),
        *((name, "data about the run") for name in ("State", "Tags", "Created", "GPU Type", "num_instances", "alias")),
        *((name, "") for name in ("t1", "min_arithmetic", "max_flow", "t1_min", "basic_skills:rc::olmes", "mmlu_step")),
        *(
            (name, "data about the run")
            for name in ("gpu_hours", "eval_steps_per_second", "tokens_B", "optim/LR (group 0)")
        ),
        *((name, "data about the run") for name in ("train/CE loss", "memory/peak", "params.width", "iteration-time")),
        *((name, "a training loss") for name in ("train_loss", "loss/train/total", "metrics.train_loss")),
        *((name, "") for name in ("training_data_qa", "trains", "second_language", "sec_filings", "memory_recall_bpb")),
        *((name, "") for name in ("eval/loss", "math_train_val_loss", "counting_and_probability", "time_series_loss")),
        *((name, "") for name in ("time_dial", "std_library", "seed_bench", "metric/loss", "tokenization", "gsm8k.1")),
    ],
)
def test_columns_are_recognised_by_their_names(column, what):
    assert bookkeeping.by_name(column) == what


@pytest.mark.parametrize(
    "column, values, higher",
    [
        ("hellaswag/acc,none", (0.2, 0.5), True),
        ("acc_norm", (0.2, 1.0), True),
        ("squad_f1", (25.0, 61.5), True),
        ("codex:pass@1", (0.0, 0.1), True),
        ("gsm8k_exact_match", (0.0, 0.1), True),
        ("primary_score", (0.2, 0.5), True),
        ("hellaswag_acc_bpb", (0.2, 0.5), False),
        ("trivia_recall", (0.2, 0.5), True),
        ("counting_and_probability", (0.2, 0.5), False),
        ("accounting", (0.2, 0.5), False),
        ("f1_racing_acc", (1.2, 1.9), False),
    ],
)
def test_accuracies_are_recognised_by_name_and_range(column, values, higher):
    assert bookkeeping.is_higher_better(column, values) is higher


@pytest.mark.parametrize(
    "column, values, statistic",
    [
        ("t1_std", (0.02, 0.03), True),
        ("t1.min", (1.0, 1.2), True),
        ("t1/max", (1.1, 1.3), True),
        ("t1_n", (100, 100), True),
        ("t1_err", (0.02, 0.03), True),
        ("t1_ci_low", (0.9, 1.1), True),
        ("t1_upper", (1.1, 1.3), True),
        ("t1_low", (0.9, 1.3), False),
        ("t1_low", (0.1, 0.2), False),
        ("t1_se", (0.9, 1.5), False),
        ("t1_max", (0.9, 1.5), False),
    ],
)
def test_statistics_of_another_column_agree_with_their_name(column, values, statistic):
    assert bookkeeping.original(column, ("t1", column)) == "t1"
    assert bookkeeping.is_statistic(column, values, (1.0, 1.2)) is statistic
    assert bookkeeping.original("t2_min", ("t1",)) == ""


def test_text_columns_hold_no_number():
    assert bookkeeping.is_text(["finished", "crashed", ""]) and bookkeeping.is_text(["2026-01-02T10:00", "1:02:03"])
    for cells in (["1,1", "1,2"], ["", "nan"], ["1.0", "bad"], ["inf"], [".5"], ["1e-3"], ["1.2-"]):
        assert not bookkeeping.is_text(cells)


@pytest.mark.parametrize("cell, fractions", [("0.5", True), (".5", True), ("1e-3", True), ("7", False), ("1.0", False)])
def test_ids_have_no_fractions(cell, fractions):
    assert bookkeeping.has_fractions(["1", cell]) is fractions and not bookkeeping.has_fractions(["x1", "19g3guks", ""])

"""Tables of domains, tasks, quality of the law and groups."""

import dataclasses

from olmix_jax.propose.aiming import ReadAt
from olmix_jax.report import tables
from tests.report import samples
from tests.report.samples import HOSTILE, HOSTILE_TASK


def test_tables_have_a_cell_per_column(results):
    everything = dataclasses.replace(results, proposal=samples.explored(results.proposal))
    for r in (results, everything, dataclasses.replace(results, validation=None, proposal=None)):
        both = [tables.task_table(r), tables.quality_table(r.fit)]
        both += [tables.domain_table(r, r.proposal)] if r.proposal is not None else []
        for table in both:
            assert {len(row.cells) for row in table.rows} == {len(table.head)}


def test_domain_table_marks_the_domain_at_its_cap(results):
    table = tables.domain_table(results, results.proposal)
    (marked,) = (row for row in table.rows if row.mark)
    assert marked.cells[0] == HOSTILE and marked.cells[1] == "200k" and marked.cells[6:] == ("4.00", "12.3")


def test_domain_table_shows_standard_deviations(results):
    proposal = dataclasses.replace(results.proposal, weights_std=dict.fromkeys(results.proposal.weights, 0.01))
    table = tables.domain_table(results, proposal)
    assert all(row.cells[3].endswith(" ± 1.00") for row in table.rows) and "±: standard deviation" in table.caption


def test_task_table_marks_worse_tasks(small):
    mixtures = dict(small.validation.mixtures)
    scores = mixtures["proposed"].tasks
    other = next(task for task in scores if task != HOSTILE_TASK)
    bad = {task: dataclasses.replace(score, mean=9.0) for task, score in scores.items()}
    mixtures["proposed"] = dataclasses.replace(mixtures["proposed"], tasks=bad)
    worse = dataclasses.replace(small, validation=dataclasses.replace(small.validation, mixtures=mixtures))
    rows = {row.cells[0]: row for row in tables.task_table(worse).rows}
    assert rows[HOSTILE_TASK].cells[-1] == "both" and rows[HOSTILE_TASK].mark
    assert rows[other].cells[-1] == "measured" and rows[other].mark
    rows = {row.cells[0]: row for row in tables.task_table(dataclasses.replace(small, validation=None)).rows}
    assert rows[HOSTILE_TASK].cells[-1] == "predicted" and not rows[other].mark


def test_task_table_says_which_models_predictions_are_of(small):
    longer = samples.with_proposal(small, read_at=ReadAt(8e9, 1e9, 4e9))
    assert "for models of the proxies’ size and training length, so" in tables.task_table(small).caption
    assert "for models of the proxies’ size, trained on 8B tokens, so" in tables.task_table(longer).caption


def test_task_table_shows_intervals(small):
    ends = {"predicted_low": dict.fromkeys(small.tasks, 0.8), "predicted_high": dict.fromkeys(small.tasks, 0.9)}
    table = tables.task_table(samples.with_proposal(small, **ends))
    assert table.rows[0].cells[table.head.index("5–95 %")] == "0.8000–0.9000"


def test_quality_table_lists_held_out_columns_first(results):
    table = tables.quality_table(results.fit)
    assert table.head[1:4] == ("Spearman", "R²", "RMSE, BPB") and "inside the 90 % interval" in table.head
    assert ["in-sample" in name for name in table.head] == [False] * 7 + [True] * 2
    mean, average, first = (row.cells for row in table.rows[:3])
    worst = min(results.fit.tasks, key=lambda task: results.fit.tasks[task].spearman_cv)
    assert first[0] == worst and first[1] == f"{results.fit.tasks[worst].spearman_cv:.3f}" and first[7] == "0.991"
    assert mean[:3] == ("mean over tasks", f"{results.fit.spearman_cv_mean:.3f}", "0.900")
    assert average[:2] == ("average of tasks", f"{results.fit.spearman_of_mean_cv:.3f}") and average[4] == "88 %"


def test_quality_table_leaves_out_unknown_columns(small):
    tasks = {t: dataclasses.replace(row, spearman_loo=None, rmse_loo=None) for t, row in small.fit.tasks.items()}
    table = tables.quality_table(dataclasses.replace(small.fit, tasks=tasks))
    assert not any("leave-one-out" in name for name in table.head)


def test_group_table_marks_binding_bounds(small):
    (group,) = samples.explored(small.proposal).groups
    free = dataclasses.replace(group, high=None, multiplier=None)
    binding, loose = tables.group_table((group, free)).rows
    assert binding.cells == ("<b>g</b>:*", "2", "20.00", "0.00", "20.00", "0.3") and binding.mark
    assert loose.cells[4:] == ("–", "–") and not loose.mark

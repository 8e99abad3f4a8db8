"""task_groups.py: MMLU's groups, families and the average, on small tables and on the published swarm."""

import numpy as np
import pytest

from olmix_jax.swarm import task_groups
from olmix_jax.swarm.table import SwarmTable
from olmix_jax.utils.errors import UserError


def swarm(*tasks) -> SwarmTable:
    """Return two runs over one domain; task n scores n + 1 in the first and 10(n + 1) in the second."""
    bpb_KN = np.array([[1.0], [10.0]]) * np.arange(1, len(tasks) + 1)
    runs = ("r1", "r2")
    return SwarmTable(runs, ("web",), tasks, np.ones((2, 1)), bpb_KN, None, None, runs)


def test_mmlu_groups_have_the_published_sizes():
    groups = {group: (len(subjects), sum(subjects.values())) for group, subjects in task_groups.MMLU.items()}
    assert groups == {"stem": (18, 3018), "humanities": (13, 4705), "social_sciences": (12, 3077), "other": (14, 3242)}
    assert sum(size for _, size in groups.values()) == 14042
    assert len({subject for subjects in task_groups.MMLU.values() for subject in subjects}) == 57


def test_subjects_are_averaged_weighted_by_questions(logged):
    # Two subjects of `other` and one of `stem`. A different ending makes a different group. Other tasks stay unchanged.
    whole = swarm("qa", "mmlu_virology:rc", "mmlu_machine_learning:rc", "mmlu_marketing:rc", "mmlu_virology", "mmlu_x")
    got = task_groups.with_mmlu_groups(whole)
    assert got.tasks == ("qa", "mmlu_other:rc", "mmlu_stem:rc", "mmlu_other", "mmlu_x") and got.columns == whole.tasks
    other = (166 * 2 + 234 * 4) / (166 + 234)
    np.testing.assert_allclose(got.bpb_KN, np.outer([1, 10], [1, other, 3, 5, 6]), rtol=1e-15)
    assert got.sizes_N.tolist() == [1] * 5
    assert "mmlu_other:rc: mean of 2 of its 14 subjects" in logged[0] and len(logged) == 3


def test_table_without_subjects_is_returned_unchanged():
    for tasks in (("qa", "math"), ("mmlu_stem:rc", "mmlu_humanities:rc")):
        table = swarm(*tasks)
        assert task_groups.with_mmlu_groups(table) is table
    assert task_groups.grouped(swarm("mmlu_virology"), mmlu_groups=False, granularity="task").tasks == (
        "mmlu_virology",
    )


def test_group_beside_its_subjects_is_an_error():
    with pytest.raises(
        UserError, match="both mmlu_other:rc and its subjects .mmlu_virology:rc, ….; .*`fit.drop_metrics`"
    ):
        task_groups.with_mmlu_groups(swarm("mmlu_other:rc", "mmlu_virology:rc"))


FAMILIES = {"text": ["qa*", "mmlu_virology:rc"], "number": ["math"]}


def test_families_and_average_count_their_tasks():
    table = swarm("qa:1", "math", "mmlu_marketing:rc", "mmlu_virology:rc", "qa:2")
    got = task_groups.grouped(table, mmlu_groups=True, granularity="family", families=FAMILIES)
    # The MMLU group is one task, and the name of one of its subjects matches it.
    mmlu = (234 * 3 + 166 * 4) / 400
    assert got.tasks == ("text", "number") and got.sizes_N.tolist() == [3, 1]
    np.testing.assert_allclose(got.bpb_KN, np.outer([1, 10], [(1 + mmlu + 5) / 3, 2]))
    whole = task_groups.grouped(table, mmlu_groups=True, granularity="aggregated")
    assert whole.tasks == ("average",) and whole.sizes_N.tolist() == [4] and whole.columns == table.tasks
    # Families weighted by their sizes give the average of the tasks.
    np.testing.assert_allclose(got.bpb_KN @ got.sizes_N / 4, whole.bpb_KN[:, 0])


@pytest.mark.parametrize(
    "tasks, families, message",
    [
        (
            ("qa", "pile"),
            None,
            "the built-in families: tasks without a family: pile, qa; .*`fit.families`.*`fit.drop_metrics`",
        ),
        (("qa", "math"), FAMILIES | {"more": ["m?th"]}, "task math is in families number and more"),
        (("qa",), FAMILIES, "fit.families: family without tasks: number"),
        (("qa",), {"text": "qa"}, "text must be a list of task names, not 'qa'"),
    ],
)
def test_invalid_families_raise_an_error_that_names_them(tasks, families, message):
    with pytest.raises(UserError, match=message):
        task_groups.families_of(tasks, families)


def test_published_swarm_has_the_52_tasks_of_the_paper(published, logged):
    """METHOD §4: 52 = 7 math, 19 code, 26 QA."""
    folder = published / "olmix_dclm"
    table = SwarmTable.read(folder / "ratios.csv", folder / "metrics.csv", folder / "meta.json")
    tasks = task_groups.grouped(table, mmlu_groups=True, granularity="task")
    assert len(tasks.tasks) == 52 and sum(task.startswith("mmlu_") for task in tasks.tasks) == 4
    assert not [line for line in logged if "of its" in line]
    families = {family: len(members) for family, members in task_groups.families_of(tasks.tasks).items()}
    assert families == {"math": 7, "code": 19, "qa": 26}
    by_family = task_groups.grouped(table, mmlu_groups=True, granularity="family")
    assert dict(zip(by_family.tasks, by_family.sizes_N)) == families
    np.testing.assert_allclose(by_family.bpb_KN @ by_family.sizes_N / 52, tasks.bpb_KN.mean(axis=1), rtol=1e-13)

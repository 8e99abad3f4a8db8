"""Tasks put together: MMLU's subjects into its groups, tasks into families or into one average (paper RQ5).

Pure functions from a :class:`~olmix_jax.swarm.table.SwarmTable` to another one, in which a column is the
mean of several.
"""

import dataclasses
import fnmatch
import re
from collections.abc import Sequence

import numpy as np

from olmix_jax.swarm.table import SwarmTable
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.files import read_object
from olmix_jax.utils.progress import log

# Subjects of MMLU (Hendrycks et al. 2021) in its four groups, with the questions of their test splits: 14,042 in all.
MMLU = {
    "stem": {
        "abstract_algebra": 100,
        "astronomy": 152,
        "college_biology": 144,
        "college_chemistry": 100,
        "college_computer_science": 100,
        "college_mathematics": 100,
        "college_physics": 102,
        "computer_security": 100,
        "conceptual_physics": 235,
        "electrical_engineering": 145,
        "elementary_mathematics": 378,
        "high_school_biology": 310,
        "high_school_chemistry": 203,
        "high_school_computer_science": 100,
        "high_school_mathematics": 270,
        "high_school_physics": 151,
        "high_school_statistics": 216,
        "machine_learning": 112,
    },
    "humanities": {
        "formal_logic": 126,
        "high_school_european_history": 165,
        "high_school_us_history": 204,
        "high_school_world_history": 237,
        "international_law": 121,
        "jurisprudence": 108,
        "logical_fallacies": 163,
        "moral_disputes": 346,
        "moral_scenarios": 895,
        "philosophy": 311,
        "prehistory": 324,
        "professional_law": 1534,
        "world_religions": 171,
    },
    "social_sciences": {
        "econometrics": 114,
        "high_school_geography": 198,
        "high_school_government_and_politics": 193,
        "high_school_macroeconomics": 390,
        "high_school_microeconomics": 238,
        "high_school_psychology": 545,
        "human_sexuality": 131,
        "professional_psychology": 612,
        "public_relations": 110,
        "security_studies": 245,
        "sociology": 201,
        "us_foreign_policy": 100,
    },
    "other": {
        "anatomy": 135,
        "business_ethics": 100,
        "clinical_knowledge": 265,
        "college_medicine": 173,
        "global_facts": 100,
        "human_aging": 223,
        "management": 103,
        "marketing": 234,
        "medical_genetics": 100,
        "miscellaneous": 783,
        "nutrition": 306,
        "professional_accounting": 282,
        "professional_medicine": 272,
        "virology": 166,
    },
}
# Families of the paper's tasks (METHOD §4), by pattern; of the 52 tasks of the DCLM swarm they have 7, 19 and 26.
FAMILIES = {
    "math": ("minerva_math_*", "gsm8k*"),
    "code": ("codex_*", "mbpp*", "mt_mbpp_*"),
    "qa": tuple(
        f"{name}*"
        for name in (
            "arc_ basic_skills boolq coqa csqa drop hellaswag jeopardy lab_bench_ lambada medmcqa medqa_ mmlu_ "
            "naturalqs openbookqa piqa qasper_ sciq sciriff_ socialiqa squad winogrande"
        ).split()
    ),
}
AGGREGATED = "average"


def grouped(table: SwarmTable, *, mmlu_groups: bool, granularity: str, families: str = "") -> SwarmTable:
    """The table that a law is fitted to: MMLU's groups in place of its subjects, then families or the average of all.

    Args:
      table: a swarm, a column per task.
      mmlu_groups: whether to average the subjects of MMLU.
      granularity: "task", "family" or "aggregated".
      families: as :func:`families_of` takes them.

    Raises:
      UserError: as :func:`with_mmlu_groups` and :func:`families_of`.
    """
    if mmlu_groups:
        table = with_mmlu_groups(table)
    if granularity == "task":
        return table
    groups = families_of(table.tasks, families) if granularity == "family" else {AGGREGATED: table.tasks}
    counts = {task: size for task, size in zip(table.tasks, table.sizes_N)}
    result = _averaged(table, {group: {task: counts[task] for task in tasks} for group, tasks in groups.items()})
    sizes_N = [sum(counts[task] for task in groups[group]) for group in result.tasks]
    return dataclasses.replace(result, sizes_N=np.array(sizes_N))


def with_mmlu_groups(table: SwarmTable) -> SwarmTable:
    """Averages the subjects of MMLU among the tasks into their groups, ``mmlu_stem:rc::olmes`` and so on.

    A group's BPB is Σ_s n_s y_s / Σ_s n_s over its subjects s that the table has, n_s the questions in the subject's
    test split. What follows a subject's name (``:rc::olmes``) is kept; subjects with different endings are grouped
    apart. A group stands where the first of its subjects stood, and counts as one task.

    Raises:
      UserError: the table has a group's column and its subjects as well.
    """
    groups = {}
    for task in table.tasks:
        if found := _SUBJECT.fullmatch(task):
            group = _group_of(found["subject"])
            groups.setdefault(f"mmlu_{group}{found['ending']}", {})[task] = MMLU[group][found["subject"]]
    for column, weights in groups.items():
        if column in table.tasks:
            raise UserError(
                f"the metrics have both {column} and its subjects ({', '.join(list(weights)[:3])}, …); leave one of "
                "them out with `fit.drop_metrics`"
            )
        expected = len(MMLU[_GROUP.fullmatch(column)["group"]])
        if len(weights) < expected:
            log.info("%s: the mean of %d of its %d subjects; the others are not there", column, len(weights), expected)
    return _averaged(table, groups)


def families_of(tasks: Sequence[str], families: str = "") -> dict[str, tuple[str, ...]]:
    """Sorts tasks into named families.

    Args:
      tasks: names of tasks.
      families: a JSON object {family: [names or shell patterns]}, or the path of a file with one; empty for
        :data:`FAMILIES`. A group of MMLU is also found by the name of any of its subjects.

    Returns:
      {family: its tasks}, both in the order given.

    Raises:
      UserError: a task is in no family or in two, or a family of the user's has no task.
    """
    where, named = read_object(families, "fit.families") if families.strip() else ("the built-in families", FAMILIES)
    for family, patterns in named.items():
        if not isinstance(patterns, (list, tuple)) or not all(isinstance(p, str) for p in patterns):
            raise UserError(f"{where}: {family} must be a list of task names, not {patterns!r}")
    found = {family: tuple(t for t in tasks if _matches(t, patterns)) for family, patterns in named.items()}
    for task in tasks:
        homes = [family for family, members in found.items() if task in members]
        if len(homes) > 1:
            raise UserError(f"{where}: task {task} is in {' and '.join(homes)}; a task belongs to one family")
    stray = sorted(set(tasks) - {task for members in found.values() for task in members})
    if stray:
        raise UserError(
            f"{where}: in no family: {', '.join(stray[:8])}{', …' * (len(stray) > 8)}; name their family in "
            '`fit.families`, as {"mine": ["task_a", "qa_*"]}, leave them out with `fit.drop_metrics`, or fit per task'
        )
    empty = [family for family, members in found.items() if not members]
    if empty and families.strip():
        raise UserError(f"{where}: no task of the metrics is in {', '.join(empty)}; correct the names, or take it out")
    return {family: members for family, members in found.items() if members}


_SUBJECT = re.compile(
    rf"mmlu_(?P<subject>{'|'.join(subject for group in MMLU.values() for subject in group)})(?P<ending>([^a-z0-9].*)?)"
)
_GROUP = re.compile(rf"mmlu_(?P<group>{'|'.join(MMLU)})(?P<ending>([^a-z0-9].*)?)")


def _group_of(subject: str) -> str:
    return next(group for group, subjects in MMLU.items() if subject in subjects)


def _matches(task: str, patterns: Sequence[str]) -> bool:
    names = [task]
    if found := _GROUP.fullmatch(task):
        names += [f"mmlu_{subject}{found['ending']}" for subject in MMLU[found["group"]]]
    return any(name == pattern or fnmatch.fnmatchcase(name, pattern) for pattern in patterns for name in names)


def _averaged(table: SwarmTable, groups: dict[str, dict[str, float]]) -> SwarmTable:
    """A column per group, the weighted mean of its members, where the first of them stood; other tasks as they are."""
    group_of = {task: group for group, weights in groups.items() for task in weights}
    tasks = tuple(dict.fromkeys(group_of.get(task, task) for task in table.tasks))
    if tasks == table.tasks:
        return table
    columns = []
    for task in tasks:
        weights = groups.get(task, {task: 1.0})
        members = [table.tasks.index(member) for member in weights]
        columns.append(np.average(table.bpb_KN[:, members], axis=1, weights=list(weights.values())))
    return dataclasses.replace(table, tasks=tasks, bpb_KN=np.stack(columns, axis=1), sizes_N=None)

"""Average tasks: MMLU's subjects into its four groups, tasks into families, or all tasks into one (paper RQ5).

Pure functions from a :class:`~olmix_jax.swarm.table.SwarmTable` to a new one whose columns are means of columns.
"""

import dataclasses
import fnmatch
import re
from collections.abc import Mapping, Sequence

import numpy as np

from olmix_jax.swarm.table import SwarmTable
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import log

# Subjects of MMLU (Hendrycks et al. 2021) by group, with the sizes of their test splits: 14,042 questions in total.
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
# Families of the paper's tasks (METHOD §4), as shell patterns. They cover the 52 tasks of the DCLM swarm: 7, 19 and 26.
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
# Name of the only task of an aggregated table.
AGGREGATED = "average"


def grouped(
    table: SwarmTable,
    *,
    mmlu_groups: bool,
    granularity: str,
    families: Mapping[str, Sequence[str]] | None = None,
) -> SwarmTable:
    """Return the table that a law is fitted to: one column per task, per family, or for the mean of all tasks.

    Args:
      table: a swarm, one column per task.
      mmlu_groups: whether to average the subjects of MMLU into its groups.
      granularity: "task", "family" or "aggregated" (one average of all tasks).
      families: the argument of :func:`families_of`.

    Raises:
      UserError: as for :func:`with_mmlu_groups` and :func:`families_of`.
    """
    if mmlu_groups:
        table = with_mmlu_groups(table)
    if granularity == "task":
        return table
    groups: dict[str, tuple[str, ...]] = {AGGREGATED: table.tasks}
    if granularity == "family":
        try:
            groups = families_of(table.tasks, families)
        except UserError as e:
            raise UserError(f"{e}; or set `fit.granularity` to task") from e
    counts = dict(zip(table.tasks, table.sizes_N))
    result = _averaged(table, {group: {task: counts[task] for task in tasks} for group, tasks in groups.items()})
    sizes_N = [sum(counts[task] for task in groups[group]) for group in result.tasks]
    return dataclasses.replace(result, sizes_N=np.array(sizes_N))


def with_mmlu_groups(table: SwarmTable) -> SwarmTable:
    """Average the subjects of MMLU into its groups: ``mmlu_virology:rc::olmes`` goes into ``mmlu_other:rc::olmes``.

    A group's BPB is Σ_s n_s y_s / Σ_s n_s over its subjects s in the table, with n_s questions in the subject's test
    split. The ending of a name (``:rc::olmes``) is kept, and each ending has separate groups. A group takes the place
    of its first subject and counts as one task.

    Raises:
      UserError: the table has both a group and its subjects.
    """
    groups: dict[str, dict[str, float]] = {}
    expected = {}
    for task in table.tasks:
        if match := _SUBJECT.fullmatch(task):
            group = _group_of(match["subject"])
            column = f"mmlu_{group}{match['ending']}"
            expected[column] = len(MMLU[group])
            groups.setdefault(column, {})[task] = MMLU[group][match["subject"]]
    for column, weights in groups.items():
        if column in table.tasks:
            raise UserError(
                f"the metrics have both {column} and its subjects ({', '.join(list(weights)[:3])}, …); drop one of "
                "them with `fit.drop_metrics`"
            )
        if len(weights) < expected[column]:
            log.info(
                "%s: mean of %d of its %d subjects; the others are missing", column, len(weights), expected[column]
            )
    return _averaged(table, groups)


def families_of(
    tasks: Sequence[str], families: Mapping[str, Sequence[str]] | None = None
) -> dict[str, tuple[str, ...]]:
    """Assign tasks to named families.

    Args:
      tasks: names of tasks.
      families: {family: task names or shell patterns}; None for :data:`FAMILIES`. The name of an MMLU subject also
        matches the subject's group.

    Returns:
      {family: its tasks}, both in the given order.

    Raises:
      UserError: a task is in no family or in two, or a family in ``families`` has no task.
    """
    named: Mapping[str, Sequence[str]] = FAMILIES if families is None else families
    where = "the built-in families" if families is None else "fit.families"
    for family, patterns in named.items():
        if not isinstance(patterns, (list, tuple)) or not all(isinstance(p, str) for p in patterns):
            raise UserError(f"{where}: {family} must be a list of task names, not {patterns!r}")
    members = {family: tuple(t for t in tasks if _matches(t, patterns)) for family, patterns in named.items()}
    for task in tasks:
        homes = [family for family, matches in members.items() if task in matches]
        if len(homes) > 1:
            raise UserError(f"{where}: task {task} is in families {' and '.join(homes)}; put it into only one")
    stray = sorted(set(tasks) - {task for matches in members.values() for task in matches})
    if stray:
        raise UserError(
            f"{where}: tasks without a family: {', '.join(stray[:8])}{', …' * (len(stray) > 8)}; add them to "
            '`fit.families`, for example {"mine": ["task_a", "qa_*"]}, or drop them with `fit.drop_metrics`'
        )
    empty = [family for family, matches in members.items() if not matches]
    if empty and families is not None:
        raise UserError(f"{where}: family without tasks: {', '.join(empty)}; correct its names, or remove it")
    return {family: matches for family, matches in members.items() if matches}


def in_built_in_families(tasks: Sequence[str]) -> bool:
    """Return whether every task is in one of :data:`FAMILIES`, the families of the paper's tasks."""
    return all(any(_matches(task, patterns) for patterns in FAMILIES.values()) for task in tasks)


_SUBJECT = re.compile(
    rf"mmlu_(?P<subject>{'|'.join(subject for group in MMLU.values() for subject in group)})(?P<ending>([^a-z0-9].*)?)"
)
_GROUP = re.compile(rf"mmlu_(?P<group>{'|'.join(MMLU)})(?P<ending>([^a-z0-9].*)?)")


def _group_of(subject: str) -> str:
    return next(group for group, subjects in MMLU.items() if subject in subjects)


def _matches(task: str, patterns: Sequence[str]) -> bool:
    names = [task]
    if match := _GROUP.fullmatch(task):
        names += [f"mmlu_{subject}{match['ending']}" for subject in MMLU[match["group"]]]
    return any(name == pattern or fnmatch.fnmatchcase(name, pattern) for pattern in patterns for name in names)


def _averaged(table: SwarmTable, groups: dict[str, dict[str, float]]) -> SwarmTable:
    """Return the table with each group's members replaced by their weighted mean, in the place of the first member."""
    group_of = {task: group for group, weights in groups.items() for task in weights}
    tasks = tuple(dict.fromkeys(group_of.get(task, task) for task in table.tasks))
    if tasks == table.tasks:
        return table

    def averaged(bpb_KN):
        columns = []
        for task in tasks:
            weights = groups.get(task, {task: 1.0})
            members = [table.tasks.index(member) for member in weights]
            columns.append(np.average(bpb_KN[:, members], axis=1, weights=list(weights.values())))
        return np.stack(columns, axis=1)

    cheap = None if table.cheap is None else table.cheap._replace(bpb_JN=averaged(table.cheap.bpb_JN))
    changed = {"bpb_KN": averaged(table.bpb_KN), "sizes_N": np.ones(len(tasks)), "cheap": cheap}
    return dataclasses.replace(table, tasks=tasks, **changed)

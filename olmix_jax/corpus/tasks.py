"""Evaluation tasks: prompts with gold answers, collected from several sources and kept in the workdir.

They are scored in bits per byte of the answers (:mod:`olmix_jax.corpus.task_set`).
"""

import dataclasses
import json
import pathlib
from collections.abc import Collection, Iterator

from olmix_jax.config.schema import Config
from olmix_jax.corpus import olmes, task_files, task_makers
from olmix_jax.corpus.examples import Example, sample
from olmix_jax.corpus.store import file_name, heldout_path
from olmix_jax.corpus.task_files import read_task
from olmix_jax.corpus.task_set import DOCUMENT, POOLED, TaskSet, pack
from olmix_jax.corpus.tokenizer import Tokenizer
from olmix_jax.swarm.domains import DomainSet
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import counted, log, tracked

# The list of a workdir's tasks, below the workdir.
INDEX = "tasks/tasks.json"
# The score of a task with fewer examples is mostly noise.
MIN_EXAMPLES = 8
# Bytes of a domain's held-out text from which tasks are made; all examples of a task come from far less.
_ENOUGH = 1 << 24


def _index_path(workdir: str | pathlib.Path) -> pathlib.Path:
    return pathlib.Path(workdir) / INDEX


@dataclasses.dataclass(frozen=True)
class TaskEntry:
    """A task's entry in ``tasks/tasks.json``.

    Attributes:
      name: the task.
      examples: number of its examples.
      aggregate: how its BPB combines them, "document" or "pooled".
    """

    name: str
    examples: int
    aggregate: str = POOLED


def write_tasks(
    workdir: str | pathlib.Path, tasks: dict[str, list[Example]], by_document: Collection[str] = ()
) -> tuple[str, ...]:
    """Write ``tasks/‹name›.jsonl`` for each task, and last ``tasks/tasks.json`` with an entry for each.

    The BPB of the tasks named in ``by_document`` is their mean over examples; that of the others is pooled.
    Special characters in file names are percent-encoded. Files that ``tasks.json`` does not list are ignored; they are
    from an earlier run.

    Returns:
      The names, sorted. This is the order of the task columns in every table.
    """
    names = tuple(sorted(tasks))
    for name in names:
        lines = [json.dumps(dataclasses.asdict(e), ensure_ascii=False) + "\n" for e in tasks[name]]
        files.write_text(_index_path(workdir).with_name(f"{file_name(name)}.jsonl"), "".join(lines))
    entries = [TaskEntry(n, len(tasks[n]), DOCUMENT if n in by_document else POOLED) for n in names]
    files.write_json(_index_path(workdir), {"tasks": [dataclasses.asdict(entry) for entry in entries]})
    return names


def _read_entries(workdir: str | pathlib.Path) -> list[TaskEntry]:
    """Read ``tasks/tasks.json``. An entry without ``aggregate`` is of an earlier version, which pooled all tasks."""
    path = _index_path(workdir)
    try:
        entries = [TaskEntry(**{"aggregate": POOLED, **entry}) for entry in files.read_json(path)["tasks"]]
    except (KeyError, TypeError, ValueError) as e:
        raise UserError(f"{path}: not a list of tasks ({e!r}); rerun --stages=prepare") from e
    for entry in entries:
        if entry.aggregate not in (DOCUMENT, POOLED):
            raise UserError(f"{path}: task {entry.name} has aggregate {entry.aggregate!r}; rerun --stages=prepare")
    return entries


def task_names(workdir: str | pathlib.Path) -> tuple[str, ...]:
    """Return the names of a workdir's tasks, the columns of its swarm's table."""
    return tuple(entry.name for entry in _read_entries(workdir))


def tasks_by_document(workdir: str | pathlib.Path) -> set[str]:
    """Return the tasks of a workdir whose BPB is the mean over their examples."""
    return {entry.name for entry in _read_entries(workdir) if entry.aggregate == DOCUMENT}


def read_examples(workdir: str | pathlib.Path) -> dict[str, list[Example]]:
    """Read the tasks of a workdir, which :func:`write_tasks` wrote.

    Raises:
      UserError: a file is missing, or has another number of examples than ``tasks.json`` says.
    """
    path, tasks = _index_path(workdir), {}
    for entry in _read_entries(workdir):
        file = path.with_name(f"{file_name(entry.name)}.jsonl")
        examples = tasks[entry.name] = read_task(file)
        if len(examples) != entry.examples:
            raise UserError(
                f"{file}: has {len(examples)} examples, but {path.name} lists {entry.examples}; rerun --stages=prepare"
            )
    return tasks


def make_tasks(config: Config, workdir: str | pathlib.Path) -> tuple[str, ...]:
    """Collect and write all tasks. The corpus must be prepared.

    Tasks come from three sources. Each task keeps up to ``tasks.max_examples`` examples, chosen by a hash:
      - ``tasks.builtin``: made from held-out text. The built-in corpus has the tasks of :mod:`task_makers`. The user's
        domains have ``continue:‹domain›`` (the next paragraph), but only if neither of the other sources is set.
      - ``tasks.path``: the user's own.
      - ``tasks.olmes``: the paper's.

    An update keeps its parent's tasks, so that mixtures stay comparable. It adds tasks of ``tasks.path`` and
    ``tasks.olmes`` that the parent does not have.

    Returns:
      The names, sorted.

    Raises:
      UserError: there is no task, a name is used twice, or a task has fewer than ``MIN_EXAMPLES`` different examples.
    """
    settings = config.tasks
    sources = {}
    if config.update.parent:
        sources["update.parent"] = read_examples(config.update.parent)
    elif are_made_from_text(config):
        sources["tasks.builtin"] = _builtin_tasks(config, workdir)
    if settings.path:
        sources["tasks.path"] = task_files.read_folder(settings.path)
    if settings.olmes:
        sources["tasks.olmes"] = olmes.read_olmes(settings.olmes, settings.max_examples)
    tasks: dict[str, list[Example]] = {}
    source_of: dict[str, str] = {}
    for source, candidates in sources.items():
        for name, examples in candidates.items():
            if source_of.get(name) == "update.parent":
                continue
            if name in tasks:
                raise UserError(f"task {name} is in {source_of[name]} and in {source}; rename one of them")
            tasks[name], source_of[name] = sample(examples, settings.max_examples), source
    if not tasks:
        raise UserError("no tasks, so mixtures cannot be compared; set tasks.builtin, tasks.path or tasks.olmes")
    _check_sizes(tasks, source_of, config)
    by_document = _by_document(config, source_of)
    total = sum(map(len, tasks.values()))
    log.info("%s with %s", counted(len(tasks), "task"), counted(total, "example"))
    if by_document:
        log.info("the BPB of %s is the mean over documents (tasks.aggregate)", counted(len(by_document), "task"))
    return write_tasks(workdir, tasks, by_document)


def are_made_from_text(config: Config) -> bool:
    """Return whether tasks are made from held-out text; of the user's own text only if no others are given."""
    settings = config.tasks
    return settings.builtin and not (config.corpus.path and (settings.path or settings.olmes))


def _by_document(config: Config, source_of: dict[str, str]) -> set[str]:
    """Return the tasks whose BPB is the mean over their examples. Tasks of an update's parent stay as they were."""
    aggregate = config.tasks.aggregate
    kept = tasks_by_document(config.update.parent) if config.update.parent else set()

    def is_by_document(name: str, source: str) -> bool:
        if source == "update.parent":
            return name in kept
        return aggregate == DOCUMENT or (aggregate is None and source == "tasks.olmes")

    return {name for name, source in source_of.items() if is_by_document(name, source)}


def check_given(config: Config) -> None:
    """Raise an error if ``tasks.path`` has no valid tasks. Needs no prepared corpus.

    Raises:
      UserError: as :func:`make_tasks`.
    """
    given = task_files.read_folder(config.tasks.path)
    examples = {name: sample(rows, config.tasks.max_examples) for name, rows in given.items()}
    _check_sizes(examples, dict.fromkeys(given, "tasks.path"), config)


def _check_sizes(tasks: dict[str, list[Example]], source_of: dict[str, str], config: Config) -> None:
    """Raise a UserError if a task has too few examples."""
    small = [f"{name} ({source_of[name]}) has {len(e)}" for name, e in tasks.items() if len(e) < MIN_EXAMPLES]
    if not small:
        return
    if config.tasks.max_examples < MIN_EXAMPLES:
        raise UserError(f"config field `tasks.max_examples` must be {MIN_EXAMPLES} or more, to limit noise")
    remedies = "add examples or remove the task"
    if "tasks.builtin" in source_of.values():
        more = "add text, in documents of two paragraphs or more,"
        if limit := config.corpus.max_bytes:
            more = f"raise corpus.max_bytes (now {limit:,})"
        remedies += (
            f"; for built-in tasks, {more} or raise corpus.heldout (now {config.corpus.heldout:g}), or set "
            "tasks.builtin=False and tasks.path"
        )
    raise UserError(f"a task needs {MIN_EXAMPLES} or more different examples, but {'; '.join(small)}: {remedies}")


def _builtin_tasks(config: Config, workdir: str | pathlib.Path) -> dict[str, list[Example]]:
    names, wanted = DomainSet.read(pathlib.Path(workdir) / "domains.json").names, config.tasks.max_examples
    documents = {name: _heldout(heldout_path(workdir, name)) for name in names}
    if not config.corpus.path:
        return task_makers.make(documents, wanted)
    makers = tracked(documents.items(), "make tasks", "domains")
    return {f"continue:{name}": task_makers.continuations(texts, wanted) for name, texts in makers}


def _heldout(path: pathlib.Path) -> Iterator[str]:
    """Yield held-out documents, in their random order, until they have :data:`_ENOUGH` bytes."""
    size = 0
    try:
        with open(path, encoding="utf-8", newline="\n") as f:
            for line in f:
                text = json.loads(line)["text"]
                yield text
                size += len(line)
                if size > _ENOUGH:
                    return
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise UserError(f"{path}: not held-out text ({e}); rerun --stages=prepare") from e


def read_tasks(workdir: str | pathlib.Path, tokenizer: Tokenizer, length: int) -> TaskSet:
    """Read and encode the tasks of a workdir, sorted by name. See :func:`olmix_jax.corpus.task_set.pack`."""
    return pack(read_examples(workdir), tokenizer, length, tasks_by_document(workdir))

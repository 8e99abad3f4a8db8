"""Evaluation tasks: prompts with gold answers, scored in bits per byte (BPB) of the answers.

BPB_i = Σ_examples −ln P(answer | prompt) / (ln 2 · Σ_examples UTF-8 bytes of the answers). METHOD §1; lower is better.
"""

import dataclasses
import json
import pathlib
import re
import urllib.parse
from collections.abc import Iterator
from typing import Any

import numpy as np

from olmix_jax.config.schema import Config
from olmix_jax.corpus import olmes, task_makers
from olmix_jax.corpus.examples import Example, sample
from olmix_jax.corpus.store import file_name, heldout_path
from olmix_jax.corpus.tokenizer import Tokenizer
from olmix_jax.swarm.domains import DomainSet
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import log

# The score of a task with fewer examples is mostly noise.
MIN_EXAMPLES = 8


def read_task(path: str | pathlib.Path) -> list[Example]:
    """Read a task: UTF-8 JSONL of ``{"prompt", "answer"}``. Other fields and empty lines are ignored.

    Raises:
      UserError: the file is missing, empty or not UTF-8, or a line is not such an object. Names the file and line.
    """
    examples = []
    for number, row in _rows(path):
        prompt, answer = (_string(row, field, f"{path}, line {number}") for field in ("prompt", "answer"))
        if not answer:
            raise UserError(f"{path}, line {number}: `answer` is empty; only the answer is scored")
        examples.append(Example(prompt, answer))
    if not examples:
        raise UserError(f'{path} has no examples; write one line {{"prompt": ..., "answer": ...}} for each')
    return examples


def _rows(path: str | pathlib.Path) -> Iterator[tuple[int, Any]]:
    """Yield the non-empty lines of a JSONL file, parsed, with their numbers from 1."""
    try:
        data = pathlib.Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as e:
        raise UserError(f"{path}: cannot be read: {e.strerror}") from e
    # Not splitlines(): JSON strings may contain other line separators of Unicode.
    for number, line in enumerate(data.split(b"\n"), 1):
        try:
            text = line.decode().strip()
            if text:
                yield number, json.loads(text)
        except UnicodeDecodeError as e:
            raise UserError(f"{path}, line {number}: not UTF-8 ({e.reason}); convert the file to UTF-8") from e
        except json.JSONDecodeError as e:
            raise UserError(f"{path}, line {number}: not valid JSON: {e}") from e


def _string(row: Any, field: str, where: str) -> str:
    if not isinstance(row, dict) or field not in row:
        raise UserError(f"{where}: no field `{field}`; every line must be an object with `prompt` and `answer`")
    value = row[field]
    if not isinstance(value, str):
        raise UserError(f"{where}: `{field}` must be a string, not {type(value).__name__}")
    if re.search("[\ud800-\udfff]", value):
        raise UserError(f"{where}: `{field}` has an unpaired surrogate, which is not valid Unicode; fix the line")
    return value


def _index_path(workdir: str | pathlib.Path) -> pathlib.Path:
    return pathlib.Path(workdir) / "tasks" / "tasks.json"


def write_tasks(workdir: str | pathlib.Path, tasks: dict[str, list[Example]]) -> tuple[str, ...]:
    """Write ``tasks/‹name›.jsonl`` for each task, and last ``tasks/tasks.json`` with their names and sizes.

    Special characters in file names are percent-encoded. Files that ``tasks.json`` does not list are ignored; they are
    from an earlier run.

    Returns:
      The names, sorted. This is the order of the task columns in every table.
    """
    names = tuple(sorted(tasks))
    for name in names:
        lines = [json.dumps(dataclasses.asdict(e), ensure_ascii=False) + "\n" for e in tasks[name]]
        files.write_text(_index_path(workdir).with_name(f"{file_name(name)}.jsonl"), "".join(lines))
    files.write_json(_index_path(workdir), {"tasks": [{"name": n, "examples": len(tasks[n])} for n in names]})
    return names


def read_examples(workdir: str | pathlib.Path) -> dict[str, list[Example]]:
    """Read the tasks of a workdir, which :func:`write_tasks` wrote.

    Raises:
      UserError: a file is missing, or has another number of examples than ``tasks.json`` says.
    """
    path = _index_path(workdir)
    try:
        counts = {str(t["name"]): int(t["examples"]) for t in files.read_json(path)["tasks"]}
    except (KeyError, TypeError, ValueError) as e:
        raise UserError(f"{path}: not a list of tasks ({e!r}); rerun --stages=prepare") from e
    tasks = {}
    for name, count in counts.items():
        file = path.with_name(f"{file_name(name)}.jsonl")
        tasks[name] = read_task(file)
        if len(tasks[name]) != count:
            raise UserError(
                f"{file}: has {len(tasks[name])} examples, but {path.name} lists {count}; rerun --stages=prepare"
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
    elif settings.builtin and not (config.corpus.path and (settings.path or settings.olmes)):
        sources["tasks.builtin"] = _builtin_tasks(config, workdir)
    if settings.path:
        sources["tasks.path"] = _read_folder(settings.path)
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
    log.info("%d tasks with %d examples", len(tasks), sum(map(len, tasks.values())))
    return write_tasks(workdir, tasks)


def _check_sizes(tasks: dict[str, list[Example]], source_of: dict[str, str], config: Config) -> None:
    """Raise a UserError if a task has too few examples."""
    small = [f"{name} ({source_of[name]}) has {len(e)}" for name, e in tasks.items() if len(e) < MIN_EXAMPLES]
    if not small:
        return
    if config.tasks.max_examples < MIN_EXAMPLES:
        raise UserError(f"config field `tasks.max_examples` must be {MIN_EXAMPLES} or more, to limit noise")
    remedies = "add examples or remove the task"
    if "tasks.builtin" in source_of.values():
        remedies += (
            f"; for built-in tasks, raise corpus.max_bytes or corpus.heldout (now {config.corpus.heldout:g}), or set "
            "tasks.builtin=False and tasks.path"
        )
    raise UserError(f"a task needs {MIN_EXAMPLES} or more different examples, but {'; '.join(small)}: {remedies}")


def _builtin_tasks(config: Config, workdir: str | pathlib.Path) -> dict[str, list[Example]]:
    names = DomainSet.read(pathlib.Path(workdir) / "domains.json").names
    documents = {name: _heldout(heldout_path(workdir, name)) for name in names}
    if not config.corpus.path:
        return task_makers.make(documents, config.tasks.max_examples)
    return {f"continue:{n}": task_makers.continuations(d, config.tasks.max_examples) for n, d in documents.items()}


def _heldout(path: pathlib.Path) -> list[str]:
    return [_string(row, "text", f"{path}, line {number}") for number, row in _rows(path)]


def _read_folder(folder: str) -> dict[str, list[Example]]:
    """Read the tasks of a folder. File names may be percent-encoded, as in :func:`write_tasks`."""
    if not pathlib.Path(folder).is_dir():
        raise UserError(f"tasks.path={folder} is not a folder; it must be a folder with one ‹task›.jsonl per task")
    paths = sorted(pathlib.Path(folder).glob("*.jsonl"))
    if not paths:
        raise UserError(f"tasks.path={folder} has no .jsonl file; add a ‹task›.jsonl of prompts and answers per task")
    return {urllib.parse.unquote(path.stem): read_task(path) for path in paths}


@dataclasses.dataclass(frozen=True)
class TaskSet:
    """The E examples of all tasks as token sequences of equal length, padded with the end token.

    Attributes:
      names: the N tasks.
      tokens_EL: int32 [E, L + 1]: end token, prompt, answer, padding. Inputs are ``[:, :-1]``, targets ``[:, 1:]``.
      answer_EL: bool [E, L], whether the target belongs to the answer. Only these targets are scored.
      bytes_E: int64, UTF-8 bytes of the scored answer.
      task_E: int32, the index of the example's task in ``names``.
    """

    names: tuple[str, ...]
    tokens_EL: np.ndarray
    answer_EL: np.ndarray
    bytes_E: np.ndarray
    task_E: np.ndarray


def pack(tasks: dict[str, list[Example]], tokenizer: Tokenizer, length: int) -> TaskSet:
    """Encode tasks, in the order given, into windows of ``length`` targets.

    Prompt and answer are encoded separately, so that the answer's tokens have exactly its bytes. An example that is too
    long is cut between tokens: first the start of its prompt, until the answer has half of the window, then the end of
    its answer. Only the bytes of the remaining answer count.
    """
    if length < 2:
        raise UserError(f"config field `tasks.length` must be 2 or more, not {length}")
    examples = [(i, e) for i, rows in enumerate(tasks.values()) for e in rows]
    prompts = tokenizer.encode_many([e.prompt for _, e in examples])
    answers = tokenizer.encode_many([e.answer for _, e in examples])
    tokens_EL = np.full((len(examples), length + 1), tokenizer.end, np.int32)
    answer_EL = np.zeros((len(examples), length), bool)
    bytes_E = np.zeros(len(examples), np.int64)
    cut = np.zeros(2, int)
    for row, (prompt, answer) in enumerate(zip(prompts, answers)):
        kept_answer = answer[: max(length // 2, length - len(prompt))]
        kept_prompt = prompt[max(0, len(prompt) + len(kept_answer) - length) :]
        start = len(kept_prompt)
        tokens_EL[row, 1 : 1 + start] = kept_prompt
        tokens_EL[row, 1 + start : 1 + start + len(kept_answer)] = kept_answer
        answer_EL[row, start : start + len(kept_answer)] = True
        bytes_E[row] = tokenizer.token_bytes_V[kept_answer].sum(dtype=np.int64)
        cut += start < len(prompt), len(kept_answer) < len(answer)
    if cut.any():
        log.info(
            "tasks: to fit %d tokens (tasks.length), the start of %d of %d prompts and the end of %d answers were cut",
            *(length, cut[0], len(examples), cut[1]),
        )
    return TaskSet(tuple(tasks), tokens_EL, answer_EL, bytes_E, np.array([i for i, _ in examples], np.int32))


def read_tasks(workdir: str | pathlib.Path, tokenizer: Tokenizer, length: int) -> TaskSet:
    """Read and encode the tasks of a workdir, sorted by name. See :func:`pack`."""
    return pack(read_examples(workdir), tokenizer, length)


def bits_per_byte_N(nats_E: np.ndarray, taskset: TaskSet) -> np.ndarray:
    """Return the BPB of each task: Σ nats / (ln 2 · Σ bytes) over its examples (METHOD §1).

    Args:
      nats_E: −ln P(scored answer | prompt) of each example, summed over its tokens.

    Returns:
      float64 [N], bits per byte.

    Raises:
      ValueError: ``nats_E`` has the wrong shape or a value that is not finite, or a task has no answer bytes.
    """
    nats_E = np.asarray(nats_E, np.float64)
    if nats_E.shape != taskset.task_E.shape:
        raise ValueError(f"nats_E has shape {nats_E.shape}, but the task set has {taskset.task_E.shape} examples")
    if not np.isfinite(nats_E).all():
        raise ValueError("nats_E has values that are not finite")
    size = len(taskset.names)
    bytes_N = np.bincount(taskset.task_E, taskset.bytes_E, size)
    if not (bytes_N > 0).all():
        raise ValueError(f"task {taskset.names[int(np.argmin(bytes_N))]} has no answer bytes")
    return np.bincount(taskset.task_E, nats_E, size) / (np.log(2) * bytes_N)

"""What mixtures are judged on: tasks of prompts with gold answers, scored in bits per byte of the answers alone.

BPB_i = Σ_examples −ln P(answer | prompt) / (ln 2 · Σ_examples UTF-8 bytes of the answers). METHOD §1; lower is better.
"""

import dataclasses
import json
import pathlib
import re
import urllib.parse
from collections.abc import Iterable

import numpy as np

from olmix_jax.config.schema import Config
from olmix_jax.corpus import olmes, task_makers
from olmix_jax.corpus.store import file_name, heldout_path
from olmix_jax.corpus.task_makers import Example, sample
from olmix_jax.corpus.tokenizer import Tokenizer
from olmix_jax.swarm.domains import DomainSet
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import log

# A task with fewer examples is noise.
MIN_EXAMPLES = 8


def read_task(path: str | pathlib.Path) -> list[Example]:
    """Reads a task: JSONL of ``{"prompt", "answer"}``, UTF-8; other fields and empty lines are passed over.

    Raises:
      UserError: the file is missing, empty, not UTF-8, or a line is not such an object (file and line are named).
    """
    examples = []
    for number, row in _rows(path):
        prompt, answer = (_string(row, field, f"{path}, line {number}") for field in ("prompt", "answer"))
        if not answer:
            raise UserError(f"{path}, line {number}: `answer` is empty; there is nothing to score")
        examples.append(Example(prompt, answer))
    if not examples:
        raise UserError(f"{path} holds no example; a task is a line of {{'prompt', 'answer'}} for each")
    return examples


def _rows(path: str | pathlib.Path) -> Iterable[tuple[int, dict]]:
    """The lines of a JSONL file with their numbers, from 1."""
    try:
        data = pathlib.Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as e:
        raise UserError(f"{path}: cannot be read: {e.strerror}") from e
    # Not splitlines(): JSON strings may hold other line separators of Unicode.
    for number, line in enumerate(data.split(b"\n"), 1):
        try:
            text = line.decode().strip()
            if text:
                yield number, json.loads(text)
        except UnicodeDecodeError as e:
            raise UserError(f"{path}, line {number}: not UTF-8 ({e.reason}); convert the file to UTF-8") from e
        except json.JSONDecodeError as e:
            raise UserError(f"{path}, line {number}: not valid JSON: {e}") from e


def _string(row, field: str, where: str) -> str:
    if not isinstance(row, dict) or field not in row:
        raise UserError(f"{where}: no field `{field}`; every line is an object with `prompt` and `answer`")
    value = row[field]
    if not isinstance(value, str):
        raise UserError(f"{where}: `{field}` must be a string, not {type(value).__name__}")
    if re.search("[\ud800-\udfff]", value):
        raise UserError(f"{where}: `{field}` has half of a surrogate pair, which no UTF-8 text can hold")
    return value


def _index(workdir: str | pathlib.Path) -> pathlib.Path:
    return pathlib.Path(workdir) / "tasks" / "tasks.json"


def write_tasks(workdir: str | pathlib.Path, tasks: dict[str, list[Example]]) -> tuple[str, ...]:
    """Writes ``tasks/‹name›.jsonl`` each, special characters percent-quoted, and last ``tasks/tasks.json``, which names
    them with their numbers of examples. Tasks of an earlier run that it does not name are no tasks of this one.

    Returns:
      The names, sorted: the order of every table's columns.
    """
    names = tuple(sorted(tasks))
    for name in names:
        lines = [json.dumps(dataclasses.asdict(e), ensure_ascii=False) + "\n" for e in tasks[name]]
        files.write_text(_index(workdir).with_name(f"{file_name(name)}.jsonl"), "".join(lines))
    files.write_json(_index(workdir), {"tasks": [{"name": n, "examples": len(tasks[n])} for n in names]})
    return names


def read_written(workdir: str | pathlib.Path) -> dict[str, list[Example]]:
    """Reads what :func:`write_tasks` wrote.

    Raises:
      UserError: a file is missing or was changed in length.
    """
    path = _index(workdir)
    try:
        counts = {str(t["name"]): int(t["examples"]) for t in files.read_json(path)["tasks"]}
    except (KeyError, TypeError, ValueError) as e:
        raise UserError(f"{path}: not a list of tasks ({e!r}); run --stages=prepare again") from e
    tasks = {}
    for name, count in counts.items():
        file = path.with_name(f"{file_name(name)}.jsonl")
        tasks[name] = read_task(file)
        if len(tasks[name]) != count:
            raise UserError(
                f"{file}: {len(tasks[name])} examples where {count} were written; run --stages=prepare again"
            )
    return tasks


def make_tasks(config: Config, workdir: str | pathlib.Path) -> tuple[str, ...]:
    """Gathers and writes all tasks, after the corpus is prepared.

    Built-in ones (``tasks.builtin``) are made from held-out text: those of :mod:`task_makers` for the built-in corpus;
    for a user's own domains ``continue:‹domain›`` (the next paragraph), where no other task is given. With them the
    user's own (``tasks.path``) and the paper's (``tasks.olmes``). Each is capped at ``tasks.max_examples``, by hash of
    its content.

    After an update the tasks are its parent's, as what mixtures are judged on has not changed, and what ``tasks.path``
    and ``tasks.olmes`` have beside these.

    Returns:
      The names, sorted.

    Raises:
      UserError: no task at all, a name used twice, or a task with fewer than ``MIN_EXAMPLES`` different examples.
    """
    settings = config.tasks
    sources = {}
    if config.update.parent:
        sources["update.parent"] = read_written(config.update.parent)
    elif settings.builtin and not (config.corpus.path and (settings.path or settings.olmes)):
        sources["tasks.builtin"] = _builtin(config, workdir)
    if settings.path:
        sources["tasks.path"] = _own(settings.path)
    if settings.olmes:
        sources["tasks.olmes"] = olmes.read_olmes(settings.olmes, settings.max_examples)
    tasks, origin = {}, {}
    for source, found in sources.items():
        for name, examples in found.items():
            if origin.get(name) == "update.parent":
                continue
            if name in tasks:
                raise UserError(f"task {name} is in {origin[name]} and in {source}; rename one of them")
            tasks[name], origin[name] = sample(examples, settings.max_examples), source
    if not tasks:
        raise UserError("no tasks, so nothing to judge a mixture on; set tasks.builtin, tasks.path or tasks.olmes")
    _check_sizes(tasks, origin, config)
    log.info("tasks: %d, with %d examples", len(tasks), sum(map(len, tasks.values())))
    return write_tasks(workdir, tasks)


def _check_sizes(tasks: dict[str, list[Example]], origin: dict[str, str], config: Config) -> None:
    small = [f"{n} (of {origin[n]}) has {len(e)}" for n, e in tasks.items() if len(e) < MIN_EXAMPLES]
    if not small:
        return
    if config.tasks.max_examples < MIN_EXAMPLES:
        raise UserError(f"config field `tasks.max_examples` must be {MIN_EXAMPLES} or more; fewer examples are noise")
    ways = "Add examples, or remove the task"
    if "tasks.builtin" in origin.values():
        ways += (
            "; for built-in ones raise corpus.max_bytes or corpus.heldout"
            f" (now {config.corpus.heldout:g}), or set tasks.builtin=False and give tasks.path"
        )
    raise UserError(f"too few different examples ({MIN_EXAMPLES} is the least): {'; '.join(small)}. {ways}")


def _builtin(config: Config, workdir: str | pathlib.Path) -> dict[str, list[Example]]:
    names = DomainSet.read(pathlib.Path(workdir) / "domains.json").names
    documents = {name: _heldout(heldout_path(workdir, name)) for name in names}
    if not config.corpus.path:
        return task_makers.make(documents, config.tasks.max_examples)
    return {f"continue:{n}": task_makers.continuations(d, config.tasks.max_examples) for n, d in documents.items()}


def _heldout(path: pathlib.Path) -> list[str]:
    return [_string(row, "text", f"{path}, line {number}") for number, row in _rows(path)]


def _own(folder: str) -> dict[str, list[Example]]:
    """A folder's tasks; their file names may be percent-quoted, as ours are."""
    if not pathlib.Path(folder).is_dir():
        raise UserError(f"tasks.path={folder} is no folder; it must hold one ‹task›.jsonl per task")
    found = sorted(pathlib.Path(folder).glob("*.jsonl"))
    if not found:
        raise UserError(f"tasks.path={folder} holds no .jsonl file; a task is a ‹task›.jsonl of prompt and answer")
    return {urllib.parse.unquote(path.stem): read_task(path) for path in found}


@dataclasses.dataclass(frozen=True)
class TaskSet:
    """All examples of all tasks as token sequences of one length, padded with the end token.

    Attributes:
      names: the N tasks.
      tokens_EL: int32 [E, L + 1]: end token, prompt, answer, padding. Inputs are ``[:, :-1]``, targets ``[:, 1:]``.
      answer_EL: bool [E, L]: whether the target is of the answer, and so scored.
      bytes_E: int64, UTF-8 bytes of the scored answer.
      task_E: int32, the index into ``names``.
    """

    names: tuple[str, ...]
    tokens_EL: np.ndarray
    answer_EL: np.ndarray
    bytes_E: np.ndarray
    task_E: np.ndarray


def pack(tasks: dict[str, list[Example]], tokenizer: Tokenizer, length: int) -> TaskSet:
    """Encodes tasks, in the order given, into windows of ``length`` targets.

    Prompt and answer are encoded apart, so that the answer's tokens hold its bytes exactly. What is too long loses the
    beginning of its prompt, down to half of the window, then the end of its answer, at a token's border and with the
    bytes counted of what is left.
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
        text = "tasks: to fit %d tokens (tasks.length), %d of %d prompts lost their beginning and %d answers their end"
        log.info(text, length, cut[0], len(examples), cut[1])
    return TaskSet(tuple(tasks), tokens_EL, answer_EL, bytes_E, np.array([i for i, _ in examples], np.int32))


def read_tasks(workdir: str | pathlib.Path, tokenizer: Tokenizer, length: int) -> TaskSet:
    """:func:`pack` of what :func:`make_tasks` wrote, tasks in the order of their sorted names."""
    return pack(read_written(workdir), tokenizer, length)


def bits_per_byte_N(nats_E: np.ndarray, taskset: TaskSet) -> np.ndarray:
    """BPB of each task: Σ nats / (ln 2 · Σ bytes) over its examples (METHOD §1).

    Args:
      nats_E: −ln P(scored answer | prompt) of each example, summed over its tokens.

    Returns:
      float64 [N], bits per byte.

    Raises:
      ValueError: a value is not finite, the shape is another, or a task has no bytes: there is no BPB then.
    """
    nats_E = np.asarray(nats_E, np.float64)
    if nats_E.shape != taskset.task_E.shape:
        raise ValueError(f"nats of {nats_E.shape} examples for {taskset.task_E.shape} in the task set")
    if not np.isfinite(nats_E).all():
        raise ValueError("nats that are not finite have no bits per byte")
    size = len(taskset.names)
    bytes_N = np.bincount(taskset.task_E, taskset.bytes_E, size)
    if not (bytes_N > 0).all():
        raise ValueError(f"no answer bytes in task {taskset.names[int(np.argmin(bytes_N))]}")
    return np.bincount(taskset.task_E, nats_E, size) / (np.log(2) * bytes_N)

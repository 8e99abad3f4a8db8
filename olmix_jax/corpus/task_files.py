"""Read tasks from JSON-lines files of prompts and answers, one file per task."""

import json
import pathlib
import urllib.parse
from collections.abc import Iterator
from typing import Any

from olmix_jax.corpus import domain_names
from olmix_jax.corpus.examples import Example
from olmix_jax.corpus.file_types import JSON_LINES, Kind, kind_of, refuse_unread, split_name
from olmix_jax.corpus.text_streams import blocks
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.folders import shown, walk


def read_folder(folder: str) -> dict[str, list[Example]]:
    """Read the tasks of a folder: each ``‹task›.jsonl``, which may be compressed. Names may be percent-encoded.

    Raises:
      UserError: there is no task; a file may be a task but is not read; or a name or a file is not valid.
    """
    root = pathlib.Path(folder)
    if not root.is_dir():
        raise UserError(f"tasks.path={folder} is not a folder; it must be a folder with one ‹task›.jsonl per task")
    # A folder of tasks in a workdir has a list of them.
    kinds = {e.path: kind_of(e.parts) for e in walk(root) if e.path.name != "tasks.json"}
    paths = [path for path, kind in kinds.items() if kind is Kind.TEXT and split_name(path.name).suffix in JSON_LINES]
    refuse_unread([path for path, kind in kinds.items() if kind not in (Kind.NO_DATA, Kind.TEXT)], root)
    for path in kinds:
        if kinds[path] is Kind.TEXT and (path not in paths or path.parent != root):
            raise UserError(
                f"{shown(path)}: not read as a task; put a ‹task›.jsonl directly into {folder}, or move it out"
            )
    if not paths:
        raise UserError(f"tasks.path={folder} has no .jsonl file; add a ‹task›.jsonl of prompts and answers per task")
    named: dict[str, pathlib.Path] = {}
    for path in paths:
        name = urllib.parse.unquote(split_name(path.name).stem)
        if name in named:
            raise UserError(f"task {name} is in {folder} twice, as {named[name].name} and as {path.name}; rename one")
        named[name] = path
    domain_names.check_tasks(tuple(named), folder)
    return {name: read_task(path) for name, path in named.items()}


def read_task(path: str | pathlib.Path) -> list[Example]:
    """Read a task: UTF-8 JSONL of ``{"prompt", "answer"}``. Other fields and empty lines are ignored.

    Raises:
      UserError: the file is missing, empty or not UTF-8, or a line is not such an object. Names the file and line.
    """
    examples = []
    for number, row in rows(path):
        prompt, answer = (string(row, field, f"{path}, line {number}") for field in ("prompt", "answer"))
        if not answer:
            raise UserError(f"{path}, line {number}: `answer` is empty; only the answer is scored")
        examples.append(Example(prompt, answer))
    if not examples:
        raise UserError(f'{path} has no examples; write one line {{"prompt": ..., "answer": ...}} for each')
    return examples


def rows(path: str | pathlib.Path) -> Iterator[tuple[int, Any]]:
    """Yield the non-empty lines of a JSONL file, parsed, with their numbers from 1.

    Raises:
      UserError: the file cannot be read, or a line is not JSON.
    """
    data = b"".join(blocks(path)).removeprefix(b"\xef\xbb\xbf")
    # Not splitlines(): JSON strings may contain other line separators of Unicode.
    for number, line in enumerate(data.split(b"\n"), 1):
        try:
            text = line.decode().strip()
            if text:
                yield number, json.loads(text, parse_int=_integer)
        except UnicodeDecodeError as e:
            raise UserError(f"{path}, line {number}: not UTF-8 ({e.reason}); convert the file to UTF-8") from e
        except (ValueError, RecursionError) as e:
            reason = "nested too deeply" if isinstance(e, RecursionError) else e
            raise UserError(f"{path}, line {number}: not valid JSON: {reason}") from e


def _integer(digits: str) -> int | float:
    """Parse an integer, which may have more digits than Python converts."""
    return int(digits) if len(digits) < 1000 else float(digits)


def string(row: Any, field: str, where: str) -> str:
    """Return a field of a line that has to be a string.

    Raises:
      UserError: there is no such field, or it is not a string of valid Unicode.
    """
    if not isinstance(row, dict) or field not in row:
        raise UserError(f"{where}: no field `{field}`; every line must be an object with `prompt` and `answer`")
    value = row[field]
    if not isinstance(value, str):
        raise UserError(f"{where}: `{field}` must be a string, not {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as e:
        raise UserError(
            f"{where}: `{field}` has an unpaired surrogate, which is not valid Unicode; fix the line"
        ) from e
    return value

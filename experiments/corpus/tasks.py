"""Tasks of the corpus: continuations of held-out documents of every domain, and the structured tasks of code and prose.

The tasks are files, so that they stay the same while the set of domains changes.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence

from experiments.corpus import domains
from olmix_jax.corpus import task_makers
from olmix_jax.corpus.store import file_name
from olmix_jax.corpus.task_makers import TASKS, BuiltinTask
from olmix_jax.corpus.tasks import MIN_EXAMPLES
from olmix_jax.utils import files
from olmix_jax.utils.progress import log

# Examples of a task.
EXAMPLES = 128
_PYTHON = tuple(topic for topic in domains.TOPICS if topic.startswith("python:"))
_PROSE = tuple(topic for topic in domains.TOPICS if topic.startswith("docs:"))
_NUMERICAL = tuple(
    f"python:{subject}" for subject in ("astronomy", "chemistry", "mathematics", "quantum", "statistics")
)
# The domains that a structured task uses.
DOMAINS = {
    "python:function_body": _PYTHON,
    "python:docstring": _PYTHON,
    "python:signature": _PYTHON,
    "python:call_arguments": _PYTHON,
    "python:error_message": _PYTHON,
    "python:code_for_comment": _PYTHON,
    "python:numeric_expression": _NUMERICAL,
    "python:test_assertion": ("python:tests",),
    "types:stub_signature": ("python:stubs",),
    "types:stub_of_definition": _PYTHON,
    "c:prototype": ("code:c", "code:c++"),
    "docs:next_paragraph": _PROSE,
    "docs:definition": _PROSE,
    "docs:parameter": _PYTHON,
    "docs:example": (*_PROSE, *_PYTHON),
}


def write(folder: pathlib.Path, heldout: Mapping[str, Sequence[str]]) -> None:
    """Write ``‹task›.jsonl`` for every task that has enough examples. Others are logged.

    Args:
      folder: where to write.
      heldout: texts by domain.
    """
    tasks = {f"continue:{domain}": task_makers.continuations(texts, EXAMPLES) for domain, texts in heldout.items()}
    structured = {name: BuiltinTask(of, TASKS[name].make_examples) for name, of in DOMAINS.items()}
    tasks |= task_makers.make(heldout, EXAMPLES, structured)
    for name, examples in tasks.items():
        if len(set(examples)) < MIN_EXAMPLES:
            log.warning("task %s is left out, because it has %d examples", name, len(set(examples)))
            continue
        lines = (json.dumps(dataclasses.asdict(e), ensure_ascii=False) + "\n" for e in examples)
        files.write_text(folder / f"{file_name(name)}.jsonl", "".join(lines))

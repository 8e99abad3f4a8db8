"""Tasks of the corpus: continuations of held-out documents of every domain, and the structured tasks of code and prose.

The tasks are files, so that they stay the same while the set of domains changes.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence

from experiments.corpus import domains
from experiments.corpus.heldout import repeated_lines
from olmix_jax.corpus import task_makers
from olmix_jax.corpus.examples import Example, sample
from olmix_jax.corpus.store import file_name
from olmix_jax.corpus.task_makers import TASKS, BuiltinTask
from olmix_jax.corpus.tasks import MIN_EXAMPLES
from olmix_jax.utils import files
from olmix_jax.utils.progress import log

# Examples of a task, and characters of a line by which an answer is recognised in training text.
EXAMPLES, LONG = 128, 30
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


def write(folder: pathlib.Path, heldout: Mapping[str, Sequence[str]], training: Sequence[pathlib.Path]) -> None:
    """Write ``‹task›.jsonl`` for every task that has enough examples. Others are logged.

    An example is left out if training text has half of the long lines of its answer or more: models could repeat it
    from memory.

    Args:
      folder: where to write.
      heldout: texts by domain.
      training: folders of training text.
    """
    tasks = {f"continue:{domain}": task_makers.continuations(texts, 2 * EXAMPLES) for domain, texts in heldout.items()}
    structured = {name: BuiltinTask(of, TASKS[name].make_examples) for name, of in DOMAINS.items()}
    tasks |= task_makers.make(heldout, 2 * EXAMPLES, structured)
    lines = {line for examples in tasks.values() for example in examples for line in long_lines(example)}
    known = repeated_lines(training, lines)
    for name, examples in tasks.items():
        fresh = [e for e in examples if not (found := long_lines(e)) or 2 * len(found & known) < len(found)]
        if len(set(fresh)) < MIN_EXAMPLES:
            log.warning("task %s is left out, because it has %d examples", name, len(set(fresh)))
            continue
        log.info("task %s: %d of %d examples are in training text", name, len(examples) - len(fresh), len(examples))
        rows = (json.dumps(dataclasses.asdict(e), ensure_ascii=False) + "\n" for e in sample(fresh, EXAMPLES))
        files.write_text(folder / f"{file_name(name)}.jsonl", "".join(rows))


def long_lines(example: Example) -> set[str]:
    """Return the lines of an answer that are long enough to be recognised."""
    lines = (line.strip() for line in example.answer.split("\n"))
    return {line for line in lines if len(line) >= LONG}

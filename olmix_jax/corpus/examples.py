"""Examples of evaluation tasks: prompts and gold answers, and the choice among them."""

import dataclasses
import hashlib
import re
from collections.abc import Iterable

# Minimum and maximum size of an answer [UTF-8 bytes]. Shorter answers measure little; longer ones do not fit into a
# proxy's window.
ANSWER = (10, 400)
# Minimum size of a paragraph that is used as an answer [bytes].
PARAGRAPH = 40
# Maximum size of a prompt, and of the shorter prompts of some tasks [bytes].
PROMPT, CONTEXT = 800, 400
# Examples taken from one document. More are taken only if a task would otherwise have too few.
PER_SOURCE = 2


@dataclasses.dataclass(frozen=True)
class Example:
    """A prompt and its gold answer. Only the answer is scored: P(answer | prompt)."""

    prompt: str
    answer: str


def sample(examples: Iterable[Example], most: int) -> list[Example]:
    """Return up to ``most`` different examples, chosen and ordered by a hash of their content."""
    return sorted(set(examples), key=_hash)[:most]


def spread(by_source: list[list[Example]], wanted: int) -> list[Example]:
    """Return examples from as many sources as possible: ``wanted`` or more, or all if there are fewer.

    Takes the first ``PER_SOURCE`` examples of every source. If those are fewer than ``wanted``, it takes the next
    example of every source as well, and so on.
    """
    depth, reachable = PER_SOURCE, min(wanted, sum(map(len, by_source)))
    while sum(min(depth, len(source)) for source in by_source) < reachable:
        depth += 1
    return list(dict.fromkeys(example for source in by_source for example in source[:depth]))


def _hash(example: Example) -> bytes:
    return hashlib.sha256(f"{example.prompt}\0{example.answer}".encode()).digest()


def select(examples: Iterable[Example], most: int) -> list[Example]:
    """Keep up to ``most`` examples whose answers have an allowed size. Cut their prompts."""
    fitting = (e for e in examples if e.answer.strip() and ANSWER[0] <= len(e.answer.encode()) <= ANSWER[1])
    return sample((Example(last_bytes(e.prompt, PROMPT), e.answer) for e in fitting), most)


def last_bytes(text: str, size: int) -> str:
    """Return the last ``size`` bytes. An incomplete first line is dropped, unless it is the only line."""
    cut = text.encode()[-size:].decode(errors="ignore")
    line = 0 if cut == text else cut.find("\n") + 1
    return cut[line:] or cut


def first_bytes(text: str, size: int) -> str:
    """Return the first ``size`` bytes. An incomplete last word is dropped, unless it is the only word."""
    cut = text.encode()[:size].decode(errors="ignore")
    return cut if cut == text else re.sub(r"\s+\S*$", "", cut) or cut

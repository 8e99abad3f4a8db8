"""The built-in corpus as a domain set that changes five times, and tasks that stay the same."""

import dataclasses
import json
import pathlib

import numpy as np

from olmix_jax.corpus import holdout, task_makers
from olmix_jax.corpus.builtin import builtin_domains
from olmix_jax.corpus.readers import Document, hash64
from olmix_jax.corpus.store import file_name
from olmix_jax.utils import files
from olmix_jax.utils.progress import log

HELDOUT = 0.3
# Topics of a built-in domain, by prefixes of its documents' names. Other documents belong to the topic `rest`.
TOPICS = {
    "code:library": {"net": ("urllib", "asyncio", "http", "email", "socket", "ssl", "ftplib", "smtplib")}
    | {"text": ("encodings", "idlelib", "lib2to3", "pprint", "json", "re", "html", "xml", "csv", "textwrap")},
    "code:numerics": {"jax": ("jax",), "numpy": ("numpy",), "optimize": ("scipy/optimize", "scipy/cluster")},
    "code:tests": {"numpy": ("numpy",), "scipy": ("scipy",)},
    "text:docstrings": {"a-d": tuple("abcdABCD_"), "e-o": tuple("efghijklmnoEFGHIJKLMNO")},
}


@dataclasses.dataclass(frozen=True)
class Step:
    """A state of the domain set: the documents of its domains, and the updates that led to it, as in an update file."""

    domains: dict[str, list[Document]]
    updates: list[dict]


def steps(max_bytes: int, examples: int) -> tuple[list[Step], dict]:
    """Return the six states, and tasks made from text that is held out of all of them.

    The updates: add headers; add stubs and the first half of the package texts; revise the package texts, adding the
    second half; remove the tests of packages other than NumPy and SciPy; partition JAX's modules into two.
    """
    train, heldout = {}, {}
    for name, documents in builtin_domains(max_bytes).items():
        sizes_D = np.array([len(d.text.encode()) for d in documents])
        chosen_D = holdout.choose(sizes_D, np.array([hash64(f"0:{d.source}") for d in documents], np.uint64), HELDOUT)
        train[name] = [d for d, is_heldout in zip(documents, chosen_D) if not is_heldout]
        heldout[name] = [d for d, is_heldout in zip(documents, chosen_D) if is_heldout]
    pool = {}
    for name, topics in TOPICS.items():
        for document in train[name]:
            topic = next((t for t, begins in topics.items() if document.source.startswith(begins)), "rest")
            pool.setdefault(f"{name}:{topic}", []).append(document)
    pool["text:reference"] = train["text:reference"]
    packages = train["text:packages"]
    jax = pool["code:numerics:jax"]
    inner = [d for d in jax if d.source.startswith("jax/_src")]
    parts = {"code:numerics:jax:inner": inner, "code:numerics:jax:outer": [d for d in jax if d not in inner]}
    states = [Step(dict(pool), [])]

    def after(update, add=None, drop=()):
        now = {k: v for k, v in states[-1].domains.items() if k not in drop}
        states.append(Step(now | (add or {}), [update]))

    after({"add": ["code:headers"]}, {"code:headers": train["code:headers"]})
    more = {"code:stubs": train["code:stubs"], "text:packages": packages[: (len(packages) + 1) // 2]}
    after({"add": [*more]}, more)
    after({"revise": ["text:packages"]}, {"text:packages": packages})
    after({"remove": ["code:tests:rest"]}, drop=("code:tests:rest",))
    after({"partition": {"code:numerics:jax": [*parts]}}, parts, drop=("code:numerics:jax",))
    texts = {name: [d.text for d in documents] for name, documents in heldout.items()}
    return states, task_makers.make(texts, examples)


def write(folder: pathlib.Path, states: list[Step], tasks: dict) -> None:
    """Write ``corpus/‹step›/‹domain›.jsonl``, ``updates/‹step›.json`` and ``tasks/‹task›.jsonl``."""
    for number, state in enumerate(states):
        for name, documents in state.domains.items():
            lines = (json.dumps({"text": d.text}) + "\n" for d in documents)
            files.write_text(folder / f"corpus/{number}/{name}.jsonl", "".join(lines))
        files.write_json(folder / f"updates/{number}.json", {"updates": state.updates})
    for name, examples in tasks.items():
        lines = (json.dumps(dataclasses.asdict(e), ensure_ascii=False) + "\n" for e in examples)
        files.write_text(folder / f"tasks/{file_name(name)}.jsonl", "".join(lines))
    sizes = [f"{len(s.domains)} domains, {sum(len(d.text) for v in s.domains.values() for d in v):,}" for s in states]
    log.info("five updates: %s characters; %d tasks", "; ".join(sizes), len(tasks))

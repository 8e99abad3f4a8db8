"""The stage that turns text into tokens: read, clean, hold out, train the tokenizer, write the stores; or that takes
the tokens that others made."""

import json
import pathlib
from collections.abc import Iterator

import numpy as np

from olmix_jax import config as configs
from olmix_jax.config.workdir import ancestors
from olmix_jax.corpus import store, token_files
from olmix_jax.corpus import tokenizer as tokenizers
from olmix_jax.corpus.builtin import builtin_domains
from olmix_jax.corpus.clean import deduplicate, split
from olmix_jax.corpus.readers import Document, content_of, hashed, read_domains
from olmix_jax.corpus.store import heldout_path, store_path, token_bytes_path, tokenizer_path
from olmix_jax.corpus.tokenizer import Tokenizer
from olmix_jax.swarm.domains import DomainSet
from olmix_jax.utils import files, rng
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import Progress, log, tracked

# Bytes of training text, all domains in their natural proportions, that the tokenizer learns its merges from.
SAMPLE = 16_000_000
# No domain is called so.
BEFORE = ""


def prepare(config: configs.Config, workdir: str | pathlib.Path) -> DomainSet:
    """Writes the tokenizer, a token store and held-out documents per domain, and last ``domains.json``.

    Same config and same text, same files. Where there is no ``domains.json``, the rest is not to be trusted.

    Returns:
      The domains with their unique training tokens and bytes.

    Raises:
      UserError: text that cannot be read, or a domain with fewer than ``corpus.min_tokens`` training tokens or less
        than one sequence.
    """
    workdir = pathlib.Path(workdir)
    record = workdir / "domains.json"
    _forget(record)
    found = token_files.domain_files(config.corpus.path) if config.corpus.path else {}
    rows = _of_tokens(config, workdir, found) if found else _of_text(config, workdir)
    _check_sizes({name: tokens for name, tokens, *_ in rows}, config)
    domains = DomainSet(*zip(*rows))
    domains.write(record)
    return domains


def _of_tokens(config: configs.Config, workdir: pathlib.Path, found: dict[str, list[str]]) -> list[tuple]:
    """Links token files, of which nothing is copied and nothing held out: name, tokens, bytes, content of each."""
    corpus, parent = config.corpus, config.update.parent
    if not corpus.tokenizer:
        path = next(iter(found.values()))[0]
        raise UserError(
            f"{path} and others are token files: give corpus.tokenizer, the tokenizer.json that they were made with"
        )
    if corpus.max_bytes:
        raise UserError(
            "config field `corpus.max_bytes` has no effect on token files; give fewer of them in corpus.path"
        )
    if not (config.tasks.path or config.tasks.olmes or parent):
        raise UserError("token files have no text to make tasks of: give tasks.path or tasks.olmes (make olmes)")
    words = Tokenizer.read(corpus.tokenizer)
    if parent and words.digest != Tokenizer.read(tokenizer_path(parent)).digest:
        raise UserError(f"corpus.tokenizer={corpus.tokenizer}: not the tokenizer of update.parent, {parent}")
    if parent and _held_out_before(pathlib.Path(parent)):
        raise UserError(
            f"update.parent={parent} held out text that its tasks are of, which cannot be found in token files to keep "
            "it from being trained on; give corpus.path the text"
        )
    _write_tokenizer(workdir, words)
    rows = []
    for name, paths in tracked(found.items(), "read", "domains"):
        shards, size, content = token_files.read(paths, words, name)
        tokens = store.link_store(store_path(workdir, name), shards, words.size)
        log.info("%-24s %7d token files, %15d tokens, %15d bytes", name, len(shards), tokens, size)
        rows.append((name, tokens, size, content))
    return rows


def _of_text(config: configs.Config, workdir: pathlib.Path) -> list[tuple]:
    """Reads, cleans and holds out text, and writes the tokens of the rest; stores that are there are kept. The same of
    each domain."""
    corpus, seed = config.corpus, rng.derive(config.seed, "corpus")
    if corpus.path:
        read, content = read_domains(corpus.path, corpus.max_bytes)
    else:
        read = builtin_domains(corpus.max_bytes)
        content = {name: content_of(documents) for name, documents in read.items()}
    parent = pathlib.Path(config.update.parent) if config.update.parent else None
    # What was held out before comes first, so that neither it nor what is near-identical is trained on.
    kept, dropped = deduplicate({BEFORE: _held_out_before(parent)} | read)
    del kept[BEFORE]
    # After an update tasks stay what they were, so nothing more is held out: text to train on stays that.
    share = corpus.heldout if parent is None else 0.0
    sides = {name: split(_shuffled(d, seed), share, seed) for name, d in kept.items()}
    train = {name: side[0] for name, side in sides.items()}
    heldout = {name: side[1] for name, side in sides.items()}
    sizes = {name: sum(len(d.text.encode()) for d in documents) for name, documents in train.items()}
    words = _tokenizer(train, config, seed)
    _write_tokenizer(workdir, words)
    tokens = {}
    with Progress("tokenize", sum(sizes.values()), "bytes") as progress:
        for name, documents in train.items():
            tokens[name] = _store(store_path(workdir, name), documents, words, progress)
            _write_heldout(heldout_path(workdir, name), heldout[name])
    for name in read:
        counts = (len(read[name]), dropped[name], len(heldout[name]), sizes[name], tokens[name])
        log.info(
            "%-24s %7d documents, %5d near-identical, %5d held out; training %11d bytes, %10d tokens", name, *counts
        )
    return [(name, tokens[name], sizes[name], content[name]) for name in read]


def _store(path: pathlib.Path, documents: list[Document], words: Tokenizer, progress: Progress) -> int:
    """Writes a domain's tokens, unless a run that was stopped did; returns how many there are."""
    made_of = files.digest([words.digest, *(d.source for d in documents), content_of(documents)])
    tokens = store.written(path, made_of)
    if tokens is None:
        ids = words.encode_stream(_texts(documents, progress))
        return store.write_store(path, ids, words.size, words.end, made_of)
    progress.advance(sum(len(d.text.encode()) for d in documents), note=f"{path.name} is there")
    return tokens


def _write_tokenizer(workdir: pathlib.Path, words: Tokenizer) -> None:
    words.write(tokenizer_path(workdir))
    with files.atomic_write(token_bytes_path(workdir), "wb") as f:
        np.save(f, words.token_bytes_V, allow_pickle=False)


def _held_out_before(parent: pathlib.Path | None) -> list[Document]:
    """What an update's parent, or what that comes from, held out; the first one's tasks are made of it."""
    found = []
    for workdir in ancestors(parent) if parent else ():
        for path in sorted((workdir / "corpus" / "heldout").glob("*.jsonl")):
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
            found += [Document(row["text"], row["source"], row["source"]) for row in rows]
    return found


def _forget(record: pathlib.Path) -> None:
    """Removes the record of an earlier run: until it is written again, the files beside it may be of two runs."""
    try:
        record.unlink(missing_ok=True)
    except OSError as e:
        raise UserError(f"cannot replace {record}: {e.strerror}; give another --workdir") from e


def _shuffled(documents: list[Document], seed: int) -> list[Document]:
    """In the order of a hash, so that neighbours in a store are no neighbours in a folder."""
    return sorted(documents, key=lambda d: (hashed(f"{seed}:order:{d.source}"), d.source))


def _tokenizer(train: dict[str, list[Document]], config: configs.Config, seed: int) -> Tokenizer:
    """The parent's after an update, whose old runs, tasks and texts are told in it; the one given; or a new one."""
    path, parent, vocabulary = config.corpus.tokenizer, config.update.parent, config.corpus.vocabulary
    if parent:
        words = Tokenizer.read(tokenizer_path(parent))
        if path and Tokenizer.read(path).digest != words.digest:
            raise UserError(f"corpus.tokenizer={path}: not the tokenizer of update.parent, {parent}; leave it out")
        return words
    if path:
        return Tokenizer.read(path)
    documents = [d for rows in train.values() for d in rows]
    share = SAMPLE / max(1, sum(len(d.text) for d in documents))
    sample = (d.text for d in documents if hashed(f"{seed}:tokenizer:{d.source}") < share * 2**64)
    result = tokenizers.train(sample, vocabulary)
    if result.size < vocabulary:
        log.info("tokenizer: %d entries; the text has no more repeated pairs for the %d asked", result.size, vocabulary)
    return result


def _texts(documents: list[Document], progress: Progress) -> Iterator[str]:
    for document in documents:
        yield document.text
        progress.advance(len(document.text.encode()), note=document.source)


def _write_heldout(path: pathlib.Path, documents: list[Document]) -> None:
    with files.atomic_write(path) as f:
        for document in documents:
            f.write(json.dumps({"text": document.text, "source": document.source}) + "\n")


def _check_sizes(tokens: dict[str, int], config: configs.Config) -> None:
    corpus, sequence = config.corpus, config.proxy.length + 1
    least, field = max((corpus.min_tokens, "corpus.min_tokens"), (sequence, "proxy.length"))
    small = [f"{name} has {count:,}" for name, count in tokens.items() if count < least]
    if not small:
        return
    ways = "add text, remove the domain" if corpus.path else "install more packages, use corpus.path"
    if corpus.max_bytes:
        ways += f", raise corpus.max_bytes (now {corpus.max_bytes:,})"
    ways += f" or lower {field}"
    raise UserError(f"too few training tokens: {'; '.join(small)}; the least is {least:,} by {field}: {ways}")

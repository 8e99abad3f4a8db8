"""The prepare stage: read, clean and split text, train the tokenizer and write token stores; or link token files."""

import json
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from olmix_jax import config as configs
from olmix_jax.config.workdir import ancestors
from olmix_jax.corpus import readers, store, token_agreement, token_files, tokenizer
from olmix_jax.corpus.builtin import builtin_domains
from olmix_jax.corpus.clean import deduplicate, split
from olmix_jax.corpus.readers import Document, content_of, hash64
from olmix_jax.corpus.store import heldout_path, store_path, token_bytes_path, tokenizer_path
from olmix_jax.corpus.tokenizer import Tokenizer
from olmix_jax.swarm.domains import DomainSet
from olmix_jax.utils import files, os_errors, rng
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import Progress, log, tracked

# The tokenizer is trained on about this many characters of training text, all domains in their natural proportions.
SAMPLE = 16_000_000
# Domain name for text that earlier runs held out. No real domain has an empty name.
EARLIER = ""


class _Domain(NamedTuple):
    """A prepared domain: its name, unique training tokens and bytes, content hash, and documents that were left out."""

    name: str
    tokens: int
    bytes: int
    content: str
    skipped: int = 0


def prepare(config: configs.Config, workdir: str | pathlib.Path) -> DomainSet:
    """Write the tokenizer, a token store and the held-out documents of each domain, and last ``domains.json``.

    The same config and text give the same files. If ``domains.json`` is missing, the other files may be incomplete.

    Returns:
      The domains with their unique training tokens and bytes.

    Raises:
      UserError: text cannot be read, or a domain has fewer training tokens than ``corpus.min_tokens`` or than a
        sequence.
    """
    workdir = pathlib.Path(workdir)
    record = workdir / "domains.json"
    _remove(record)
    paths_of = token_files.domain_files(config.corpus.path) if config.corpus.path else {}
    rows = _link_token_files(config, workdir, paths_of) if paths_of else _tokenize_text(config, workdir)
    _check_sizes({row.name: row.tokens for row in rows}, config)
    names, tokens, sizes, content, skipped = zip(*rows)
    domains = DomainSet(names, tokens, sizes, content, skipped)
    domains.write(record)
    return domains


def _link_token_files(config: configs.Config, workdir: pathlib.Path, paths_of: dict[str, list[str]]) -> list[_Domain]:
    """Record token files as stores. Nothing is copied and nothing is held out."""
    bpe = _tokenizer_of_token_files(config, next(iter(paths_of.values()))[0])
    _write_tokenizer(workdir, bpe)
    rows = []
    for name, paths in tracked(paths_of.items(), "read", "domains"):
        domain = token_files.read(paths, bpe, name)
        token_agreement.check(domain.shards, bpe, name)
        tokens = store.link_store(store_path(workdir, name), domain.shards, bpe.size)
        log.info("%-24s %7d token files, %15d tokens, %15d bytes", name, len(domain.shards), tokens, domain.bytes)
        rows.append(_Domain(name, tokens, domain.bytes, domain.content))
    return rows


def _tokenizer_of_token_files(config: configs.Config, example: str) -> Tokenizer:
    """Read the tokenizer that the token files were written with, after checking that the config suits them.

    Args:
      example: one of the token files, for errors.
    """
    corpus, parent = config.corpus, config.update.parent
    if not corpus.tokenizer:
        raise UserError(
            f"{example} is a token file: set corpus.tokenizer to the tokenizer.json that such files were written with"
        )
    if corpus.max_bytes:
        raise UserError("config field `corpus.max_bytes` has no effect on token files; list fewer files in corpus.path")
    if not (config.tasks.path or config.tasks.olmes or parent):
        raise UserError("tasks cannot be made from token files; set tasks.path, or tasks.olmes (run `make olmes`)")
    result = Tokenizer.read(corpus.tokenizer)
    if parent and result.digest != Tokenizer.read(tokenizer_path(parent)).digest:
        raise UserError(f"corpus.tokenizer={corpus.tokenizer}: differs from the tokenizer of update.parent={parent}")
    if parent and _held_out_earlier(pathlib.Path(parent)):
        raise UserError(
            f"update.parent={parent} made its tasks from held-out text, which cannot be removed from token files; set "
            "corpus.path to text"
        )
    return result


def _tokenize_text(config: configs.Config, workdir: pathlib.Path) -> list[_Domain]:
    """Read, clean and split text, and write the tokens of the training part. Stores that are up to date are kept."""
    corpus, seed = config.corpus, rng.derive(config.seed, "corpus")
    skipped = readers.Skipped()
    text = _read_text(config, skipped)
    skipped.log()
    parent = pathlib.Path(config.update.parent) if config.update.parent else None
    # Deduplication keeps the first of similar documents. With the earlier held-out text first, no copy of it is kept.
    clean = deduplicate({EARLIER: _held_out_earlier(parent)} | text.documents)
    # An update keeps its parent's tasks, so it needs no new held-out text.
    share = corpus.heldout if parent is None else 0.0
    splits = {name: split(_shuffled(clean.kept[name], seed), share, seed) for name in text.documents}
    train = {name: sides.train for name, sides in splits.items()}
    sizes = {name: sum(len(d.text.encode()) for d in documents) for name, documents in train.items()}
    bpe = _tokenizer(train, config, seed)
    _write_tokenizer(workdir, bpe)
    tokens = {}
    with Progress("tokenize", sum(sizes.values()), "bytes") as progress:
        for name, documents in train.items():
            tokens[name] = _write_store(store_path(workdir, name), documents, bpe, progress)
            _write_heldout(heldout_path(workdir, name), splits[name].heldout)
    for name, documents in text.documents.items():
        counts = (len(documents), clean.dropped[name], len(splits[name].heldout), sizes[name], tokens[name])
        log.info(
            "%-24s %7d documents, %5d near-identical, %5d held out; training %11d bytes, %10d tokens", name, *counts
        )
    return [
        _Domain(name, tokens[name], sizes[name], text.content[name], skipped.count(name)) for name in text.documents
    ]


def _read_text(config: configs.Config, skipped: readers.Skipped) -> readers.Corpus:
    """Read the user's text, or the built-in corpus."""
    corpus = config.corpus
    if corpus.path:
        return readers.read_domains(corpus.path, corpus.max_bytes, skipped if corpus.skip_bad else None)
    documents = builtin_domains(config.corpus.max_bytes)
    return readers.Corpus(documents, {name: content_of(rows) for name, rows in documents.items()})


def _write_store(path: pathlib.Path, documents: list[Document], bpe: Tokenizer, progress: Progress) -> int:
    """Write the tokens of a domain, unless an interrupted run has written them. Returns their number."""
    source = files.digest([bpe.digest, *(d.source for d in documents), content_of(documents)])
    tokens = store.tokens_if_current(path, source)
    if tokens is None:
        ids = bpe.encode_stream(_texts(documents, progress))
        return store.write_store(path, ids, bpe.size, bpe.end, source)
    progress.advance(sum(len(d.text.encode()) for d in documents), note=f"{path.name} is up to date")
    return tokens


def _write_tokenizer(workdir: pathlib.Path, bpe: Tokenizer) -> None:
    bpe.write(tokenizer_path(workdir))
    if bpe.ignored:
        log.info("tokenizer: %s of its file is not applied, so that text is kept exactly", ", ".join(bpe.ignored))
    with files.atomic_write(token_bytes_path(workdir), "wb") as f:
        np.save(f, bpe.token_bytes_V, allow_pickle=False)


def _held_out_earlier(parent: pathlib.Path | None) -> list[Document]:
    """Read the held-out documents of an update's parent and of all its ancestors. Tasks are made from them."""
    documents = []
    for workdir in ancestors(parent) if parent else ():
        for path in sorted((workdir / "corpus" / "heldout").glob("*.jsonl")):
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
            documents += [Document(row["text"], row["source"], row["source"]) for row in rows]
    return documents


def _remove(record: pathlib.Path) -> None:
    """Remove the record of an earlier run. Until it is written again, the other files may belong to different runs."""
    try:
        record.unlink(missing_ok=True)
    except OSError as e:
        raise UserError(f"cannot replace {record}: {os_errors.writing(e, record)}") from e


def _shuffled(documents: list[Document], seed: int) -> list[Document]:
    """Sort documents by a hash, so that neighbours in a folder are not neighbours in the store."""
    return sorted(documents, key=lambda d: (hash64(f"{seed}:order:{d.source}"), d.source))


def _tokenizer(train: dict[str, list[Document]], config: configs.Config, seed: int) -> Tokenizer:
    """Return the parent's tokenizer for an update, else the one of ``corpus.tokenizer``, else a newly trained one.

    An update keeps its parent's tokenizer because the earlier runs and tasks are in its tokens.
    """
    path, parent, vocabulary = config.corpus.tokenizer, config.update.parent, config.corpus.vocabulary
    if parent:
        bpe = Tokenizer.read(tokenizer_path(parent))
        if path and Tokenizer.read(path).digest != bpe.digest:
            raise UserError(
                f"corpus.tokenizer={path}: differs from the tokenizer of update.parent={parent}; leave it empty"
            )
        return bpe
    if path:
        return Tokenizer.read(path)
    documents = [d for rows in train.values() for d in rows]
    share = SAMPLE / max(1, sum(len(d.text) for d in documents))
    sample = (d.text for d in documents if hash64(f"{seed}:tokenizer:{d.source}") < share * 2**64)
    result = tokenizer.train(sample, vocabulary)
    if result.size < vocabulary:
        log.info(
            "tokenizer: %d entries of the %d requested, because the text has no more repeated pairs",
            *(result.size, vocabulary),
        )
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
    """Raise a UserError if a domain has too few training tokens."""
    corpus, sequence = config.corpus, config.proxy.length + 1
    least, field = max((corpus.min_tokens, "corpus.min_tokens"), (sequence, "proxy.length"))
    small = [f"{name} has {count:,}" for name, count in tokens.items() if count < least]
    if not small:
        return
    remedies = "add text, remove the domain" if corpus.path else "install more packages, use corpus.path"
    if corpus.max_bytes:
        remedies += f", raise corpus.max_bytes (now {corpus.max_bytes:,})"
    remedies += f" or lower {field}"
    raise UserError(f"too few training tokens: {'; '.join(small)}; {field} requires {least:,}: {remedies}")

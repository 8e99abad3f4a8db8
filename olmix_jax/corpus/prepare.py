"""The prepare stage: read, clean and split text, train the tokenizer and write token stores; or link token files."""

import contextlib
import json
import pathlib
import shutil
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from olmix_jax import config as configs
from olmix_jax.corpus import store, tasks, token_agreement, token_files, tokenizer, workers
from olmix_jax.corpus.collect import DomainText, collect, held_out_earlier
from olmix_jax.corpus.domain_folder import text_files
from olmix_jax.corpus.encoding import encode
from olmix_jax.corpus.shared_lines import SharedLines
from olmix_jax.corpus.store import heldout_path, store_path, token_bytes_path, tokenizer_path
from olmix_jax.corpus.token_repeats import TokenContents
from olmix_jax.corpus.tokenizer import Tokenizer
from olmix_jax.corpus.workers import Workers
from olmix_jax.swarm.domains import DomainSet
from olmix_jax.utils import files, os_errors, rng
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import Progress, log, tracked

# The tokenizer is trained on about this many characters of training text, all domains in their natural proportions.
SAMPLE = 16_000_000


class _Domain(NamedTuple):
    """A prepared domain: its name, unique training tokens and bytes, content hash, and documents that were left out."""

    name: str
    tokens: int
    bytes: int
    content: str
    skipped: int = 0
    # How much of its text was left out because it is in other domains.
    repeats: str = ""


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
    _check_sizes(rows, config)
    names, tokens, sizes, content, skipped, _ = zip(*rows)
    domains = DomainSet(names, tokens, sizes, content, skipped)
    domains.write(record)
    return domains


def _link_token_files(config: configs.Config, workdir: pathlib.Path, paths_of: dict[str, list[str]]) -> list[_Domain]:
    """Record token files as stores. Nothing is copied and nothing is held out."""
    bpe = _tokenizer_of_token_files(config, next(iter(paths_of.values()))[0])
    _write_tokenizer(workdir, bpe)
    rows, shards, contents, documents = [], [], TokenContents(bpe.size), SharedLines("documents", "files")
    for name, paths in tracked(paths_of.items(), "read", "domains"):
        domain = token_files.read(paths, bpe, name, documents)
        contents.add(domain.shards)
        shards += domain.shards
        token_agreement.check(domain.shards, bpe, name)
        tokens = store.link_store(store_path(workdir, name), domain.shards, bpe.size)
        log.info("%-24s %7d token files, %15d tokens, %15d bytes", name, len(domain.shards), tokens, domain.bytes)
        rows.append(_Domain(name, tokens, domain.bytes, domain.content))
    token_agreement.warn_of_cut_documents(shards, bpe)
    documents.check({}, {})
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
    if corpus.skip_bad:
        raise UserError("config field `corpus.skip_bad` has no effect on token files; set it to False")
    if not (config.tasks.path or config.tasks.olmes or parent):
        raise UserError("tasks cannot be made from token files; set tasks.path, or tasks.olmes (run `make olmes`)")
    result = Tokenizer.read(corpus.tokenizer)
    if parent and result.digest != Tokenizer.read(tokenizer_path(parent)).digest:
        raise UserError(f"corpus.tokenizer={corpus.tokenizer}: differs from the tokenizer of update.parent={parent}")
    if next(held_out_earlier(parent), None) is not None:
        raise UserError(
            f"update.parent={parent} made its tasks from held-out text, which cannot be removed from token files; set "
            "corpus.path to text"
        )
    return result


def _tokenize_text(config: configs.Config, workdir: pathlib.Path) -> list[_Domain]:
    """Read, clean and split text, and write the tokens of the training part. Stores that are up to date are kept."""
    seed = rng.derive(config.seed, "corpus")
    # Its processes start while this one reads.
    pool = workers.for_size(_text_size(config.corpus))
    with _scratch(workdir / "corpus" / ".scratch") as folder, pool as several:
        domains = collect(config, folder, seed, _heldout_share(config), several)
        bpe = _tokenizer(domains, config)
        _write_tokenizer(workdir, bpe)
        tokens = []
        with Progress("tokenize", sum(domain.bytes for domain in domains), "bytes") as progress:
            for domain in domains:
                tokens.append(_write_store(store_path(workdir, domain.name), domain, bpe, several, progress))
        with Progress("hold out", sum(len(domain.heldout) for domain in domains), "documents") as progress:
            for domain in domains:
                _write_heldout(heldout_path(workdir, domain.name), domain, progress)
    for domain, count in zip(domains, tokens):
        dropped = domain.repeats.documents - domain.repeats.kept
        counts = (domain.repeats.documents, dropped, len(domain.heldout), domain.bytes, count)
        log.info(
            "%-24s %7d documents, %5d near-identical, %5d held out; training %11d bytes, %10d tokens",
            *(domain.name, *counts),
        )
    return [_Domain(d.name, n, d.bytes, d.spool.content, d.skipped, d.repeats.summary) for d, n in zip(domains, tokens)]


@contextlib.contextmanager
def _scratch(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Make an empty folder and remove it at the end."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
        yield folder
    except OSError as e:
        raise UserError(f"cannot write in {folder}: {os_errors.writing(e, folder)}") from e
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _heldout_share(config: configs.Config) -> float:
    """Return the share to hold out: 0 if no task is made from held-out text.

    An update keeps its parent's tasks, so it needs no new held-out text.
    """
    return config.corpus.heldout if not config.update.parent and tasks.are_made_from_text(config) else 0.0


def _text_size(corpus: configs.Corpus) -> int:
    """Return about how many bytes of text are used. Files may be compressed; the built-in corpus is small."""
    if not corpus.path:
        return 0
    paths_of = text_files(pathlib.Path(corpus.path), quiet=True)
    size = sum(path.stat().st_size for paths in paths_of.values() for path in paths)
    return min(size, corpus.max_bytes or size)


def _write_store(
    path: pathlib.Path, domain: DomainText, bpe: Tokenizer, several: Workers | None, progress: Progress
) -> int:
    """Write the tokens of a domain, unless an interrupted run has written them. Returns their number."""
    source = files.digest([bpe.digest, domain.spool.digest(domain.train)])
    tokens = store.tokens_if_current(path, source)
    if tokens is None:
        ids = encode(bpe, _texts(domain, progress), several)
        return store.write_store(path, ids, bpe.size, bpe.end, source)
    progress.advance(domain.bytes, note=f"{path.name} is up to date")
    return tokens


def _write_tokenizer(workdir: pathlib.Path, bpe: Tokenizer) -> None:
    bpe.write(tokenizer_path(workdir))
    if bpe.ignored:
        log.info("tokenizer: %s of its file is not applied, so that text is kept exactly", ", ".join(bpe.ignored))
    with files.atomic_write(token_bytes_path(workdir), "wb") as f:
        np.save(f, bpe.token_bytes_V, allow_pickle=False)


def _remove(record: pathlib.Path) -> None:
    """Remove the record of an earlier run. Until it is written again, the other files may belong to different runs."""
    try:
        record.unlink(missing_ok=True)
    except OSError as e:
        raise UserError(f"cannot replace {record}: {os_errors.writing(e, record)}") from e


def _tokenizer(domains: list[DomainText], config: configs.Config) -> Tokenizer:
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
    result = tokenizer.train(_sample(domains), vocabulary)
    if result.size < vocabulary:
        log.info(
            "tokenizer: %d entries of the %d requested, because the text has no more repeated pairs",
            *(result.size, vocabulary),
        )
    return result


def _sample(domains: list[DomainText]) -> Iterator[str]:
    """Yield the training documents that the tokenizer is trained on, chosen by a hash of their names."""
    characters = sum(int(domain.train["characters"].sum(dtype=np.int64)) for domain in domains)
    share = SAMPLE / max(1, characters)
    rows_of = [
        domain.train if share >= 1 else domain.train[domain.train["sample"] < np.uint64(share * 2**64)]
        for domain in domains
    ]
    with Progress(
        "train tokenizer", sum(int(rows["size"].sum(dtype=np.int64)) for rows in rows_of), "bytes"
    ) as progress:
        for domain, rows in zip(domains, rows_of):
            for stored in domain.spool.read(rows):
                yield stored.text.decode()
                progress.advance(len(stored.text), note=stored.name)


def _texts(domain: DomainText, progress: Progress) -> Iterator[str]:
    for stored in domain.spool.read(domain.train):
        yield stored.text.decode()
        progress.advance(len(stored.text), note=stored.name)


def _write_heldout(path: pathlib.Path, domain: DomainText, progress: Progress) -> None:
    with files.atomic_write(path) as f:
        for stored in domain.spool.read(domain.heldout):
            f.write(json.dumps({"text": stored.text.decode(), "source": stored.name}) + "\n")
            progress.advance(note=stored.name)


def _check_sizes(domains: list[_Domain], config: configs.Config) -> None:
    """Raise a UserError if a domain has too few training tokens."""
    corpus, sequence = config.corpus, config.proxy.length + 1
    least, field = max((corpus.min_tokens, "corpus.min_tokens"), (sequence, "proxy.length"))
    small = [f"{d.name} has {d.tokens:,}{d.repeats}" for d in domains if d.tokens < least]
    if not small:
        return
    remedies = "add text, remove the domain" if corpus.path else "install more packages, use corpus.path"
    if corpus.max_bytes:
        remedies += f", raise corpus.max_bytes (now {corpus.max_bytes:,})"
    remedies += f" or lower {field}"
    raise UserError(f"too few training tokens: {'; '.join(small)}; {field} requires {least:,}: {remedies}")

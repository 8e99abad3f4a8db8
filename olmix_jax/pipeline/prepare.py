"""The stage ``prepare``: turn text into token stores and tasks."""

import pathlib

from olmix_jax.config import workdir as workdirs
from olmix_jax.config.schema import Config
from olmix_jax.corpus import mapped_store, prepare, store, tasks, tokenizer, vocabulary
from olmix_jax.corpus.tokenizer import Tokenizer
from olmix_jax.utils.errors import UserError


def run(config: Config, workdir: pathlib.Path) -> None:
    """Write a token store per domain, ``domains.json`` and the tasks."""
    _check_inputs(config)
    prepare.prepare(config, workdir)
    if config.proxy.vocabulary is not None:
        mapped_store.write(workdir, workdirs.read_domains(workdir).names, config.proxy.vocabulary)
    tasks.make_tasks(config, workdir)
    # Warns if much is cut, before models are trained on it.
    tasks.read_tasks(workdir, mapped_store.read_tokenizer(config, workdir), config.tasks.length)


def _check_inputs(config: Config) -> None:
    """Raise an error for a tokenizer or tasks that cannot be used, before text is read."""
    bpe = Tokenizer.read(config.corpus.tokenizer) if config.corpus.tokenizer else None
    if bpe is None and config.update.parent:
        bpe = Tokenizer.read(store.tokenizer_path(config.update.parent))
    elif bpe is None:
        tokenizer.check_size(config.corpus.vocabulary)
    vocabulary.size(config.proxy.vocabulary, bpe, config.corpus.vocabulary)
    if config.tasks.path:
        tasks.check_given(config)
    if not config.corpus.heldout and not config.update.parent and tasks.are_made_from_text(config):
        raise UserError("corpus.heldout is 0, but tasks are made from held-out text; raise it, or set tasks.path")

"""The stage ``prepare``: turn text into token stores and tasks."""

import pathlib

from olmix_jax.config.schema import Config
from olmix_jax.corpus import domain_names, prepare, store, tasks
from olmix_jax.corpus.tokenizer import Tokenizer


def run(config: Config, workdir: pathlib.Path) -> None:
    """Write a token store per domain, ``domains.json`` and the tasks."""
    domain_names.check(domain_names.list_names(config.corpus), config.corpus.path)
    prepare.prepare(config, workdir)
    tasks.make_tasks(config, workdir)
    # Warns if much is cut, before models are trained on it.
    tasks.read_tasks(workdir, Tokenizer.read(store.tokenizer_path(workdir)), config.tasks.length)

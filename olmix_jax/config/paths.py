"""Settings that hold paths: ``~`` becomes the home folder, and URLs are refused where only local files are read."""

import dataclasses
import pathlib
from typing import Any

from olmix_jax.config.schema import Config
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError

# Fields with the path of a local file or folder. Some of them may hold JSON text instead, and ``corpus.path`` a URL.
LOCAL = (
    "olmix_yaml corpus.tokenizer tasks.path tasks.olmes swarm.trunk_mixture swarm.trunk_from swarm.ratios "
    "swarm.metrics swarm.meta swarm.tokens swarm.test_ratios swarm.test_metrics fit.families propose.task_weights "
    "propose.bounds propose.anchor propose.keep_ratios rounds.metrics update.parent update.file"
).split()

# Inputs of ``prepare``, and the folders of a workdir that it replaces.
PREPARED_FROM = ("corpus.path", "corpus.tokenizer", "tasks.path", "tasks.olmes")
PREPARED = ("corpus", "tasks")


def expanded(config: Config) -> Config:
    """Return the config with all paths of local files expanded.

    Raises:
      UserError: a field holds a URL.
    """
    for name in ("corpus.path", *LOCAL):
        section, _, field = name.rpartition(".")
        part: Any = getattr(config, section) if section else config
        text = getattr(part, field)
        # Token files may be given by URL.
        if text and not text.lstrip().startswith("{") and not (name == "corpus.path" and "://" in text):
            path = str(files.local_path(text, f"config field `{name}`"))
            part = dataclasses.replace(part, **{field: path})
            config = dataclasses.replace(config, **{section: part}) if section else part
    return config


def check_workdir(config: Config, workdir: pathlib.Path) -> None:
    """Raise an error if text or tasks lie in a folder that the run replaces, or if the workdir lies among them.

    Raises:
      UserError: names the field and the folder.
    """
    results = workdir.resolve()
    for name in PREPARED_FROM:
        section, _, field = name.partition(".")
        text = getattr(getattr(config, section), field)
        if not text or text.lstrip().startswith("{") or "://" in text:
            continue
        path = pathlib.Path(text).resolve()
        replaced = [folder for folder in PREPARED if path.is_relative_to(results / folder)]
        if replaced:
            raise UserError(
                f"config field `{name}`: {text} lies in {workdir / replaced[0]}, which the run replaces by its own "
                "files; give another --workdir, or move these files"
            )
        if results.is_relative_to(path):
            raise UserError(
                f"--workdir={workdir} lies in {text} (config field `{name}`), so its files would be read as input; "
                "give a --workdir outside"
            )

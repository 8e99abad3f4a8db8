"""Settings that hold paths: ``~`` becomes the home folder, and URLs are refused where only local files are read."""

import dataclasses
from typing import Any

from olmix_jax.config.schema import Config
from olmix_jax.utils import files

# Fields with the path of a local file or folder. Some of them may hold JSON text instead.
LOCAL = (
    "olmix_yaml corpus.tokenizer tasks.path tasks.olmes swarm.ratios swarm.metrics swarm.meta swarm.test_ratios "
    "swarm.test_metrics fit.families propose.task_weights propose.bounds propose.anchor propose.keep_ratios "
    "update.parent update.file"
).split()


def expanded(config: Config) -> Config:
    """Return the config with all paths of local files expanded.

    Raises:
      UserError: a field holds a URL.
    """
    for name in LOCAL:
        section, _, field = name.rpartition(".")
        part: Any = getattr(config, section) if section else config
        text = getattr(part, field)
        if text and not text.lstrip().startswith("{"):
            path = str(files.local_path(text, f"config field `{name}`"))
            part = dataclasses.replace(part, **{field: path})
            config = dataclasses.replace(config, **{section: part}) if section else part
    return config

"""The stage ``update``: decide what a changed domain set keeps of its parent's mixture."""

import functools
import pathlib

from olmix_jax.config import workdir as workdirs
from olmix_jax.config import yaml_files
from olmix_jax.config.schema import Config
from olmix_jax.corpus import similarity
from olmix_jax.update import changes_file, decide


def run(config: Config, workdir: pathlib.Path) -> None:
    """Write ``update/plan.json``."""
    file = config.update.file
    steps = changes_file.parse(file, yaml_files.read(file, names=True)) if file else None
    similar = functools.partial(similarity.match_probabilities, workdir)
    decide.decide(config, workdir, steps, similar).write(workdir / workdirs.UPDATE_PLAN)

"""A changed domain set: from a finished workdir to a new mixture, with as few runs as that takes.

    python run.py --config=configs/update.py:runs/quickstart --workdir=runs/next --stages=update \
        --config.update.file=changes.yaml --config.corpus.path=new_text

After the colon stands the finished workdir, whose settings this config begins with; any other config does as well, with
--config.update.parent=runs/quickstart. `changes.yaml` says what changed (olmix_jax/config/changes_file.py); without
it that is
found out from domains' names and content. `corpus.path` is a folder with all domains of the new set.
"""

import pathlib

from configs import own
from olmix_jax import config
from olmix_jax.utils import files


def get_config(variant: str = ""):
    """The settings of the workdir ``variant`` for an update of it; without, those of one's own text, or its `smoke`."""
    if variant in ("", "smoke"):
        return own.get_config(variant)
    c, settings = config.default(), files.read_json(pathlib.Path(variant) / "config.json")
    for section, values in settings.items():
        for name, value in values.items() if isinstance(values, dict) else ():
            if value is not None:
                c[section][name] = tuple(value) if isinstance(value, list) else value
    c.seed = settings["seed"]
    c["update"] = config.default()["update"]
    c.update.parent = variant
    # Of a swarm that was trained elsewhere: its tables are the parent's, not those of the new set.
    c.swarm.ratios = c.swarm.metrics = c.swarm.meta = c.swarm.test_ratios = c.swarm.test_metrics = ""
    return c

"""A changed domain set: from a finished workdir to a new mixture, with only the runs that are needed.

    python run.py --config=configs/update.py:runs/quickstart --workdir=runs/next --stages=update \
        --config.update.file=changes.yaml --config.corpus.path=new_text

The variant after the colon is the finished workdir; its settings are the defaults of this config. Any other config with
--config.update.parent=runs/quickstart works too. `changes.yaml` lists the changes (olmix_jax/update/changes_file.py has
the format); without it they are detected from the names and content of the domains. `corpus.path` is a folder with all
domains of the new set.
"""

import pathlib

from configs import own
from olmix_jax import config
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError


def get_config(variant: str = ""):
    """Return the settings of the workdir ``variant``; for an empty variant or `smoke`, those of configs/own.py."""
    if variant in ("", "smoke"):
        return own.get_config(variant)
    path = pathlib.Path(variant) / "config.json"
    if not path.is_file():
        raise UserError(
            f"--config=configs/update.py:{variant}: {variant} is not the workdir of a run; it has no config.json"
        )
    c, settings = config.default(), files.read_json(path)
    for section, values in settings.items():
        for name, value in values.items() if isinstance(values, dict) else ():
            if value is not None:
                c[section][name] = tuple(value) if isinstance(value, list) else value
    c.seed = settings["seed"]
    c["update"] = config.default()["update"]
    c.update.parent = variant
    # Tables of an external parent belong to the old domain set.
    for name in ("ratios", "metrics", "meta", "tokens", "test_ratios", "test_metrics"):
        c.swarm[name] = ""
    return c

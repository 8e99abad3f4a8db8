"""Every setting, where files of a workdir are, and how configs and YAML files are read."""

from olmix_jax.config.build import field_names, from_dict, unknown_field
from olmix_jax.config.schema import (
    Config,
    Corpus,
    Fit,
    Plan,
    Propose,
    Proxy,
    Swarm,
    Tasks,
    Track,
    Train,
    Update,
    Validate,
)

__all__ = [
    "Config",
    "Corpus",
    "Fit",
    "Plan",
    "Propose",
    "Proxy",
    "Swarm",
    "Tasks",
    "Track",
    "Train",
    "Update",
    "Validate",
    "default",
    "field_names",
    "from_dict",
    "unknown_field",
]


def default():
    """The defaults as an ml-collections ``ConfigDict``, to be changed by a file in ``configs/`` and by flags."""
    from olmix_jax.config import flags  # ml_collections is for configs alone

    return flags.default()

"""Settings: the schema, reading and checking configs, and the files of a workdir."""

from olmix_jax.config.build import field_names, from_dict, optional, unknown_field, with_none
from olmix_jax.config.schema import (
    Config,
    Corpus,
    Fit,
    Plan,
    Propose,
    Proxy,
    Rounds,
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
    "Rounds",
    "Swarm",
    "Tasks",
    "Track",
    "Train",
    "Update",
    "Validate",
    "default",
    "field_names",
    "from_dict",
    "optional",
    "unknown_field",
    "with_none",
]


def default():
    """Return the defaults as an ml-collections ``ConfigDict``, for files in ``configs/`` and flags to change."""
    from olmix_jax.config import flags  # here, so that the library does not load ml_collections

    return flags.default()

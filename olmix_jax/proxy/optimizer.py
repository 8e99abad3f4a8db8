"""AdamW with a linear warm-up and a decay that ends with the run: a cosine, or linear for the branches of a trunk."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from olmix_jax.config.schema import Train


def learning_rate(train: Train, parameters: int) -> float:
    """Return the peak learning rate: the config's, or 0.0047 · (N / 108M)^(−1/3).

    N is the number of parameters without the input embedding. METHOD §4; for the 30M preset, N = 29.1M:
    0.0047 · 0.2695^(−1/3) = 0.00728.
    """
    return train.lr if train.lr is not None else 0.0047 * (parameters / 108e6) ** (-1 / 3)


def warmup_share(train: Train, parameters: int) -> float:
    """Return the share of the steps with warm-up: the config's, or N / (4096 · batch) steps, at most a tenth.

    N is the number of all parameters (METHOD §4). For the 30M preset, N = 54.8M: 209 of 22,203 steps.
    """
    return train.warmup if train.warmup is not None else min(parameters / (4096 * train.batch) / train.steps, 0.1)


def warmup_steps(train: Train, parameters: int = 0) -> int:
    """Return the number of steps with warm-up, at least one. ``parameters`` is that of :func:`warmup_share`."""
    return max(1, round(warmup_share(train, parameters) * train.steps))


def schedule(train: Train, peak: float, parameters: int = 0, decay: int | None = None) -> optax.Schedule:
    """Return the function step → learning rate: linear over the warm-up, then a cosine to `lr_end` · peak.

    With ``decay``, the rate is constant after the warm-up and falls linearly to 0 over the last ``decay`` of T steps:

      rate(t) = peak · min((1 + t) / (1 + warm-up), 1, (T − t) / decay)

    The steps of a trunk have ``decay`` = 0, so they do not depend on T, and runs of any length can continue from them.
    """
    warmup = warmup_steps(train, parameters)
    if decay is not None:

        def rate(step):
            constant = peak * jnp.minimum((1 + step) / (1 + warmup), 1)
            return constant if decay == 0 else jnp.minimum(constant, peak * (train.steps - step) / decay)

        return rate
    # optax counts `decay_steps` from 0 and includes the warm-up; the last step taken is steps - 1.
    return optax.warmup_cosine_decay_schedule(
        init_value=peak / (warmup + 1),
        peak_value=peak,
        warmup_steps=warmup,
        decay_steps=max(train.steps - 1, warmup + 1),
        end_value=train.lr_end * peak,
    )


def _decay_mask(params) -> Any:
    """Return True for the leaves that weight decay applies to: matrices, not embeddings or norms (METHOD §4)."""

    def is_kernel(path, leaf):
        return path[-1].key == "kernel"

    return jax.tree_util.tree_map_with_path(is_kernel, params)


def optimizer(train: Train, parameters: int, decay: int | None = None) -> optax.GradientTransformation:
    """Return the update: clipping by the global gradient norm, then AdamW. ``decay`` is that of :func:`schedule`."""
    return optax.chain(
        optax.clip_by_global_norm(train.clip),
        optax.adamw(
            schedule(train, learning_rate(train, parameters), parameters, decay),
            b1=train.beta1,
            b2=train.beta2,
            weight_decay=train.weight_decay,
            mask=_decay_mask,
        ),
    )

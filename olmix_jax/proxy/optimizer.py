"""AdamW with warm-up and a cosine that ends at the run's last step."""

import jax
import optax

from olmix_jax.config.schema import Train


def learning_rate(train: Train, parameters: int) -> float:
    """Peak learning rate: the config's, or 0.0047 · (N / 108M)^(−1/3) for N parameters without the input embedding.

    METHOD §4: 30M preset, N = 29.1M: 0.0047 · 0.2695^(−1/3) = 0.00728.
    """
    return train.lr if train.lr is not None else 0.0047 * (parameters / 108e6) ** (-1 / 3)


def schedule(train: Train, peak: float):
    """Step → learning rate: linear over `warmup` · steps, one at least; then a cosine to `lr_end` · peak."""
    warmup = max(1, round(train.warmup * train.steps))
    # optax counts `decay_steps` from 0 with the warm-up inside; the last step taken is steps - 1.
    return optax.warmup_cosine_decay_schedule(
        init_value=peak / (warmup + 1),
        peak_value=peak,
        warmup_steps=warmup,
        decay_steps=max(train.steps - 1, warmup + 1),
        end_value=train.lr_end * peak,
    )


def _decayed(params):
    """Weight decay is for matrices; embeddings and norms go without (METHOD §4)."""

    def is_kernel(path, leaf):
        return path[-1].key == "kernel"

    return jax.tree_util.tree_map_with_path(is_kernel, params)


def optimizer(train: Train, parameters: int) -> optax.GradientTransformation:
    """Clip by global norm, then AdamW."""
    return optax.chain(
        optax.clip_by_global_norm(train.clip),
        optax.adamw(
            schedule(train, learning_rate(train, parameters)),
            b1=train.beta1,
            b2=train.beta2,
            weight_decay=train.weight_decay,
            mask=_decayed,
        ),
    )

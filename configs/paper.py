"""The paper's proxies on your own text: 30M parameters, 2.9B tokens each, for accelerators (METHOD §4).

    python run.py --config=configs/paper.py --workdir=runs/dry --stages=plan --config.swarm.size=512 \\
        --config.plan.topology=v5e:16x16
    python run.py --config=configs/paper.py:60M --workdir=runs/paper --config.corpus.path=TEXT

The variant after the colon is a preset, which brings its trainer (olmix_jax/config/presets.py). All presets except `1B`
train on 2.9B tokens. `1B` is the target run, with its own batch, length, learning rate and tokens. `smoke` runs the
same stages at the smallest scale. The stage `plan` estimates what the swarm needs on a TPU topology; it needs no TPU
(requirements-tpu.txt).
"""

from olmix_jax import config
from olmix_jax.config import presets

PRESETS = tuple(name for name in presets.TRAINERS if name != "tiny")


def get_config(variant: str = "30M"):
    """Return the paper's training set-up for a preset, or `smoke`."""
    if variant not in ("", "smoke", *PRESETS):
        raise ValueError(f"configs/paper.py has no variant {variant!r}; use {', '.join(PRESETS)} or `smoke`")
    c = config.default()
    c.proxy.preset = variant if variant in PRESETS else "30M"
    # Activations of 4 · 2048 tokens fit into a v5e even for 190M, because attention kernels do not store scores.
    c.train.micro_batch = 4
    c.train.checkpoint_every = 500
    # The target run is 1B parameters on 100B tokens.
    c.propose.target_tokens = 100e9
    if variant == "smoke":
        c.corpus.max_bytes, c.corpus.vocabulary, c.corpus.min_tokens, c.corpus.heldout = 1_200_000, 384, 512, 0.3
        c.tasks.max_examples, c.tasks.length = 8, 64
        c.proxy.preset, c.proxy.length, c.swarm.size, c.swarm.min_runs = "1M", 32, 12, 2
        c.train.steps, c.train.batch, c.train.micro_batch, c.train.checkpoint_every = 20, 4, 2, 10
        c.propose.explore, c.propose.target_tokens = False, None
        c.validate.steps, c.validate.seeds = 30, 2
    return c

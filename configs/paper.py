"""The paper's proxies on your own text: 30M parameters, 2.9B tokens each, for accelerators (METHOD §4).

    python run.py --config=configs/paper.py --workdir=runs/dry --stages=plan --config.swarm.size=512 \\
        --config.plan.topology=v5e:16x16
    python run.py --config=configs/paper.py:60M --workdir=runs/paper --config.corpus.path=TEXT

The variant after the colon is a preset. All presets except `1B` train on 2.9B tokens; set train.steps to change
that. `1B` is the target run, with its own batch, learning rate and steps. `smoke` runs the same stages at the smallest
scale. The stage `plan` estimates what the swarm needs on a TPU topology; it needs no TPU (requirements-tpu.txt).
"""

from olmix_jax import config

# Parameters of each preset, including both embeddings, with a vocabulary of 100,352.
PARAMETERS = {"1M": 2_448_620, "14M": 26_740_864, "30M": 54_792_448, "60M": 95_957_376, "190M": 267_424_512}
# OLMo 2 1B: 16 · (4 · 2048² + 3 · 2048 · 8192 + 4 · 2048) + 2048 + 2 · 100,352 · 2048.
PARAMETERS["1B"] = 1_484_916_736
PRESETS = tuple(PARAMETERS)


def get_config(variant: str = "30M"):
    """Return the paper's training set-up for a preset, or `smoke`."""
    if variant not in ("", "smoke", *PRESETS):
        raise ValueError(f"configs/paper.py has no variant {variant!r}; use {', '.join(PRESETS)} or `smoke`")
    c = config.default()
    c.corpus.vocabulary = 100_352
    c.proxy.preset = variant if variant in PRESETS else "30M"
    c.proxy.length = 2048
    c.proxy.dtype = "bfloat16"
    # 64 · 2048 = 131,072 tokens per step; 2,910,233,600 / 131,072 = 22,203 steps:
    # 100 tokens per parameter of 30M.
    c.train.batch = 64
    c.train.steps = 22_203
    if variant == "1B":
        # 512 · 4096 = 2,097,152 tokens per step; 100B / 2,097,152 = 47,683 steps.
        c.proxy.length, c.train.batch, c.train.steps, c.train.lr = 4096, 512, 47_683, 0.0018
        # A model sharded over several devices uses XLA's attention; remat avoids storing its scores.
        c.train.remat = True
    # Warm-up: all parameters / (batch · 4096) steps; 54,792,448 / 262,144 = 209 of 22,203 at 30M, 708 of 47,683 at 1B.
    c.train.warmup = PARAMETERS[c.proxy.preset] / (c.train.batch * 4096) / c.train.steps
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

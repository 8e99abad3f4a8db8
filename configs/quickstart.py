"""Real text to a validated mixture on two CPU cores, no accelerator, no network.

    make quickstart        # = python run.py --config=configs/quickstart.py --workdir=runs/quickstart

Expected: under 8 minutes and 4 GiB; the proposed mixture's mean BPB is below natural's and uniform's by more than
three standard errors. ``:smoke`` is the same path in under a minute, too small to prove anything.
"""

from olmix_jax import config


def get_config(variant: str = ""):
    """The quickstart; `smoke` for a run in seconds."""
    c = config.default()
    # 8 domains, sizes as unequal as they are; thinned until the smallest would be repeated in the target run.
    c.corpus.max_bytes = 2_000_000
    c.corpus.heldout = 0.3
    c.corpus.vocabulary = 1024
    c.corpus.min_tokens = 2048
    c.proxy.preset = "tiny"
    c.proxy.length = 128
    c.tasks.length = 128
    c.tasks.max_examples = 64
    # 27 = 3 · (8 + 1) proxies of 300 · 8 · 128 = 307,200 tokens.
    c.train.steps = 300
    c.train.batch = 8
    c.train.lr = 0.01
    c.train.checkpoint_every = 100
    # Three mixtures × three seeds, 800 · 8 · 128 = 819,200 tokens each: the target run, 2.7 × as long as a proxy.
    c.validate.steps = 800
    if variant == "smoke":
        c.corpus.max_bytes = 1_500_000
        c.corpus.heldout = 0.1
        c.corpus.vocabulary = 384
        c.corpus.min_tokens = 1024
        c.tasks.max_examples = 8
        c.swarm.size = 12
        c.swarm.min_runs = 3
        c.proxy.length = 32
        c.tasks.length = 64
        c.train.steps = 20
        c.train.batch = 5
        c.train.checkpoint_every = 4
        c.validate.steps = 30
        c.validate.seeds = 2
    elif variant:
        raise ValueError(f"configs/quickstart.py has no variant {variant!r}; there is `smoke`")
    return c

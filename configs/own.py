"""Your own text: the whole text, and 3(M + 1) proxies. On an ordinary machine, with the models of the quickstart:

    python run.py --config=configs/own.py --workdir=runs/mine --config.corpus.path=my_text --config.tasks.path=my_tasks

On an accelerator, name a larger preset: `configs/own.py:30M`. It brings the trainer of the paper's proxies
(olmix_jax/config/presets.py); --stages=plan shows it. `smoke` runs in seconds.
"""

from configs import quickstart
from olmix_jax.config import presets


def get_config(variant: str = ""):
    """Return the config for your own text; the variant is a preset, or `smoke`."""
    if variant not in ("", "smoke", *presets.TRAINERS):
        raise ValueError(f"configs/own.py has no variant {variant!r}; use {', '.join(presets.TRAINERS)} or `smoke`")
    c = quickstart.get_config("smoke" if variant == "smoke" else "")
    c.corpus.max_bytes = 0
    c.corpus.heldout = 0.1
    if variant != "smoke":
        c.corpus.vocabulary = None
        c.swarm.size = None
    if variant in presets.TRAINERS:
        c.proxy.preset = variant
    return c

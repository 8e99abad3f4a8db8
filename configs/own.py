"""Your own text on an ordinary machine: the whole text, the models and steps of the quickstart, 3(M + 1) proxies.

    python run.py --config=configs/own.py --workdir=runs/mine --config.corpus.path=my_text --config.tasks.path=my_tasks

On an accelerator, use a larger model (--config.proxy.preset=14M or 30M), longer sequences and more steps.
"""

from configs import quickstart


def get_config(variant: str = ""):
    """Return the config for your own text; `smoke` runs in seconds."""
    c = quickstart.get_config(variant)
    c.corpus.max_bytes = 0
    c.corpus.heldout = 0.1
    if not variant:
        c.corpus.vocabulary = 2048
        c.swarm.size = None
    return c

"""The text of pinned source distributions (`make corpus`): 45 domains, the same on every machine.

    python run.py --config=configs/packages.py --workdir=runs/packages

The stages of the paper's five updates (section 5.1, Table 5) are variants. Each needs the one before:

    python run.py --config=configs/packages.py:stage0 --workdir=runs/packages/stage0     # 24 topics
    python run.py --config=configs/packages.py:stage1 --workdir=runs/packages/stage1     # 15 languages added: 39
    python run.py --config=configs/packages.py:stage2 --workdir=runs/packages/stage2     # 6 sources added: 45
    python run.py --config=configs/packages.py:stage3 --workdir=runs/packages/stage3     # one revised
    python run.py --config=configs/packages.py:stage4 --workdir=runs/packages/stage4     # one removed: 44
    python run.py --config=configs/packages.py:stage5 --workdir=runs/packages/stage5     # one partitioned into 21: 64

Tasks are made from documents that are in no domain, and stay the same in all stages (data/tasks).
"""

from configs import own

STAGES = 6


def get_config(variant: str = ""):
    """Return the config of all domains; `smoke` runs in seconds, and `stage0` to `stage5` are the stages."""
    stages = [f"stage{number}" for number in range(STAGES)]
    if variant not in ("", "smoke", *stages):
        raise ValueError(f"configs/packages.py has no variant {variant!r}; use {', '.join(stages)} or `smoke`")
    c = own.get_config("smoke" if variant == "smoke" else "")
    c.corpus.path = "data/packages"
    c.tasks.path = "data/tasks"
    # The domains are topics and languages, of which good mixtures may have none.
    c.swarm.sparsity = "sparse"
    c.swarm.strength = (0.1, 1.0)
    # 3 (M + 1) proxies, also at smoke scale: fewer than M + 2 determine no law.
    c.swarm.size = None
    if variant == "smoke":
        c.corpus.max_bytes = 8_000_000
        return c
    # 1.28 M tokens, because scores of proxies that trained on fewer are noisy (docs/log.md).
    c.train.steps = 2500
    c.tasks.max_examples = 64
    if variant:
        number = stages.index(variant)
        c.corpus.path = f"data/stages/{number}"
        if number:
            c.update.file = f"data/stages/{number}.json"
            c.update.parent = f"runs/packages/stage{number - 1}"
    return c

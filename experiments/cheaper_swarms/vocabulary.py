"""Compare proxies with a part of the vocabulary to proxies with all of it, on the same mixtures.

python -m experiments.cheaper_swarms.vocabulary --scale=cpu --workdir=runs/vocabulary

The quickstart's corpus has a tokenizer of 8,192 entries. Each mixture is trained with all of them, and with the first
1,024 on as much text, so for more steps. Both have two seeds. ``results.json`` has how well the scores of one kind and
seed rank those of the whole vocabulary with the other seed, and the time of training. Two seeds of the whole vocabulary
are the ceiling. Workdirs that are finished are not trained again.
"""

import dataclasses
import pathlib

import numpy as np

from configs import quickstart
from experiments import common
from experiments.cheaper_swarms import designs
from olmix_jax import config as configs
from olmix_jax.config import budget
from olmix_jax.config import workdir as workdirs
from olmix_jax.config.schema import Config
from olmix_jax.laws import scores
from olmix_jax.pipeline import runner
from olmix_jax.proxy.train_result import TrainInfo
from olmix_jax.swarm import apportion, table
from olmix_jax.swarm.table import SwarmTable


@dataclasses.dataclass(frozen=True)
class Scale:
    """Size of the experiment: entries of the whole and the smaller vocabulary, mixtures, and steps."""

    whole: int
    small: int
    mixtures: int
    steps: int
    variant: str = ""


SCALES = {"smoke": Scale(512, 300, 12, 8, "smoke"), "cpu": Scale(8192, 1024, 16, 200)}
WHOLE, PART = "whole vocabulary", "part of it"
SEEDS = (0, 1)


def config_of(scale: Scale, seed: int, small: bool = False, steps: int | None = None) -> Config:
    """Return the quickstart's config for proxies with all or a part of the vocabulary."""
    c = quickstart.get_config(scale.variant)
    c.corpus.vocabulary, c.swarm.size, c.train.steps = scale.whole, scale.mixtures, steps or scale.steps
    c.proxy.vocabulary = scale.small if small else None
    # Nothing is repeated for one kind more than for another.
    c.train.seed, c.train.match_repeats, c.tasks.max_examples = seed, False, min(c.tasks.max_examples, 48)
    return configs.from_dict(c)


def trained(config: Config, workdir: pathlib.Path, mixtures: SwarmTable | None) -> tuple[SwarmTable, TrainInfo]:
    """Train a swarm and return its table and facts about its training.

    Proxies with the same vocabulary share a prepared corpus. Mixtures are those of another swarm, in whole sequences of
    this one; None to sample them.
    """
    prepared, path = workdir.parent / f"corpus-{config.proxy.vocabulary or 'whole'}", workdir / workdirs.RATIOS
    runner.run(config, prepared, ("prepare",))
    designs.copy_prepared(prepared, workdir)
    if mixtures is None:
        runner.run(config, workdir, ("sample",))
    elif not path.is_file():
        counts_KM = np.stack([apportion.snap(ratios_M, budget.sequences(config)) for ratios_M in mixtures.ratios_KM])
        runs, ratios_KM = mixtures.runs, counts_KM / budget.sequences(config)
        table.write_ratios(path, runs, runs, mixtures.domains, ratios_KM)
    runner.run(config, workdir, ("train",))
    return workdirs.read_table(config, workdir), TrainInfo.read(workdir / "train/info.json")


def agreement(one_KN: np.ndarray, other_KN: np.ndarray) -> dict[str, float]:
    """Return the rank correlation of two swarms' scores: mean over tasks, and of the mean over tasks."""
    agreed = scores.score(one_KN, other_KN)
    return {"spearman_task_mean": float(agreed.spearman_N.mean()), "spearman_of_mean": agreed.spearman_of_mean}


def main() -> None:
    """Run the experiment."""
    flags = common.arguments(__doc__, tuple(SCALES))
    scale, workdir = SCALES[flags.scale], flags.workdir
    first = config_of(scale, flags.seed, small=True)
    runner.run(first, workdir / f"corpus-{scale.small}", ("prepare",))
    per_token = workdirs.tokens_per_token(first, workdir / f"corpus-{scale.small}")
    arms = {WHOLE: (False, scale.steps), PART: (True, round(scale.steps * per_token))}
    bpb, info, swarm = {}, {}, None
    for number, (kind, (small, steps)) in enumerate(arms.items()):
        for seed in SEEDS:
            config = config_of(scale, flags.seed + seed, small, steps)
            swarm, info[kind] = trained(config, workdir / f"{number}-{seed}", swarm)
            bpb[kind, seed] = swarm.bpb_KN
    rows = {}
    for kind in arms:
        ranks = [agreement(bpb[kind, seed], bpb[WHOLE, 1 - seed]) for seed in SEEDS]
        rows[kind] = {name: float(np.mean([rank[name] for rank in ranks])) for name in ranks[0]}
        rows[kind] |= {"own_seeds": agreement(bpb[kind, 0], bpb[kind, 1])["spearman_task_mean"]}
        rows[kind] |= {"time": info[kind].wall_s / info[WHOLE].wall_s, "parameters": info[kind].parameters}
        rows[kind] |= {"bpb_mean": float(bpb[kind, 0].mean()), "spread": float(bpb[kind, 0].mean(axis=1).std())}
    results = {"tokens_per_token": per_token, "mixtures": len(swarm.runs), "tasks": len(swarm.tasks), "kinds": rows}
    common.write_results(workdir, results)
    print(f"tokens per token {per_token:.3f}, {len(swarm.runs)} mixtures, {len(swarm.tasks)} tasks")
    for kind, row in rows.items():
        print(f"{kind:18s}", *(f"{name} {value:.4g}" for name, value in row.items()), sep="  ")


if __name__ == "__main__":
    main()

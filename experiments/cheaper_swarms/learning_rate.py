"""Measure how the learning rate of proxies changes their ranking of mixtures.

python -m experiments.cheaper_swarms.learning_rate --scale=cpu --workdir=runs/learning_rate

The same mixtures are trained at several multiples of the quickstart's rate, with common initial weights and order of
documents, and as target models: 1.8 times as long, at the rate itself, with other seeds. ``results.json`` has the rank
correlation of each rate's scores with those of the target models, and of two halves of the target's seeds.
"""

import dataclasses
import pathlib

import numpy as np

from benchmarks.laws_page import table
from configs import quickstart
from experiments import common
from experiments.cheaper_swarms import designs
from olmix_jax import config as configs
from olmix_jax.config import workdir as workdirs
from olmix_jax.config.schema import Config
from olmix_jax.laws import scores
from olmix_jax.pipeline import runner, validate
from olmix_jax.swarm import mixtures
from olmix_jax.utils import files, rng

RATES = (1.0, 0.5, 0.25)
# Two halves of the target's seeds show how far a ranking can be right at all.
PROXY_SEEDS, TARGET_SEEDS = 2, 4


@dataclasses.dataclass(frozen=True)
class Scale:
    """The variant of the quickstart, and the number of mixtures besides natural."""

    variant: str
    mixtures: int


SCALES = {"smoke": Scale("smoke", 12), "cpu": Scale("", 16)}


def bpb(config: Config, prepared: pathlib.Path, workdir: pathlib.Path, ratios_KM: np.ndarray) -> np.ndarray:
    """Return the BPB of models trained on the mixtures as the section ``validate`` says, bpb_SKN; natural is first."""
    designs.copy_prepared(prepared, workdir)
    path = workdir / "bpb.json"
    if not path.is_file():
        named = {"natural": ratios_KM[0]} | {f"mixture {k}": p_M for k, p_M in enumerate(ratios_KM[1:], 1)}
        scored = validate.compare(config, workdir, named).mixtures.values()
        files.write_json(path, {"bpb_KNS": [[task.per_seed for task in each.tasks.values()] for each in scored]})
    return np.moveaxis(np.array(files.read_json(path)["bpb_KNS"]), -1, 0)


def compared(bpb_KN: np.ndarray, target_KN: np.ndarray) -> dict[str, float]:
    """Return how the scores rank the mixtures as the target does, and how large their effects are beside its own."""
    agreement = scores.score(bpb_KN, target_KN)
    spread, target = (np.log(x_KN).std(axis=0) for x_KN in (bpb_KN, target_KN))
    return {
        "spearman_task_mean": float(agreement.spearman_N.mean()),
        "spearman_of_mean": agreement.spearman_of_mean,
        "spread_of_target": float(np.median(spread / target)),
        "bpb": float(bpb_KN.mean()),
    }


def run(scale: Scale, workdir: pathlib.Path, seed: int) -> dict[str, dict[str, float]]:
    """Train everything, and write the results after each rate."""
    settings = quickstart.get_config(scale.variant)
    settings.seed, settings.swarm.size, settings.swarm.min_runs = seed, scale.mixtures, 1
    config = configs.from_dict(settings)
    prepared = workdir / "prepared"
    runner.run(config, prepared, ("prepare", "sample"))
    ratios_KM = mixtures.read_ratios(prepared / workdirs.RATIOS).ratios_KM

    longer = dataclasses.replace(config.validate, seeds=TARGET_SEEDS)
    target = dataclasses.replace(config, validate=longer, seed=rng.derive(seed, "target"))
    target_SKN = bpb(target, prepared, workdir / "target", ratios_KM)
    one_KN, other_KN = (target_SKN[half::2].mean(axis=0) for half in (0, 1))
    rows = {"half of the target's seeds, against the other": compared(one_KN, other_KN)}
    for rate in RATES:
        of_proxies = dataclasses.replace(
            config.validate, steps=config.train.steps, seeds=PROXY_SEEDS, lr=rate * config.train.lr
        )
        proxy = dataclasses.replace(config, validate=of_proxies)
        bpb_SKN = bpb(proxy, prepared, workdir / f"rate-{rate}", ratios_KM)
        each = [compared(bpb_KN, target_SKN.mean(axis=0)) for bpb_KN in bpb_SKN]
        rows[f"{rate} times the rate"] = {key: float(np.mean([row[key] for row in each])) for key in each[0]}
        common.write_results(workdir, {"rows": rows})
    return rows


def main() -> None:
    flags = common.arguments(__doc__, tuple(SCALES))
    rows = run(SCALES[flags.scale], flags.workdir, flags.seed)
    lines = [(name, *(f"{value:.3f}" for value in row.values())) for name, row in rows.items()]
    print(table(("scores", *next(iter(rows.values()))), lines))


if __name__ == "__main__":
    main()

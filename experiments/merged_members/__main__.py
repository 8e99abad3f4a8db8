"""Compare the scores of merged members with those of full proxies on the same mixtures.

python -m experiments.merged_members --scale=cpu --workdir=runs/merged_members

The quickstart's swarm of full proxies is the judge. One expert per domain continues a trunk on natural. Every mixture
of the swarm is scored by merges of the experts: of their weights, and of their token probabilities with two kinds of
weights; and, as a law without merging, by the same combination of the experts' own scores. ``results.json`` has how
well each kind ranks the full proxies, and how much smaller its effects are. A swarm in WORKDIR/swarm is not trained
again.
"""

import dataclasses
import pathlib

import numpy as np
from scipy import stats

from configs import quickstart
from experiments import common
from olmix_jax import config as configs
from olmix_jax.config import budget
from olmix_jax.config import workdir as workdirs
from olmix_jax.config.schema import Config
from olmix_jax.pipeline import merge as merging
from olmix_jax.pipeline import runner, trunk
from olmix_jax.proxy import merge
from olmix_jax.swarm.table import SwarmTable

TRUNK = 0.75
SCALES = {"smoke": "smoke", "cpu": ""}


def config_of(scale: str, seed: int) -> Config:
    """Return the quickstart's config."""
    c = quickstart.get_config(SCALES[scale])
    c.seed = seed
    return configs.from_dict(c)


def scores(config: Config, workdir: pathlib.Path, ratios_KM: np.ndarray) -> tuple[dict[str, np.ndarray], float]:
    """Train experts, and return {kind of merge: bpb_KN} and their cost in full proxies."""
    swarm = dataclasses.replace(config.swarm, trunk=TRUNK, merged=len(ratios_KM))
    config = dataclasses.replace(config, swarm=swarm)
    if not (workdir / workdirs.TRUNK).is_file():
        trunk.run(budget.experts(config), workdir)
    experts = merging.train_experts(config, workdir)
    given, rest = (experts.job.swarm, experts.params), (experts.job.tasks, experts.info.mapping)
    experts_JM = merge.mixtures(experts.job.swarm)
    c_KJ, own_JN = (
        merge.coefficients(ratios_KM, experts_JM),
        merge.score_weights(*given, np.eye(len(experts_JM)), *rest),
    )
    kinds = {
        "losses of the experts": c_KJ @ own_JN,
        "weights": merge.score_weights(*given, c_KJ, *rest),
        "probabilities, by mixture": merge.score_probabilities(*given, ratios_KM, *rest),
        "probabilities": merge.score_probabilities(*given, merge.expert_weights(c_KJ), *rest),
    }
    kinds["mean of weights and probabilities"] = (kinds["weights"] + kinds["probabilities"]) / 2
    return kinds, experts.info.full_proxies


def compared(table: SwarmTable, bpb_KN: np.ndarray) -> dict[str, float]:
    """Return how merged scores follow those of full proxies. The first mixture is natural."""
    own_K, true_K = bpb_KN.mean(axis=1), table.bpb_KN.mean(axis=1)
    per_task = [stats.spearmanr(x_K, y_K)[0] for x_K, y_K in zip(bpb_KN.T, table.bpb_KN.T)]
    slopes = [stats.linregress(np.log(x_K), np.log(y_K)).slope for x_K, y_K in zip(bpb_KN.T, table.bpb_KN.T)]
    return {
        "spearman_task_mean": float(np.mean(per_task)),
        "spearman_of_mean": float(stats.spearmanr(own_K, true_K)[0]),
        "slope_median": float(np.median(slopes)),
        "spread": float(own_K.std()),
        "true_spread": float(true_K.std()),
        "regret_of_best": float(true_K[own_K.argmin()] - true_K.min()),
        "regret_of_natural": float(true_K[0] - true_K.min()),
    }


def main() -> None:
    """Run the experiment."""
    flags = common.arguments(__doc__, tuple(SCALES))
    workdir = flags.workdir / "swarm"
    trained = (workdir / workdirs.METRICS).is_file()
    config = workdirs.read_config(workdir) if trained else config_of(flags.scale, flags.seed)
    runner.run(config, workdir, ("prepare", "sample", "train"))
    table = workdirs.read_table(config, workdir)
    merged, cost = scores(config, workdir, table.ratios_KM)
    rows = {kind: compared(table, bpb_KN) for kind, bpb_KN in merged.items()}
    common.write_results(flags.workdir, {"full_proxies": cost, "runs": len(table.runs), "kinds": rows})
    for kind, row in rows.items():
        print(f"{kind:40s}", *(f"{name} {value:.4f}" for name, value in row.items()), sep="  ")


if __name__ == "__main__":
    main()

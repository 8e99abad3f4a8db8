"""The stage ``sample``: draw the mixtures of the swarm."""

import pathlib

import numpy as np

from olmix_jax.config import workdir as workdirs
from olmix_jax.config.schema import Config
from olmix_jax.propose import blocks
from olmix_jax.swarm import apportion, coverage, sampling, table
from olmix_jax.update import update_plan
from olmix_jax.utils import rng
from olmix_jax.utils.progress import log


def run(config: Config, workdir: pathlib.Path) -> None:
    """Write ``swarm/ratios.csv``: mixtures in whole sequences, which a run can train exactly.

    An update samples the weights of blocks. The sequences of a block are then divided among its domains by the kept
    ratios, rounded to whole sequences.
    """
    domains = workdirs.read_domains(workdir)
    total = config.train.steps * config.train.batch
    size = config.swarm.size if config.swarm.size is not None else 3 * (len(domains) + 1)
    kept, earlier_runs = blocks.form_blocks({}, domains.names), 0
    plan = update_plan.read_for(config, workdir)
    if plan is not None:
        kept, size = plan.kept_blocks, plan.proxies
        earlier_runs = sum(older.runs for older in plan.old_runs)
    seed = config.swarm.seed if config.swarm.seed is not None else rng.derive(config.seed, "swarm")
    counts_KD = sampling.sample(
        blocks.collapse(domains.natural_M, kept),
        size,
        total,
        names=kept.names,
        sparsity=config.swarm.sparsity,
        strength=config.swarm.strength,
        min_weight=config.swarm.min_weight,
        min_distance=config.swarm.min_distance,
        min_runs=config.swarm.min_runs,
        earlier_runs=earlier_runs,
        seed=seed if plan is None else plan.derive_seed(seed),
    )
    counts_KM = np.array([apportion.snap(weights_M, total) for weights_M in blocks.expand(counts_KD / total, kept)])
    runs = tuple(f"run-{k:04d}" for k in range(size))
    ratios_KM = counts_KM / counts_KM.sum(1)[:, None]
    table.write_ratios(workdir / "swarm/ratios.csv", runs, runs, domains.names, ratios_KM)
    for domain, seen in coverage.by_domain(ratios_KM, domains.names).items():
        log.info(
            "%-24s in %3d of %d runs, weight %.3f on average, %.3f at most",
            domain,
            seen.runs,
            size,
            seen.mean,
            seen.max,
        )

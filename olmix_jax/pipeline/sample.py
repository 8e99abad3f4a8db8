"""The stage ``sample``: draw the mixtures of the swarm."""

import pathlib
from typing import Any

import numpy as np

from olmix_jax.config import budget
from olmix_jax.config import workdir as workdirs
from olmix_jax.config.schema import Config
from olmix_jax.propose import blocks
from olmix_jax.swarm import apportion, coverage, sampling, table
from olmix_jax.swarm.domains import DomainSet
from olmix_jax.update import update_plan
from olmix_jax.update.update_plan import UpdatePlan
from olmix_jax.utils import rng
from olmix_jax.utils.progress import log


def run(config: Config, workdir: pathlib.Path) -> None:
    """Write ``swarm/ratios.csv``: mixtures in whole sequences, which a run can train exactly.

    An update samples the weights of blocks. The sequences of a block are then divided among its domains by the kept
    ratios, rounded to whole sequences.
    """
    domains, plan = workdirs.read_domains(workdir), update_plan.read_for(config, workdir)
    asked = request(config, domains, plan)
    kept, total, runs_wanted = kept_blocks(domains, plan), asked["total"], asked["size"]
    counts_KD = sampling.sample(**asked)
    counts_KM = np.array([apportion.snap(weights_M, total) for weights_M in blocks.expand(counts_KD / total, kept)])
    runs = tuple(f"run-{k:04d}" for k in range(runs_wanted))
    ratios_KM = counts_KM / counts_KM.sum(1)[:, None]
    table.write_ratios(workdir / "swarm/ratios.csv", runs, runs, domains.names, ratios_KM)
    for domain, seen in coverage.by_domain(ratios_KM, domains.names).items():
        log.info(
            "%-24s in %3d of %d runs, weight %.3f on average, %.3f at most",
            domain,
            seen.runs,
            runs_wanted,
            seen.mean,
            seen.max,
        )


def kept_blocks(domains: DomainSet, plan: UpdatePlan | None) -> blocks.Blocks:
    """Return the blocks of domains that the swarm samples as one; without an update, each domain alone."""
    return blocks.form_blocks({}, domains.names) if plan is None else plan.kept_blocks


def size(config: Config, domains: DomainSet, plan: UpdatePlan | None) -> int:
    """Return the number of runs: the update's, the config's, or 3(M + 1)."""
    if plan is not None:
        return plan.proxies
    return config.swarm.size if config.swarm.size is not None else 3 * (len(domains) + 1)


def request(config: Config, domains: DomainSet, plan: UpdatePlan | None) -> dict[str, Any]:
    """Return the arguments of :func:`olmix_jax.swarm.sampling.sample`."""
    kept, swarm = kept_blocks(domains, plan), config.swarm
    seed = swarm.seed if swarm.seed is not None else rng.derive(config.seed, "swarm")
    return {
        "natural_M": blocks.collapse(domains.natural_M, kept),
        "size": size(config, domains, plan),
        "total": budget.sequences(config),
        "names": kept.names,
        "sparsity": swarm.sparsity,
        "strength": swarm.strength,
        "min_weight": swarm.min_weight,
        "min_distance": swarm.min_distance,
        "min_runs": swarm.min_runs,
        # Runs beside these that the law is fitted to.
        "earlier_runs": swarm.merged if plan is None else sum(older.runs for older in plan.old_runs),
        "seed": seed if plan is None else plan.derive_seed(seed),
    }

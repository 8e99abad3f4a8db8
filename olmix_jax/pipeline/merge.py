"""Train one expert per domain from the trunk, merge them for many mixtures, and score the merged members."""

import dataclasses
import pathlib

import numpy as np

from olmix_jax.config import budget
from olmix_jax.config import workdir as workdirs
from olmix_jax.config.schema import Config
from olmix_jax.pipeline import jobs, sample, trunk
from olmix_jax.proxy import data, merge, trainer, waves
from olmix_jax.proxy.train_result import TrainInfo, TrainResult
from olmix_jax.swarm import apportion, csv_files, sampling, table
from olmix_jax.utils import rng
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.names import listed
from olmix_jax.utils.progress import log

# Share of its domain that an expert trains on besides natural. Other shares were not compared.
TILT = 0.5
# Folder of the experts' checkpoints and progress, and the facts about their training.
FOLDER, INFO = "merge", "merge/info.json"


@dataclasses.dataclass(frozen=True)
class Experts:
    """Trained experts.

    Attributes:
      job: their training.
      params: their parameters [J, …].
      info: facts about their training.
    """

    job: jobs.Job
    params: dict
    info: TrainInfo

    def score(self, ratios_KM: np.ndarray) -> np.ndarray:
        """Return bits per byte of the merged members with these mixtures, [K, N]."""
        return merge.score(self.job.swarm, self.params, ratios_KM, self.job.tasks, self.info.mapping)


def run(config: Config, workdir: pathlib.Path) -> None:
    """Write ``swarm/merged/ratios.csv`` and ``metrics.csv``.

    Raises:
      UserError: an expert diverged.
    """
    experts = train_experts(config, workdir)
    domains, ratios_KM = workdirs.read_domains(workdir), mixtures(config, workdir)
    bpb_KN = experts.score(ratios_KM)
    runs = [f"merged-{k:04d}" for k in range(len(ratios_KM))]
    kept = [k for k in range(len(runs)) if np.isfinite(bpb_KN[k]).all()]
    if lost := [run for k, run in enumerate(runs) if k not in kept]:
        log.warning("merge: %s left out, their scores are not finite", listed(lost))
    names = [runs[k] for k in kept]
    table.write_ratios(workdir / workdirs.MERGED_RATIOS, names, names, domains.names, ratios_KM[kept], names)
    csv_files.write_sheet(workdir / workdirs.MERGED, names, names, experts.job.tasks.names, bpb_KN[kept].tolist())
    dataclasses.replace(experts.info, preset=config.proxy.preset).write(workdir / INFO)
    log.info("merge: %d mixtures scored for the tokens of %.2f full proxies", len(names), experts.info.full_proxies)


def join(config: Config, workdir: pathlib.Path) -> None:
    """Train and score what is sharded over all processes, as a process that writes no results."""
    job = _job(config, workdir)
    _trained(job, job.run_here()).score(mixtures(config, workdir))


def train_experts(config: Config, workdir: pathlib.Path) -> Experts:
    """Return one expert per domain, from the workdir's trunk."""
    job = _job(config, workdir)
    trainer.log_settings(config, job.swarm.train, FOLDER)
    return _trained(job, job.run())


def mixtures(config: Config, workdir: pathlib.Path) -> np.ndarray:
    """Return the mixtures of the merged members, from the swarm's sampler: natural, and others than the proxies'."""
    asked = sample.request(config, workdirs.read_domains(workdir), None)
    asked |= {"size": config.swarm.merged, "earlier_runs": asked["size"], "seed": rng.derive(asked["seed"], "merged")}
    return sampling.sample(**asked) / asked["total"]


def _job(config: Config, workdir: pathlib.Path) -> jobs.Job:
    """Return the job that trains the experts."""
    config, domains = budget.experts(config), workdirs.read_domains(workdir)
    total, start = budget.sequences(config), trunk.read(workdir, domains)
    ratios_JM = merge.expert_mixtures(domains.natural_M, TILT)
    counts_JM = np.array([apportion.snap(ratios_M, total) for ratios_M in ratios_JM])
    seed_J = np.full(len(counts_JM), start.seed)
    runs = data.Runs(tuple(domains.names), counts_JM, seed_J, seed_J)
    swarm = jobs.swarm_of(config, workdir, domains, runs, jobs.proxy_share(config, workdir), trunk=start)
    return jobs.Job(swarm, jobs.tasks_of(config, workdir), workdir / FOLDER, "experts", config.swarm.members_per_device)


def _trained(job: jobs.Job, trained: TrainResult) -> Experts:
    """Return the experts with the parameters of their last checkpoints."""
    if dead := [name for name, step in zip(job.swarm.runs.names, trained.died_K) if step >= 0]:
        raise UserError(f"experts on {listed(dead)} diverged; lower `train.lr`, and run again in another --workdir")
    return Experts(job, waves.last_params(job.swarm, job.folder), trained.info)

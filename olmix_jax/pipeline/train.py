"""The stage ``train``: train all proxies in one program and write the swarm's table."""

import dataclasses
import pathlib

import numpy as np

from olmix_jax.config import budget, part
from olmix_jax.config import workdir as workdirs
from olmix_jax.config.schema import Config
from olmix_jax.pipeline import jobs, trunk
from olmix_jax.proxy import data, trainer
from olmix_jax.swarm import apportion, table
from olmix_jax.utils import rng
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import log


@dataclasses.dataclass(frozen=True)
class Place:
    """Folders of a swarm, relative to the workdir: of its tables, and of its checkpoints and progress."""

    tables: str
    training: str


SWARM = Place("swarm", "train")


def run(config: Config, workdir: pathlib.Path, place: Place = SWARM) -> None:
    """Train the proxies, or one part of them (``swarm.part``), and write the table once all parts exist."""
    domains, job = workdirs.read_domains(workdir), _job(config, workdir, place)
    trainer.log_settings(config, job.swarm.train, place.training)
    if job.swarm.share < 1:
        log.info(
            "%s: proxies read a share of %.3f of every domain, to repeat it as often as the target run",
            *(place.training, job.swarm.share),
        )
    if job.swarm.first_step:
        own, steps, members = config.train.steps - job.swarm.first_step, config.train.steps, len(job.swarm.runs)
        log.info(
            "%s: %d branches of %d steps, the tokens of %.1f full proxies, after a trunk of %d steps",
            *(place.training, members, own, members * own / steps, job.swarm.first_step),
        )
    trained = job.results(part.parse(config.swarm.part), domains)
    if trained is None:
        return
    runs, counts_KM = job.swarm.runs.names, job.swarm.runs.counts_KM
    folder = workdir / place.tables
    names = table.read_ratios(folder / "ratios.csv").names
    jobs.write_curves(folder / "curves.npz", job, trained, config)
    diverged = {run: int(step) for run, step in zip(runs, trained.died_K) if step >= 0}
    if len(diverged) == len(runs):
        raise UserError(
            f"every member diverged; lower `train.lr`, delete the workdir's {place.training} folder, and run again"
        )
    table.write_swarm(
        folder,
        runs,
        names,
        domains.names,
        job.tasks.names,
        counts_KM / counts_KM.sum(1)[:, None],
        trained.bpb_KN,
        domains.natural_M,
        domains.tokens_M,
        diverged,
    )
    dataclasses.replace(trained.info, preset=config.proxy.preset).write(workdir / place.training / "info.json")


def join(config: Config, workdir: pathlib.Path, place: Place = SWARM) -> None:
    """Train proxies that are sharded over all processes, as a process that writes no results.

    The first process calls :func:`run` at the same time.
    """
    _job(config, workdir, place).run_here()


def _job(config: Config, workdir: pathlib.Path, place: Place) -> jobs.Job:
    """Return the job that trains all members."""
    domains = workdirs.read_domains(workdir)
    path = workdir / place.tables / "ratios.csv"
    mixtures = table.read_ratios(path)
    if mixtures.domains != domains.names:
        raise UserError(f"{path}: its domains differ from those of domains.json; run --stages=sample again")
    counts_KM = apportion.realise(mixtures.ratios_KM, budget.sequences(config), domains.names)
    start = trunk.read(workdir, domains) if budget.trunk_steps(config) else None
    seed = jobs.proxy_seed(config, workdir) if start is None else start.seed
    seed_K = np.array([seed if config.train.common else rng.derive(seed, run) for run in mixtures.runs])
    runs = data.Runs(mixtures.runs, counts_KM, seed_K, seed_K)
    swarm = jobs.swarm_of(config, workdir, domains, runs, jobs.proxy_share(config, workdir), trunk=start)
    tasks, members_per_device = jobs.tasks_of(config, workdir), config.swarm.members_per_device
    return jobs.Job(swarm, tasks, workdir / place.training, place.tables, members_per_device)


def count_models(config: Config, workdir: pathlib.Path, place: Place = SWARM) -> int:
    """Return how many proxies several processes can divide; 0 if each is sharded over all devices."""
    path = workdir / place.tables / "ratios.csv"
    # Without the file, either the update needs no runs, or the first process raises the error.
    if not path.is_file() or jobs.is_sharded_over_all(config, workdir):
        return 0
    return len(table.read_ratios(path).runs)

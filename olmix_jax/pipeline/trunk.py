"""Train the trunk of a branched swarm, or copy that of another workdir."""

import dataclasses
import pathlib
import shutil

import numpy as np

from olmix_jax.config import budget, json_fields
from olmix_jax.config import workdir as workdirs
from olmix_jax.config.schema import Config
from olmix_jax.corpus import mapped_store
from olmix_jax.pipeline import jobs, trunk_stage
from olmix_jax.propose import constraints
from olmix_jax.proxy import data, optimizer, sharding, trainer, waves
from olmix_jax.proxy.train_result import TrunkInfo
from olmix_jax.proxy.trunk import Trunk
from olmix_jax.swarm import apportion
from olmix_jax.swarm.domains import DomainSet
from olmix_jax.swarm.expansion import sequences
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import log

# Folder of the checkpoints, beside the record.
CHECKPOINTS = "checkpoints"


def run(config: Config, workdir: pathlib.Path) -> None:
    """Train the trunk and write ``swarm/trunk/trunk.json``, or copy both from ``swarm.trunk_from``.

    Raises:
      UserError: the trunk diverged, or that of the other workdir does not suit this config.
    """
    if config.swarm.trunk_from:
        _copy(config, workdir)
        return
    job = _job(config, workdir)
    trainer.log_settings(config, job.swarm.train, "trunk")
    trained = job.run()
    if trained.died_K[0] >= 0:
        raise UserError(
            f"the trunk diverged at step {trained.died_K[0]}; lower `train.lr`, delete {job.folder}, and run again"
        )
    domains, counts_M = workdirs.read_domains(workdir), sequences(job.swarm.runs.counts_KM[0], job.swarm.expansion)
    TrunkInfo(
        identity=job.swarm.identity,
        steps=job.swarm.train.steps,
        sequences=dict(zip(domains.names, counts_M.tolist())),
        content=_content(domains),
        seed=int(job.swarm.runs.data_seed_K[0]),
        settings=_settings(config, workdir),
        bpb=dict(zip(job.tasks.names, trained.bpb_KN[0].tolist())),
        training=dataclasses.replace(trained.info, preset=config.proxy.preset),
    ).write(workdir / workdirs.TRUNK)


def join(config: Config, workdir: pathlib.Path) -> None:
    """Train a trunk that is sharded over all processes, as a process that writes no results."""
    if not config.swarm.trunk_from:
        _job(config, workdir).run_here()


def read(workdir: pathlib.Path, domains: DomainSet) -> Trunk:
    """Return the workdir's trunk, from which the members continue.

    Of a domain with another text than in the trunk's corpus, nothing has been read.
    """
    info, content = TrunkInfo.read(workdir / workdirs.TRUNK), _content(domains)
    read_M = [info.sequences.get(name, 0) if info.content.get(name) == content[name] else 0 for name in domains.names]
    folder = (workdir / workdirs.TRUNK).parent / CHECKPOINTS
    return Trunk(folder, info.identity, info.steps, np.array(read_M, np.int64), info.seed)


def mixture(config: Config, domains: DomainSet) -> np.ndarray:
    """Return the mixture of the trunk, weights_M: the config's, or natural."""
    given = json_fields.trunk_mixture(config)
    return domains.natural_M if given is None else constraints.mixture(given, domains.names, "swarm.trunk_mixture")


def _job(config: Config, workdir: pathlib.Path) -> jobs.Job:
    """Return the job that trains the trunk: a swarm of one member."""
    domains, steps = workdirs.read_domains(workdir), budget.trunk_steps(config)
    counts_KM = apportion.snap(mixture(config, domains), steps * config.train.batch)[None]
    seed_K = np.array([jobs.proxy_seed(config, workdir)])
    swarm = jobs.swarm_of(
        config, workdir, domains, data.Runs(("trunk",), counts_KM, seed_K, seed_K), jobs.proxy_share(config, workdir)
    )
    # The warm-up of a whole proxy, and no decay.
    train = dataclasses.replace(swarm.train, steps=steps, warmup=optimizer.warmup_steps(swarm.train) / steps)
    if not waves.needs_fsdp(train, swarm.member):
        train = dataclasses.replace(train, mapping=sharding.one_device_mapping())
    swarm = dataclasses.replace(swarm, train=train, decay=0)
    return jobs.Job(swarm, jobs.tasks_of(config, workdir), (workdir / workdirs.TRUNK).parent, "trunk", None)


def _content(domains: DomainSet) -> dict[str, str]:
    """Return what identifies each domain's text: its hash, or for token files without one its size."""
    return dict(zip(domains.names, domains.content or map(str, domains.tokens)))


def _settings(config: Config, workdir: pathlib.Path) -> dict[str, str]:
    """Return what runs that continue from a trunk must share with it, as text, by config field."""
    vocabulary = mapped_store.read_tokenizer(config, workdir)
    train = trainer.resolved(config, vocabulary.size)
    optimiser = {
        f"train.{name}": f"{getattr(train, name):.6g}" for name in ("batch", "lr", "beta1", "beta2", "weight_decay")
    }
    return {
        "proxy.preset": config.proxy.preset,
        "proxy.length": str(config.proxy.length),
        "corpus.tokenizer": f"one with digest {vocabulary.digest}",
        **optimiser,
        "train.match_repeats": f"a share of {jobs.proxy_share(config, workdir):.6g} of every domain",
    }


def _copy(config: Config, workdir: pathlib.Path) -> None:
    """Copy the trunk of another workdir.

    Raises:
      UserError: it has other steps, or was trained with other settings than this config's.
    """
    info, ours = trunk_stage.source(config), _settings(config, workdir)
    source, target = (folder / workdirs.TRUNK for folder in (pathlib.Path(config.swarm.trunk_from), workdir))
    if source.resolve() == target.resolve():
        raise UserError(f"config field `swarm.trunk_from`: {workdir} is the workdir itself; leave the field empty")
    for field, value in info.settings.items():
        if value != ours.get(field):
            raise UserError(
                f"config field `swarm.trunk_from`: {source} was made with {field} = {value}, but here it is "
                f"{ours.get(field)}; give both runs the same, or leave swarm.trunk_from empty to train a trunk here"
            )
    folder = f"{CHECKPOINTS}/{info.steps}"
    try:
        shutil.copytree(source.parent / folder, target.parent / folder, dirs_exist_ok=True)
    except OSError as e:
        raise UserError(
            f"config field `swarm.trunk_from`: {source.parent / folder} cannot be copied to {target.parent}: {e}"
        ) from e
    dataclasses.replace(info, copied_from=config.swarm.trunk_from).write(target)
    log.info("trunk: copied from %s, %d steps", source, info.steps)

"""Training jobs: the models that a stage trains, their data, and the folder of their checkpoints."""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from olmix_jax.config import budget
from olmix_jax.config import workdir as workdirs
from olmix_jax.config.part import Part
from olmix_jax.config.schema import Config
from olmix_jax.corpus import mapped_store, store, tasks
from olmix_jax.corpus.task_set import TaskSet
from olmix_jax.proxy import coordination, data, model, part_results, state, trainer, waves
from olmix_jax.proxy.proxy_swarm import ProxySwarm
from olmix_jax.proxy.train_result import TrainResult
from olmix_jax.proxy.trunk import Trunk
from olmix_jax.swarm.domains import DomainSet
from olmix_jax.swarm.expansion import Expansion
from olmix_jax.update import update_plan
from olmix_jax.utils import files, rng


@dataclasses.dataclass(frozen=True)
class Job:
    """Models to train in one stage.

    Attributes:
      swarm: the models and their data.
      tasks: the tasks that the models are scored on.
      folder: folder of the checkpoints.
      label: names the job in progress lines.
      members_per_device: models that a device holds at once; None for as many as fit.
    """

    swarm: ProxySwarm
    tasks: TaskSet
    folder: pathlib.Path
    label: str
    members_per_device: int | None

    def results(self, part: Part | None, domains: DomainSet) -> TrainResult | None:
        """Train the models or merge their parts, and return the results. Of one part, write them and return None.

        Args:
          part: the part to train; None for all models.
          domains: the domains of the corpus.
        """
        tasks, content = self.tasks.names, files.digest([domains, self.tasks])
        if part is None:
            return part_results.merge(self.folder, self.swarm, tasks, content) or self.run()
        own = dataclasses.replace(
            self,
            swarm=part_results.select(self.swarm, part),
            folder=self.folder / part.name,
            label=f"{self.label}, part {part}",
        )
        part_results.write(self.folder, part, own.swarm, tasks, own.run(), content)
        return None

    def run(self) -> TrainResult:
        """Train and score the models. If they are sharded over all devices, ask the other processes to join in."""
        if waves.needs_fsdp(self.swarm.train, self.swarm.member):
            coordination.all_gather(coordination.JOIN)
        return self.run_here()

    def run_here(self) -> TrainResult:
        """Train and score the models without asking other processes to join in."""
        return waves.train_in_waves(self.swarm, self.tasks, self.folder, self.label, self.members_per_device)


def swarm_of(
    config: Config,
    workdir: pathlib.Path,
    domains: DomainSet,
    runs: data.Runs,
    share: float = 1.0,
    score_steps: tuple[int, ...] = (),
    trunk: Trunk | None = None,
) -> ProxySwarm:
    """Return the models of a config, with the workdir's token stores as data.

    Args:
      config: the sections ``proxy`` and ``train`` define the models and their training.
      workdir: folder of a prepared corpus.
      domains: the domains of the corpus.
      runs: counts of sequences, as shares of the corpus' tokens, and seeds, which differ between the models.
      share: share of each domain that a model reads, so that it repeats the domain as often as the target run.
      score_steps: steps at which models are scored, besides the last one.
      trunk: the trunk that the models continue from.
    """
    vocabulary, expansion = mapped_store.read_tokenizer(config, workdir).size, workdirs.read_expansion(config, workdir)
    return ProxySwarm(
        shape=model.PRESETS[config.proxy.preset],
        vocabulary=vocabulary,
        length=config.proxy.length,
        dtype=config.proxy.dtype,
        train=trainer.resolved(config, vocabulary),
        runs=runs,
        stores=_stores(workdir, domains, expansion),
        share=share,
        track=config.track,
        score_steps=score_steps,
        decay=budget.decay_steps(config),
        trunk=trunk,
        expansion=() if expansion is None else expansion.by_domain(domains.names),
    )


def _stores(workdir: pathlib.Path, domains: DomainSet, expansion: Expansion | None) -> dict[str, Any]:
    """Return the token store of each domain, in the proxies' vocabulary."""
    if expansion is None:
        return {name: store.open_store(store.store_path(workdir, name)) for name in domains.names}
    mapping = mapped_store.read_mapping(workdir)
    return {name: mapped_store.open_store(workdir, name, mapping) for name in domains.names}


def proxy_seed(config: Config, workdir: pathlib.Path) -> int:
    """Return the seed of the proxies' initial weights and document order."""
    seed = config.train.seed if config.train.seed is not None else rng.derive(config.seed, "train")
    plan = update_plan.read_for(config, workdir)
    return seed if plan is None else plan.derive_seed(seed)


def proxy_share(config: Config, workdir: pathlib.Path) -> float:
    """Return the share of every domain that proxies read.

    A proxy with a smaller vocabulary sees less text for as many tokens. The share is that of natural's text.
    """
    if not config.train.match_repeats:
        return 1.0
    per_token = workdirs.tokens_per_token(config, workdir)
    return min(1.0, budget.tokens(config) / per_token / budget.target_tokens(config, per_token))


def tasks_of(config: Config, workdir: pathlib.Path) -> TaskSet:
    """Return the workdir's tasks, packed into windows of ``tasks.length`` tokens."""
    return tasks.read_tasks(workdir, mapped_store.read_tokenizer(config, workdir), config.tasks.length)


def is_sharded_over_all(config: Config, workdir: pathlib.Path) -> bool:
    """Return whether each proxy is sharded over all devices (FSDP)."""
    shape = model.PRESETS[config.proxy.preset]
    vocabulary = mapped_store.read_tokenizer(config, workdir).size
    train = trainer.resolved(config, vocabulary)
    return waves.needs_fsdp(train, state.member(shape, vocabulary, train, config.proxy.dtype))


def write_curves(path: pathlib.Path, job: Job, trained: TrainResult, config: Config) -> None:
    """Write the training losses to an ``.npz`` file with ``runs``, ``steps_T``, ``loss_KT`` and ``tokens_per_step``.

    If models were scored along the run, it also has ``bpb_KPN``, ``scored_steps_P`` and ``tasks``.
    """
    arrays: dict[str, Any] = {
        "runs": np.array(job.swarm.runs.names, str),
        "steps_T": np.arange(1, trained.loss_KT.shape[1] + 1),
        "loss_KT": trained.loss_KT,
        "tokens_per_step": np.int64(config.train.batch * config.proxy.length),
    }
    if trained.bpb_KPN is not None:
        arrays |= {"bpb_KPN": trained.scores_KPN, "scored_steps_P": np.array(job.swarm.stops)}
        arrays["tasks"] = np.array(job.tasks.names, str)
    with files.atomic_write(path, "wb") as f:
        np.savez_compressed(f, **arrays)

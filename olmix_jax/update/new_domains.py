"""Facts about the new domains before any new run: how they changed, their bounds, the noise and possible laws."""

import dataclasses
import pathlib
from collections.abc import Sequence

import jax
import numpy as np

from olmix_jax.config import budget, json_fields
from olmix_jax.config.schema import Config
from olmix_jax.config.workdir import read_config, read_table, tokens_per_token
from olmix_jax.laws import LAWS, FittedLaw, log_linear
from olmix_jax.propose import optimum
from olmix_jax.propose.formulation import formulate
from olmix_jax.propose.options import Options
from olmix_jax.propose.proposal import Proposal
from olmix_jax.propose.swarm_facts import SwarmFacts
from olmix_jax.swarm.domains import DomainSet
from olmix_jax.swarm.meta import Meta
from olmix_jax.update import changes, history, prior
from olmix_jax.update.infer import check_content, infer
from olmix_jax.update.old_runs import EXPECTED_TRUST, Runs
from olmix_jax.update.simulation import Setting
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import log

# Number of samples of the old law in a simulation.
SAMPLES = 32
# Name of a user's block called "kept", which is the name of the update's own block.
KEPT_UNIT = "kept by propose.keep_ratios"
# The simulation needs a pull towards natural, so that every law has one optimum [BPB per nat].
MIN_KL_WEIGHT = 1e-3


@dataclasses.dataclass(frozen=True)
class NewDomains:
    """The domains before and after an update.

    Attributes:
      old: domains of the parent.
      new: domains of the update.
      change: the change from one to the other, in the order of ``new``.
    """

    old: DomainSet
    new: DomainSet
    change: changes.Change


def read(config: Config, workdir: pathlib.Path, steps: Sequence[changes.Update] | None) -> NewDomains:
    """Read the domains of the parent and of the update.

    For an external swarm it also writes ``domains.json``, from the ``token_counts`` of ``swarm.meta``.

    Args:
      config: the update's config.
      workdir: the update's workdir. It has ``domains.json`` unless the swarm is external.
      steps: the steps of the update file; None: infer them from names and content.

    Raises:
      UserError: the steps cannot be applied, contradict the content of the domains, or the config lacks the update file
        or token counts of an external swarm.
    """
    parent = pathlib.Path(config.update.parent)
    before = history.parent_config(config)
    external = bool(before.swarm.ratios)
    old = history.read_domains(parent, read_table(before, parent) if external else None)
    if not external:
        new = DomainSet.read(workdir / "domains.json")
        change = changes.change(old.names, infer(old, new) if steps is None else steps)
    elif steps is None or not config.swarm.meta:
        raise UserError(
            f"the swarm of {parent} was trained elsewhere: list the changes in update.file, and give the unique tokens "
            "of all new domains as `token_counts` in swarm.meta"
        )
    else:
        change = changes.change(old.names, steps)
        meta = Meta.read(config.swarm.meta, change.new)
        if meta.tokens_M is None:
            raise UserError(f"{meta.where}: an update needs `token_counts` of all domains: {', '.join(change.new)}")
        new = DomainSet(change.new, tuple(int(n) for n in meta.tokens_M))
        new.write(workdir / "domains.json")
    change = change.ordered(new.names)
    check_content(change, old, new)
    return NewDomains(old, new, change)


def warn_of_other_proxies(config: Config, before: Config) -> None:
    """Log a warning if the new proxies differ from the parent's, because old runs are then less informative."""
    if before.swarm.ratios:
        return
    proxy = [field.name for field in dataclasses.fields(config.proxy)]
    changed = [f"proxy.{name}" for name in proxy if getattr(config.proxy, name) != getattr(before.proxy, name)]
    train = ("steps", "batch", "lr")
    changed += [f"train.{name}" for name in train if getattr(config.train, name) != getattr(before.train, name)]
    if changed:
        log.warning(
            "update: %s differ from the parent's, so its runs may be a poor guide to the new proxies",
            ", ".join(changed),
        )


def simulation_setting(config: Config, domains: NewDomains, proposal: Proposal, runs: Sequence[Runs]) -> Setting:
    """Collect what the simulation needs, and check the bounds before anything is trained.

    Args:
      config: the update's config.
      domains: the domains before and after.
      proposal: the parent's proposal.
      runs: old runs, expressed on the new domains.

    Raises:
      UserError: the bounds are infeasible.
    """
    parent, change, new = pathlib.Path(config.update.parent), domains.change, domains.new
    tasks = tuple(proposal.predicted)
    swarm, options = _swarm_facts(config, new, tasks), _options(config, proposal)
    formulation = formulate(FittedLaw(log_linear.LAW, None), swarm, options)
    for text in formulation.excluded:
        log.warning("update: %s", text)
    noise = history.read_noise(parent)
    weights = {name: proposal.weights[change.origin[name]] for name in change.unaffected}
    return Setting(
        domains=new.names,
        natural_M=new.natural_M,
        problem=formulation.problem,
        affected_M=np.array([name in change.affected for name in new.names]),
        weights_M=np.array([weights.get(name, 0.0) for name in new.names]),
        noise_N=np.array([noise.std[task] for task in tasks]),
        shared=noise.shared,
        old_KM=np.concatenate([old.ratios_KM for old in runs]) if runs else np.zeros((0, len(new.names))),
        trust_K=np.concatenate([old.trust(EXPECTED_TRUST) for old in runs]) if runs else np.zeros(0),
        guards=None if options.guard is None else optimum.guards_over_natural(swarm, options, np.zeros(len(tasks))),
        # The update's own fit.law is not used, so that another law does not make a trained swarm's plan stale.
        law=LAWS[history.read_law(parent).law.name],
        units={KEPT_UNIT if name == "kept" else name: unit for name, unit in (options.keep_ratios or {}).items()},
    )


def _swarm_facts(config: Config, new: DomainSet, tasks: tuple[str, ...]) -> SwarmFacts:
    """Return the facts of the swarm that the update will have. Token counts are those that a run can use."""
    parent = pathlib.Path(config.update.parent)
    tokens_M, sizes = np.asarray(new.tokens_M, np.float64), history.task_sizes(parent)
    if not read_config(parent).swarm.ratios:
        # A run reads whole sequences, and the first target needs one token before it.
        tokens_M = np.maximum(tokens_M - 1, 0) // config.proxy.length * config.proxy.length
    return SwarmFacts(
        tasks=tasks,
        domains=new.names,
        natural_M=new.natural_M,
        tokens_M=tokens_M,
        sizes_N=np.array([sizes.get(task, 1.0) for task in tasks]),
        families=json_fields.families_of_tasks(config, tasks),
    )


def _options(config: Config, proposal: Proposal) -> Options:
    """Return the options of the proposal that the update will make, as far as the simulation can follow them.

    λ is at least MIN_KL_WEIGHT. If it is chosen from the runs, the parent's is the best guess. The plan always serves
    the best mixture.
    """
    options = Options(**json_fields.propose_options(config))
    kl_weight = proposal.kl_weight if options.choose_kl_weight else options.kl_weight
    target = options.target_tokens
    if not read_config(pathlib.Path(config.update.parent)).swarm.ratios:
        target = budget.target_tokens(config, tokens_per_token(config, pathlib.Path(config.update.parent)))
    return dataclasses.replace(options, kl_weight=max(kl_weight, MIN_KL_WEIGHT), target_tokens=target, worst=False)


def sample_laws(parent: pathlib.Path, domains: NewDomains, likeness_MO, seed: int) -> log_linear.Params:
    """Sample laws that may be true of the new domains, from samples of the parent's law.

    Args:
      parent: the parent's workdir.
      domains: the domains before and after.
      likeness_MO: see :func:`olmix_jax.update.prior.sample_laws`.
      seed: seed of the samples.

    Raises:
      UserError: the parent's law has no samples.
    """
    fitted = history.read_law(parent)
    if fitted.samples is None:
        remedy = "fit.resamples=100"
        if not fitted.law.cheap_refits:
            remedy = "a fit.law that has samples, such as floored_gp or log_linear"
        raise UserError(f"{parent}: its law has no samples; run its --stages=fit,propose with {remedy}")
    fitted = dataclasses.replace(fitted, samples=jax.tree.map(lambda x: np.asarray(x)[:SAMPLES], fitted.samples))
    swarm = history.trained_table(parent)
    # The law is translated at the parent's mixtures, or at natural if the parent has no runs.
    ratios_KM = domains.old.natural_M[None] if swarm is None else swarm.ratios_KM
    translated = prior.to_log_linear(fitted, ratios_KM, seed)
    change, new = domains.change, domains.new
    revised_M = [domains.old.names.index(change.revised[n]) if n in change.revised else -1 for n in new.names]
    return prior.sample_laws(translated, change.mixture_matrix(new.tokens_M), revised_M, likeness_MO, seed=seed)

"""The decision of an update: which ratios to keep, which weights to recompute, and with how many runs."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from olmix_jax.config.schema import Config
from olmix_jax.laws import log_linear
from olmix_jax.propose.blocks import Blocks, swarm_size
from olmix_jax.propose.proposal import Proposal
from olmix_jax.swarm.domains import DomainSet
from olmix_jax.update import changes, history, new_domains, old_runs, recompute, strategies
from olmix_jax.update.simulation import Choice, Setting, blocks_of
from olmix_jax.update.strategies import Reuse, Strategy
from olmix_jax.update.update_plan import Candidate, Interval, OldRuns, PredictedGain, UpdatePlan
from olmix_jax.utils import rng
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import counted, log

# Options that change a proposal and that the simulation does not follow.
SIMULATED_WITHOUT = ("tail", "trust", "choose_kl_weight", "worst")

# (parent's workdir, old domains, new domains) → probabilities_MO that a new domain resembles an old one, or None.
Likeness = Callable[[pathlib.Path, DomainSet, DomainSet], np.ndarray | None]


@dataclasses.dataclass(frozen=True)
class _Fixed:
    """The part of the decision that the config or the kind of change fixes before the simulation.

    Attributes:
      recomputed: the domains to recompute; None: choose them by predicted loss.
      proxies: number of new runs; None: derived from the number of weights.
    """

    recomputed: tuple[str, ...] | None
    proxies: int | None


def decide(
    config: Config,
    workdir: pathlib.Path,
    steps: Sequence[changes.Update] | None = None,
    likeness: Likeness | None = None,
) -> UpdatePlan:
    """Decide what an update keeps and recomputes.

    Args:
      config: the update's config.
      workdir: the update's workdir. It has ``domains.json`` unless the swarm is external.
      steps: the steps of the update file; None: infer them from names and content.
      likeness: compares domains by their text; None: a new domain resembles each old one with equal probability.

    Raises:
      UserError: the parent is not finished, the steps cannot be applied or contradict the domains' content, or the
        bounds are infeasible.
    """
    parent, settings = pathlib.Path(config.update.parent), config.update
    new_domains.warn_of_other_proxies(config, history.parent_config(config))
    domains = new_domains.read(config, workdir, steps)
    change, new = domains.change, domains.new
    proposal = Proposal.read(parent / "propose/proposal.json")
    tasks = tuple(proposal.predicted)
    runs = old_runs.read_runs(parent, change, new.tokens_M, tasks) if settings.old_runs else []
    setting = new_domains.simulation_setting(config, domains, proposal, runs)
    likeness_MO = None if likeness is None else likeness(parent, domains.old, new)
    laws = new_domains.sample_laws(parent, domains, likeness_MO, rng.derive(config.seed, "update"))
    full = swarm_size(len(blocks_of(setting, range(len(new))).names))
    decision = _simulate(config, laws, setting, _fixed(config, change, setting, sum(map(len, runs))), full)
    taken, gain = decision.taken, _interval(decision.gain_S)
    _check_runs(config, taken)
    plan = UpdatePlan(
        strategy=Strategy(settings.strategy),
        parent=str(parent),
        updates=tuple(step.plain() for step in change.updates),
        old=change.old,
        new=new.names,
        unaffected=change.unaffected,
        affected=change.affected,
        lost=change.lost,
        kept=_kept_ratios(taken.blocks, new.names),
        recomputed=taken.recomputed,
        proxies=taken.proxies,
        proxies_full=full,
        predicted_loss=_interval(taken.loss_S),
        predicted_gain=PredictedGain(gain.mean, gain.low, gain.high),
        candidates=tuple(
            Candidate(c.recomputed, c.proxies, _interval(c.loss_S), c.quick_loss) for c in decision.candidates
        ),
        old_runs=tuple(OldRuns(old.age, len(old)) for old in runs),
        why=_why(config, change, decision, full),
        history=history.past_updates(parent),
        predicted_loss_if_form_known=taken.quick_loss,
    )
    log.info("update: %s", plan.why)
    return plan


def _simulate(
    config: Config, laws: log_linear.Params, setting: Setting, fixed: _Fixed, full: int
) -> recompute.Decision:
    """Judge the fixed choice or choose the domains to recompute. Full recomputation takes ``full`` runs."""
    seed, proxies = rng.derive(config.seed, "update.play"), fixed.proxies

    def runs_for(weights: int) -> int:
        return swarm_size(weights) if proxies is None else proxies

    if fixed.recomputed is not None:
        return recompute.judge(laws, setting, fixed.recomputed, runs_for, seed=seed)
    # With a given number of runs all choices cost the same, so there is no budget.
    budget = config.update.budget * full if config.update.proxies is None else np.inf
    return recompute.choose(laws, setting, runs_for, budget=budget, seed=seed)


def _apply(strategy: Strategy, setting: Setting, *, recompute: Sequence[str] = (), old_runs: int = 0) -> Reuse:
    """Apply a strategy to the domains of ``setting``."""
    affected = [name for name, is_affected in zip(setting.domains, setting.affected_M) if is_affected]
    facts = setting.domains, affected, setting.weights_M, setting.natural_M
    return strategies.apply(strategy, *facts, recompute=recompute, old_runs=old_runs)


def _fixed(config: Config, change: changes.Change, setting: Setting, runs: int) -> _Fixed:
    """Return what is settled before the simulation. ``runs`` is the number of old runs."""
    strategy, settings = Strategy(config.update.strategy), config.update
    if not change.affected and strategy in (Strategy.AUTO, Strategy.FULL_REUSE, Strategy.PARTIAL_REUSE):
        # The old law holds on the remaining domains, so new weights need no runs.
        if strategy is Strategy.FULL_REUSE:
            return _Fixed((), 0)
        if strategy is Strategy.PARTIAL_REUSE:
            return _Fixed(settings.recompute, 0)
        # Domains that were fitted as a block keep their ratios, because the law cannot judge them.
        separate = set(change.old) - history.fitted_as_block(pathlib.Path(settings.parent))
        return _Fixed(tuple(name for name in change.new if change.origin.get(name) in separate), 0)
    if strategy is Strategy.AUTO:
        return _Fixed(None, settings.proxies)
    reused = _apply(strategy, setting, recompute=settings.recompute, old_runs=runs)
    if strategy is Strategy.SWARM_REUSE and settings.proxies is None:
        return _Fixed(reused.recomputed, reused.proxies)
    return _Fixed(reused.recomputed, settings.proxies)


def _check_runs(config: Config, taken: Choice) -> None:
    """Check the number of new runs before anything is trained."""
    least, wanted = config.swarm.min_runs, config.update.proxies
    if 0 < taken.proxies < least:
        raise UserError(
            f"the update has {counted(taken.proxies, 'run')} for {len(taken.blocks.names)} weights, but swarm.min_runs "
            f"wants each weight in {counted(least, 'run')}; raise update.proxies or lower swarm.min_runs"
        )
    if wanted and not taken.proxies:
        log.warning("update: update.proxies=%d is ignored because the update needs no runs", wanted)


def _kept_ratios(blocks: Blocks, domains: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return the blocks of two or more domains, in the form of ``propose.keep_ratios``."""
    ratios = {
        name: {d: float(p) for d, p in zip(domains, row_M) if p > 0}
        for name, row_M in zip(blocks.names, blocks.ratios_DM)
    }
    return {name: row for name, row in ratios.items() if len(row) > 1}


def _why(config: Config, change: changes.Change, decision: recompute.Decision, full: int) -> str:
    """Explain the decision in one sentence. Full recomputation takes ``full`` runs."""
    strategy, taken = Strategy(config.update.strategy), decision.taken
    loss = f"predicted loss {taken.loss:.4f} BPB"
    if taken.quick_loss is not None:
        loss += f" ({taken.quick_loss:.4f} if the fit knew the form of the law)"
    loss += f", out of a predicted gain over natural of {decision.gain:.4f} BPB"
    if ignored := [name for name in SIMULATED_WITHOUT if getattr(config.propose, name)]:
        loss += f" (predicted without {' and '.join(f'propose.{name}' for name in ignored)})"
    if not change.affected and not taken.proxies:
        result = "the old ratios are kept"
        if taken.recomputed:
            result = f"{len(taken.recomputed)} of {counted(len(change.new), 'weight')} optimised again"
        return f"no domain is affected, so the old law still holds and nothing is trained; {result}; {loss}"
    runs = counted(taken.proxies, "run")
    if strategy is not Strategy.AUTO:
        return f"update.strategy={strategy}: {runs} (full recomputation: {full}); {loss}"
    added = [domain for domain in taken.recomputed if domain not in change.affected]
    recomputed = "only the affected domains"
    if added:
        recomputed = f"the affected domains and {', '.join(added)}"
    reused, all_domains = decision.candidates[:2]
    return (
        f"{recomputed} recomputed with {runs}; {loss}; compared on other simulated swarms: full reuse "
        f"{reused.loss:.4f} BPB with {counted(reused.proxies, 'run')}, full recomputation {all_domains.loss:.4f} BPB "
        f"with {full}"
    )


def _interval(values_S: np.ndarray) -> Interval:
    """Return the mean, 5 % and 95 % quantile."""
    low, high = np.quantile(values_S, [0.05, 0.95])
    return Interval(float(np.mean(values_S)), float(low), float(high))

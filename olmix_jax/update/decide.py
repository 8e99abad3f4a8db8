"""The stage of a changed domain set: what to keep of an earlier mixture, before any run of the new one."""

import dataclasses
import pathlib

import jax
import numpy as np

from olmix_jax.config import budget, yaml_files
from olmix_jax.config import workdir as workdirs
from olmix_jax.config.schema import Config
from olmix_jax.laws import quality
from olmix_jax.laws.fit_result import FitResult
from olmix_jax.propose import blocks as reuse
from olmix_jax.propose import constraints
from olmix_jax.propose.feasibility import check_feasible, repetition_caps
from olmix_jax.propose.task_weights import task_weights
from olmix_jax.swarm import table
from olmix_jax.swarm.domains import DomainSet
from olmix_jax.swarm.meta import Meta
from olmix_jax.update import changes, changes_file, prior, recompute, strategies
from olmix_jax.update import history as lineage
from olmix_jax.update.strategies import Strategy
from olmix_jax.update.update_plan import (
    Candidate,
    Interval,
    OldRuns,
    PastUpdate,
    PredictedGain,
    UpdatePlan,
    read_if_any,
)
from olmix_jax.utils import files, rng
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import log

# What an old run may count for, in new ones; which of these, held-out new runs decide. An update older: half.
TRUSTS, FADES = (0.1, 0.3, 1.0), 0.5
# Samples of the old law that choices are played through with.
SAMPLES = 32
# What an old run is thought to be worth before new ones have been seen.
EXPECTED = 0.3


def decide(config: Config, workdir: pathlib.Path, resembles=None) -> UpdatePlan:
    """Decides what an update keeps and recomputes.

    Args:
      config: of the new workdir.
      workdir: where ``domains.json`` is, or will be for a swarm that is trained elsewhere.
      resembles: (parent's workdir, its domains, new domains) → probabilities_MO of which old domain a new one is like;
        alike without it.

    Raises:
      UserError: the parent is not finished, the update cannot be, or it denies what the domains' content says.
    """
    parent, u = pathlib.Path(config.update.parent), config.update
    before = lineage.parent_config(config)
    _compare(config, before)
    old, new, change = _changed(config, workdir, parent, before)
    proposal = files.read_json(parent / "propose/proposal.json")
    tasks = tuple(proposal["predicted"])
    runs = lineage.runs_before(parent, change, new.tokens_M, tasks) if u.old_runs else []
    setting = _setting(config, parent, change, new, proposal, runs)
    known = setting.domains, change.affected, setting.weights_M, new.natural_M
    everything = strategies.apply(Strategy.FULL, *known)
    likeness_MO = None if resembles is None else resembles(parent, old, new)
    truth = _truths(parent, change, old, new, likeness_MO, rng.derive(config.seed, "update"))
    only, runs_wanted = _decided(config, change, known, runs)
    size = reuse.proxies if runs_wanted is None else (lambda dimensions: runs_wanted)
    play = {"only": only, "seed": rng.derive(config.seed, "update.play")}
    # Runs that are given are no more or less for any choice.
    play |= {"budget": u.budget * everything.proxies} if u.proxies is None else {}
    taken, found, gain = recompute.choose(truth, setting, size, **play)
    _check_runs(config, taken)
    decided = UpdatePlan(
        strategy=Strategy(u.strategy),
        parent=str(parent),
        updates=tuple(step.plain() for step in change.updates),
        old=change.old,
        new=new.names,
        unaffected=change.unaffected,
        affected=change.affected,
        lost=change.lost,
        kept=kept(taken.blocks, new.names),
        recomputed=taken.recomputed,
        proxies=taken.proxies,
        proxies_full=everything.proxies,
        predicted_loss=_interval(taken.loss_S),
        predicted_gain=PredictedGain(**gain),
        candidates=tuple(Candidate(c.recomputed, c.proxies, _interval(c.loss_S)) for c in found),
        old_runs=tuple(OldRuns(older.age, len(older.doubt_K)) for older in runs),
        why=_why(u.strategy, change, taken, found, gain, everything.proxies),
        history=tuple(history(parent)),
    )
    log.info("update: %s", decided.why)
    return decided


def _check_runs(config: Config, taken: recompute.Choice) -> None:
    """Says, before anything is trained, what the number of runs cannot be or is not heeded for."""
    least, wanted = config.swarm.min_runs, config.update.proxies
    if 0 < taken.proxies < least:
        raise UserError(
            f"the update takes {taken.proxies} runs over {len(taken.blocks.names)} weights, fewer than the {least} by "
            "which swarm.min_runs asks every weight to be seen; set update.proxies higher, or swarm.min_runs lower"
        )
    if wanted and not taken.proxies:
        log.warning("update: update.proxies=%d is not heeded: the update takes no runs", wanted)


def _decided(config: Config, change: changes.Change, known, runs) -> tuple[tuple[str, ...] | None, int | None]:
    """(domains to recompute, runs), where they are settled already; else None."""
    u = config.update
    # Where no domain is affected the old law holds, so that to find weights anew takes no run; but of domains that it
    # was fitted to as one it knows no ratios.
    known_apart = set() if change.affected else set(change.old) - lineage.tied(pathlib.Path(u.parent))
    free = {"auto": tuple(n for n in change.new if change.origin.get(n) in known_apart), "full_reuse": ()}
    free["partial_reuse"] = u.recompute
    if not change.affected and u.strategy in free:
        return free[u.strategy], 0
    if u.strategy == "auto":
        return None, u.proxies
    number = sum(len(older.doubt_K) for older in runs)
    fixed = strategies.apply(Strategy(u.strategy), *known, recompute=u.recompute, old_runs=number)
    # Other strategies take as many as there turn out to be weights.
    return fixed.recomputed, fixed.proxies if u.strategy == "swarm_reuse" and u.proxies is None else u.proxies


def _compare(config: Config, before: Config) -> None:
    """Says where new proxies are not the old ones, so that old runs tell less of them."""
    if before.swarm.ratios:
        return
    changed = [f"proxy.{f.name}" for f in dataclasses.fields(config.proxy) if _differ(config.proxy, before.proxy, f)]
    changed += [f"train.{name}" for name in ("steps", "batch", "lr") if _differ(config.train, before.train, name)]
    if changed:
        log.warning("update: proxies are not as the parent's: %s; its runs may tell little of them", ", ".join(changed))


def _differ(one, other, field) -> bool:
    name = getattr(field, "name", field)
    return getattr(one, name) != getattr(other, name)


def _changed(config: Config, workdir: pathlib.Path, parent: pathlib.Path, before: Config):
    """(old domains, new domains, the change from one to the other)."""
    trained_here = not before.swarm.ratios
    old = lineage.read_domains(parent, None if trained_here else workdirs.read_table(before, parent))
    steps = changes_file.parse(config.update.file, yaml_files.read(config.update.file)) if config.update.file else None
    if trained_here:
        new = DomainSet.read(workdir / "domains.json")
        steps = changes.infer(old, new) if steps is None else steps
    elif steps is None or not config.swarm.meta:
        raise UserError(
            f"{parent} is of a swarm that was trained elsewhere: say what changed with update.file, and the unique "
            "tokens of all new domains with swarm.meta (`token_counts`)"
        )
    change = changes.change(old.names, steps)
    if not trained_here:
        about = Meta.read(config.swarm.meta, change.new)
        if about.tokens_M is None:
            raise UserError(f"{about.where}: an update needs `token_counts` of all domains: {', '.join(change.new)}")
        new = DomainSet(change.new, tuple(int(n) for n in about.tokens_M))
        new.write(workdir / "domains.json")
    change = change.ordered(new.names)
    changes.check_content(change, old, new)
    return old, new, change


def _setting(config: Config, parent: pathlib.Path, change: changes.Change, new: DomainSet, proposal: dict, runs):
    """What is known of the new set."""
    tasks, settings = tuple(proposal["predicted"]), config.propose
    target = settings.target_tokens if workdirs.read_config(parent).swarm.ratios else budget.target_tokens(config)
    sizes = {"tokens_M": new.tokens_M, "target_tokens": target, "max_repeats": settings.max_repeats}
    caps_M = np.ones(len(new.names)) if target is None else repetition_caps(**sizes)
    bounds, groups = constraints.read_bounds(settings.bounds, new.names, caps_M)
    # What no mixture meets is said before anything is trained.
    wished_M = constraints.read_bounds(settings.bounds, new.names, np.ones(len(new.names)))[0].upper_M
    check_feasible(bounds, new.names, groups, wished_M=wished_M, **({} if target is None else sizes))
    noise, shared = lineage.read_noise(parent)
    weights = {name: proposal["weights"][change.origin[name]] for name in change.unaffected}
    width = len(new.names)
    return recompute.Setting(
        domains=new.names,
        natural_M=new.natural_M,
        bounds=bounds,
        # A law that is played through needs a pull towards natural to have one optimum.
        kl_weight=max(settings.kl_weight, 1e-3),
        task_weights_N=task_weights(settings.task_weights, tasks, families=config.fit.families),
        affected_M=np.array([name in change.affected for name in new.names]),
        weights_M=np.array([weights.get(name, 0.0) for name in new.names]),
        noise_N=np.array([noise[task] for task in tasks]),
        shared=shared,
        old_KM=np.concatenate([older.ratios_KM for older in runs]) if runs else np.zeros((0, width)),
        trust_K=np.concatenate([trust(older, EXPECTED) for older in runs]) if runs else np.zeros(0),
    )


def trust(runs: lineage.Runs, first: float) -> np.ndarray:
    """trust_K of old runs, ``first`` being that of runs of one update ago that are expressed exactly."""
    return 1 / (1 / (first * FADES ** (runs.age - 1)) + runs.doubt_K)


def _truths(parent, change: changes.Change, old: DomainSet, new: DomainSet, resembles_MO, seed: int):
    """Laws that may be true of the new set, from samples of the old one."""
    found = lineage.read_law(parent)
    if found.samples is None:
        raise UserError(f"{parent}: has no samples of its law; run its --stages=fit,propose with fit.resamples=100")
    samples = jax.tree.map(lambda x: np.asarray(x)[:SAMPLES], found.samples)
    swarm = lineage.own_table(parent)
    # Of a parent that needed no runs only the law is known, and natural is as good a place as any to ask it.
    ratios_KM = old.natural_M[None] if swarm is None else swarm.ratios_KM
    distilled = prior.distil(found.law, samples, len(old.names), ratios_KM, seed)
    revised_M = [old.names.index(change.revised[n]) if n in change.revised else -1 for n in new.names]
    return prior.truths(distilled, change.expressed(new.tokens_M), revised_M, resembles_MO, seed=seed)


def kept(blocks: reuse.Blocks, domains) -> dict[str, dict[str, float]]:
    """The blocks of several domains, as ``propose.keep_ratios`` has them."""
    rows = zip(blocks.names, blocks.ratios_DM)
    found = {name: {d: float(p) for d, p in zip(domains, row_M) if p > 0} for name, row_M in rows}
    return {name: ratios for name, ratios in found.items() if len(ratios) > 1}


def _why(name: str, change: changes.Change, taken, found, gain: dict, full: int) -> str:
    """The plan in a sentence."""
    cost = f"predicted to lose {taken.loss:.4f} of the {gain['gain']:.4f} BPB that there are to gain over natural"
    if not change.affected and not taken.proxies:
        free = "all weights are found anew" if len(taken.recomputed) else "the old ratios are kept"
        return f"no domain is affected, so the old law holds: nothing is trained, and {free}; {cost}"
    if name != "auto":
        return f"{name}, as update.strategy asks for: {taken.proxies} runs ({full} for all domains), {cost}"
    more = [d for d in taken.recomputed if d not in change.affected]
    said = f"{', '.join(more)} recomputed beside the affected ones" if more else "only the affected ones recomputed"
    others = f"full reuse {found[0].loss:.4f} with {found[0].proxies} runs, full {found[1].loss:.4f} with {full}"
    return f"{said}, {taken.proxies} runs: {cost} ({others})"


def history(workdir: pathlib.Path) -> list[PastUpdate]:
    """What each workdir up to this one came to, the oldest first."""
    made, proposal = read_if_any(workdir), files.read_json(workdir / "propose/proposal.json")
    path = workdir / "validate/validation.json"
    found = {"workdir": str(workdir), "strategy": "first swarm", "updates": (), "validated": path.is_file()}
    if path.is_file():
        mixtures = files.read_json(path)["mixtures"]
        found |= {name: mixtures[name]["bpb_mean"] for name in ("natural", "proposed")}
    else:
        columns = {"proposed": "predicted", "natural": "predicted_natural"}
        found |= {name: float(np.mean(list(proposal[of].values()))) for name, of in columns.items()}
    found["weights"] = proposal["weights"]
    if made is None:
        runs = len(FitResult.read(workdir / "fit/fit.json").runs)
        return [PastUpdate(**found | {"proxies": runs, "proxies_full": runs})]
    found |= {key: getattr(made, key) for key in ("strategy", "updates", "proxies", "proxies_full")}
    return [*made.history, PastUpdate(**found)]


def _interval(loss_S) -> Interval:
    low, high = np.quantile(loss_S, [0.05, 0.95])
    return Interval(float(np.mean(loss_S)), float(low), float(high))


def informed(plan: UpdatePlan, swarm: table.SwarmTable, runs: list[lineage.Runs], law, seed: int) -> tuple:
    """The table that the law of an update is fitted to, and what old runs proved to be worth.

    Over blocks there are the fewest weights; but old runs are over domains. So there is a table over the blocks, with
    new runs alone, and one over the domains for each of TRUSTS, with the old runs as well. The one whose law predicts
    held-out new runs best is taken, by cross-validated error in units of each task's own spread.

    Returns:
      (table, {"over": "blocks" or "domains", "trust", "error": {trust: error}}).
    """
    blocks = reuse.blocks(plan.kept, swarm.domains)
    alone = dataclasses.replace(
        swarm,
        domains=blocks.names,
        ratios_KM=reuse.collapse(swarm.ratios_KM, blocks),
        natural_M=None if swarm.natural_M is None else reuse.collapse(swarm.natural_M, blocks),
        tokens_M=None if swarm.tokens_M is None else reuse.collapse(swarm.tokens_M, blocks),
    )
    choices, runs = {0.0: alone}, _without(runs, swarm)
    if runs:
        choices |= {first: with_old(swarm, runs, first) for first in TRUSTS}
    error = {first: _error(law, found, seed) for first, found in choices.items()}
    best = min(error, key=error.get)
    over = "domains" if best or not plan.kept else "blocks"
    log.info("update: old runs count for %g of a new one (error by trust: %s)", best, error)
    return choices[best], {"over": over, "trust": best, "error": {str(k): v for k, v in error.items()}}


def with_old(swarm: table.SwarmTable, runs: list[lineage.Runs], first: float) -> table.SwarmTable:
    """The new swarm with old runs, none of them twice, that count for ``first`` of a new one (:func:`trust`)."""
    runs = _without(runs, swarm)
    ratios_JM, bpb_JN = (np.concatenate([getattr(r, f) for r in runs]) for f in ("ratios_KM", "bpb_KN"))
    inherited = table.Inherited(ratios_JM, bpb_JN, np.concatenate([trust(older, first) for older in runs]))
    return dataclasses.replace(swarm, inherited=inherited)


def _without(runs: list[lineage.Runs], swarm: table.SwarmTable) -> list[lineage.Runs]:
    """Old runs but for those that stand in the new swarm's table as well: they would count twice."""
    found = []
    for older in runs:
        fresh_K = ~(older.bpb_KN[:, None] == swarm.bpb_KN).all(axis=2).any(axis=1)
        columns = {f: getattr(older, f)[fresh_K] for f in ("ratios_KM", "bpb_KN", "doubt_K")}
        found += [dataclasses.replace(older, **columns)] if fresh_K.any() else []
    return found


def _error(law, swarm: table.SwarmTable, seed: int) -> float:
    """Root mean squared cross-validated error of new runs, in standard deviations of each task."""
    folds = min(5, len(swarm.runs))
    found = quality.cross_validate(
        law, swarm.ratios_KM, swarm.bpb_KN, folds=folds, seed=seed, starts=4, inherited=swarm.inherited
    )
    return float(np.sqrt(np.mean((found.rmse_N / np.maximum(swarm.bpb_KN.std(axis=0), 1e-9)) ** 2)))

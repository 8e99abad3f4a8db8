"""Compare the rule that chooses what to recompute with fixed rules, at equal numbers of runs, where the truth is known.

python -m experiments.recompute_rule --scale=cpu --workdir=runs/recompute_rule [--published=DIR]

A *world* is a log-linear law that is taken as the truth. Random worlds have new domains that help the same tasks as an
old domain, or other tasks. With --published, further worlds take the law of the published DCLM swarm (`olmix_dclm/` in
DIR), with three of its domains as new ones. In each world an old swarm is scored with noise and its optimal mixture is
computed, before the new domains are added. Every rule gets the same number of new runs and fits a law to them. The
optimal mixture of that law is scored by the true law. Losses are BPB above the true optimum.
"""

import dataclasses
import pathlib
import time

import numpy as np

from experiments import common
from olmix_jax.laws import FittedLaw, evaluate, log_linear, warped_gp
from olmix_jax.propose.blocks import Blocks, collapse, collapsed_anchor, collapsed_bounds, expand
from olmix_jax.solver.bounds import box
from olmix_jax.solver.problem import Problem
from olmix_jax.solver.solve import solve
from olmix_jax.swarm import table, task_groups
from olmix_jax.update import changes, prior, recompute, simulation, strategies
from olmix_jax.utils import rng
from olmix_jax.utils.progress import log

KL_WEIGHT, REPEATS, SAMPLES, SHARED = 0.05, 4.0, 24, 0.3
RULES = ("full_reuse", "full", "carry", "auto")
# {scale: (number of worlds, sizes of the new swarm)}
SCALES = {"smoke": (2, (16,)), "cpu": (40, (8, 16, 32))}


@dataclasses.dataclass(frozen=True)
class World:
    """A true law over old and new domains.

    Attributes:
      law: parameters of the log-linear law; its columns are the old domains, then the new ones.
      natural_M: the natural mixture.
      new: number of new domains.
      noise: standard deviation of a score [BPB].
      old_runs: size of the old swarm.
    """

    law: log_linear.Params
    natural_M: np.ndarray
    new: int
    noise: float
    old_runs: int

    @property
    def upper_M(self) -> np.ndarray:
        """Return the caps of the new domain set."""
        return np.minimum(1, REPEATS * self.natural_M)


def drawn(seed: int, coupled: bool) -> World:
    """Draw a world of eight old and two new domains. Each domain helps one task, and less so tasks with nearby numbers.

    If ``coupled``, the new domains help the same tasks as the first old domain, and help them more.
    """
    draw, old, tasks = rng.generator(seed, f"world {coupled}"), 8, 10
    home_M = draw.integers(0, tasks, old + 2)
    coef_NM = draw.normal(-0.2, 0.25, (tasks, old + 2))
    coef_NM -= 1.2 * np.exp(-0.5 * (np.arange(tasks)[:, None] - home_M[None, :]) ** 2)
    if coupled:
        coef_NM[:, old:] = coef_NM[:, :1] + draw.normal(0, 0.1, (tasks, 2)) - 0.25
    natural_M = draw.dirichlet(np.full(old + 2, 3.0)) + 0.02
    law = log_linear.Params(np.log(draw.uniform(0.3, 0.8, tasks)), coef_NM)
    return World(law, natural_M / natural_M.sum(), 2, 0.01, 32)


def published(folder: pathlib.Path, seed: int) -> World:
    """Return a world with a law fitted to the published swarm. Three of its 16 largest domains are the new ones."""
    at = folder / "olmix_dclm"
    swarm = table.SwarmTable.read(at / "ratios.csv", at / "metrics.csv", at / "meta.json")
    swarm = task_groups.with_mmlu_groups(swarm)
    params = log_linear.fit(swarm.ratios_KM, swarm.bpb_KN, starts=4).params
    natural_M = np.asarray(swarm.natural_M)
    new = rng.generator(seed, "published").choice(np.argsort(-natural_M)[:16], size=3, replace=False)
    order = [j for j in range(len(natural_M)) if j not in new] + list(new)
    law = log_linear.Params(params.log_c_N, params.coef_NM[:, order])
    return World(law, natural_M[order], 3, 0.02, 72)


def value(world: World, ratios_M) -> float:
    """Return the true objective of a mixture [BPB]."""
    kl = np.where(ratios_M > 0, ratios_M * np.log(np.maximum(ratios_M, 1e-300) / world.natural_M), 0.0).sum()
    return float(evaluate(log_linear.LAW, world.law, ratios_M[None])[0].mean() + KL_WEIGHT * kl)


def noisy_scores(world: World, ratios_KM, draw) -> np.ndarray:
    """Return scores with noise. Part of the noise is common to all tasks of a run."""
    bpb_KN = evaluate(log_linear.LAW, world.law, ratios_KM)
    shared_K1, task_KN = draw.normal(size=(len(bpb_KN), 1)), draw.normal(size=bpb_KN.shape)
    return bpb_KN + world.noise * (np.sqrt(SHARED) * shared_K1 + np.sqrt(1 - SHARED) * task_KN)


def swarm_around(natural_D, runs: int, draw) -> np.ndarray:
    """Return Dirichlet mixtures around natural^0.7."""
    tempered_D = natural_D**0.7
    return draw.dirichlet(tempered_D / tempered_D.sum() * len(tempered_D), size=runs)


def optimum(law, params, natural_M, upper_M, blocks=None, runs_KD=None) -> np.ndarray:
    """Return the optimal mixture of a law, over blocks if they are given."""
    bounds, tasks = box(0 * upper_M, upper_M), len(np.atleast_1d(evaluate(law, params, runs_KD[:1])[0]))
    anchor = natural_M
    if blocks is not None:
        bounds, anchor = collapsed_bounds(bounds, blocks), collapsed_anchor(natural_M, blocks)
    problem = Problem(law, params, np.full(tasks, 1 / tasks), anchor, bounds, KL_WEIGHT)
    starts_SM = None
    if not problem.convex:
        best = evaluate(law, params, runs_KD).mean(axis=1).argmin()
        starts_SM = np.stack([anchor / anchor.sum(), runs_KD[best]])
    ratios_M = solve(problem, starts_SM=starts_SM).weights_M
    return ratios_M if blocks is None else expand(ratios_M, blocks)


def losses(world: World, runs: int, seed: int) -> dict:
    """Return the loss of each rule, the losses that were predicted, and what `auto` also recomputed [BPB]."""
    draw, width = rng.generator(seed, f"rule {runs}"), len(world.natural_M)
    old, tasks = width - world.new, len(world.law.log_c_N)
    natural_O = world.natural_M[:old] / world.natural_M[:old].sum()
    before = World(log_linear.Params(world.law.log_c_N, world.law.coef_NM[:, :old]), natural_O, 0, world.noise, 0)
    old_KO = swarm_around(natural_O, world.old_runs, draw)
    law = warped_gp.fit(old_KO, noisy_scores(before, old_KO, draw)).params
    kept_O = optimum(warped_gp.LAW, law, natural_O, np.minimum(1, REPEATS * natural_O), runs_KD=old_KO)
    names = tuple(f"d{j}" for j in range(old))
    change = changes.change(names, [changes.add(*(f"new{j}" for j in range(world.new)))])
    weights_M = np.append(kept_O, np.zeros(world.new))
    setting = simulation.Setting(
        domains=change.new,
        natural_M=world.natural_M,
        problem=Problem(
            log_linear.LAW,
            None,
            np.full(tasks, 1 / tasks),
            world.natural_M,
            box(np.zeros(width), world.upper_M),
            KL_WEIGHT,
        ),
        affected_M=np.arange(width) >= old,
        weights_M=weights_M,
        noise_N=np.full(tasks, world.noise),
        shared=SHARED,
        old_KM=np.zeros((0, width)),
        trust_K=np.zeros(0),
        law=warped_gp.LAW,
    )
    fitted = FittedLaw(warped_gp.LAW, law, warped_gp.sample(law, SAMPLES, seed))
    translated = prior.to_log_linear(fitted, old_KO, seed)
    truth = prior.sample_laws(translated, change.mixture_matrix(world.natural_M), -np.ones(width, int), seed=seed)
    decision = recompute.choose(truth, setting, lambda weights: runs, seed=seed)
    choice = decision.taken
    best = value(
        world, optimum(log_linear.LAW, world.law, world.natural_M, world.upper_M, runs_KD=world.natural_M[None])
    )
    facts = change.new, change.affected, weights_M, world.natural_M
    loss = {"natural": value(world, world.natural_M) - best}
    for rule in RULES:
        blocks = choice.blocks if rule == "auto" else strategies.apply(strategies.Strategy(rule), *facts).blocks
        loss[rule] = _value_by(world, blocks, runs, rng.generator(seed, f"{rule} {blocks.names}")) - best
    more = [name for name in choice.recomputed if name not in change.affected]
    reused, full = decision.candidates[:2]
    judged = {"auto": choice, "full_reuse": reused, "full": full}
    predicted = {name: one.loss for name, one in judged.items()}
    quick = {name: one.quick_loss for name, one in judged.items()}
    return {"loss": loss, "predicted": predicted, "predicted_quickly": quick, "also_recomputed": more}


def _value_by(world: World, blocks: Blocks, runs: int, draw) -> float:
    """Fit a law to a new swarm over the blocks, and return the true objective of its optimal mixture."""
    if len(blocks.names) == 1:
        mixture_M = np.minimum(blocks.ratios_DM[0], world.upper_M)
        return value(world, mixture_M / mixture_M.sum())
    ratios_KD = swarm_around(collapse(world.natural_M, blocks), runs, draw)
    params = warped_gp.fit(ratios_KD, noisy_scores(world, expand(ratios_KD, blocks), draw)).params
    return value(world, optimum(warped_gp.LAW, params, world.natural_M, world.upper_M, blocks, ratios_KD))


def _row(kind: str, runs: int, results: list[dict]) -> dict:
    """Return means over worlds, with standard errors."""

    def mean(values) -> dict:
        return {"mean": float(np.mean(values)), "error": float(np.std(values, ddof=1) / np.sqrt(len(values)))}

    rules = {name: mean([one["loss"][name] for one in results]) for name in results[0]["loss"]}
    fixed = min(("full_reuse", "full", "carry"), key=lambda name: rules[name]["mean"])
    shown = ", ".join(f"{name} {1e3 * rule['mean']:.2f} ± {1e3 * rule['error']:.2f}" for name, rule in rules.items())
    log.info("%s, %d runs, %d worlds, loss in mBPB: %s", kind, runs, len(results), shown)
    return {
        "worlds": kind,
        "runs": runs,
        "number": len(results),
        "loss": rules,
        # By trial fits of the law that is fitted, and by the quick fit, which knows the form of the truth.
        **{
            by: {name: mean([one[by][name] for one in results]) for name in results[0][by]}
            for by in ("predicted", "predicted_quickly")
        },
        "best_fixed": fixed,
        # All rules see the same worlds, so differences are taken within each world.
        "auto_minus_best_fixed": mean([one["loss"]["auto"] - one["loss"][fixed] for one in results]),
        "also_recomputed": [one["also_recomputed"] for one in results],
    }


def main() -> None:
    more = {"published": ("", "the folder with olmix_dclm/; empty for random worlds only")}
    flags = common.arguments(__doc__, tuple(SCALES), **more)
    (worlds, sizes), begun = SCALES[flags.scale], time.monotonic()
    kinds = {"no task shared": lambda s: drawn(s, False), "tasks shared": lambda s: drawn(s, True)}
    if flags.published:
        kinds["published"] = lambda s: published(pathlib.Path(flags.published), s)
    rows, first = [], 1000 * flags.seed
    for kind, make in kinds.items():
        # This law takes a hundred times as long, because it has more domains and tasks.
        count, sizes_here = (worlds, sizes) if kind != "published" else (max(2, worlds // 4), sizes[-1:])
        for runs in sizes_here:
            rows.append(_row(kind, runs, [losses(make(seed), runs, seed) for seed in range(first, first + count)]))
            common.write_results(flags.workdir, {"rows": rows, "seconds": time.monotonic() - begun})


if __name__ == "__main__":
    main()

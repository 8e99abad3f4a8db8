"""The rule that chooses what to recompute, against every fixed rule at equal runs, where the truth is known.

python -m experiments.recompute_rule --scale=cpu --workdir=runs/recompute_rule [--published=DIR]

Worlds are log-linear laws that are drawn, with new domains that share tasks with an old one or with none; or, with
--published, that of the published DCLM swarm (`olmix_dclm/` in DIR), three of whose domains at a time are new. In each
world an old swarm is measured with noise, its mixture found, and then new domains come. Every rule gets as many new
runs, and the mixture that its law leads to is judged by the truth. Losses are in BPB above the true optimum.
"""

import dataclasses
import pathlib
import time

import numpy as np

from experiments import common
from olmix_jax.laws import evaluate, log_linear, warped_gp
from olmix_jax.propose import blocks as reuse
from olmix_jax.solver.bounds import box
from olmix_jax.solver.problem import Problem
from olmix_jax.solver.solve import solve
from olmix_jax.swarm import table, task_groups
from olmix_jax.update import changes, prior, recompute, strategies
from olmix_jax.utils import rng
from olmix_jax.utils.progress import log

KL_WEIGHT, REPEATS, SAMPLES, SHARED = 0.05, 4.0, 24, 0.3
RULES = ("full_reuse", "full", "carry", "auto")
# worlds, and runs of the new swarm.
SCALES = {"smoke": (2, (16,)), "cpu": (40, (8, 16, 32))}


@dataclasses.dataclass(frozen=True)
class World:
    """A truth over old and new domains, the old ones first."""

    law: log_linear.Params
    natural_M: np.ndarray
    new: int
    noise: float
    old_runs: int

    @property
    def upper_M(self) -> np.ndarray:
        """Caps of the new set."""
        return np.minimum(1, REPEATS * self.natural_M)


def drawn(seed: int, coupled: bool) -> World:
    """Eight old domains, ten tasks in a row, each domain good for those near its own; two new domains.

    Coupled: the new ones are as the first old one is, but better.
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
    """The law of the published swarm, with three of its larger domains, drawn, as the new ones."""
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
    """The true objective [BPB]."""
    kl = np.where(ratios_M > 0, ratios_M * np.log(np.maximum(ratios_M, 1e-300) / world.natural_M), 0.0).sum()
    return float(evaluate(log_linear.LAW, world.law, ratios_M[None])[0].mean() + KL_WEIGHT * kl)


def measured(world: World, ratios_KM, draw) -> np.ndarray:
    """Scores with noise, a part of which a run's tasks share."""
    bpb_KN = evaluate(log_linear.LAW, world.law, ratios_KM)
    common_K1, own_KN = draw.normal(size=(len(bpb_KN), 1)), draw.normal(size=bpb_KN.shape)
    return bpb_KN + world.noise * (np.sqrt(SHARED) * common_K1 + np.sqrt(1 - SHARED) * own_KN)


def swarm_around(natural_D, runs: int, draw) -> np.ndarray:
    """Mixtures as a swarm has them."""
    tempered_D = natural_D**0.7
    return draw.dirichlet(tempered_D / tempered_D.sum() * len(tempered_D), size=runs)


def optimum(law, params, natural_M, upper_M, blocks=None, runs_KD=None) -> np.ndarray:
    """The mixture of least objective by a law; over blocks if there are any."""
    bounds, tasks = box(0 * upper_M, upper_M), len(np.atleast_1d(evaluate(law, params, runs_KD[:1])[0]))
    anchor = natural_M
    if blocks is not None:
        bounds, anchor = reuse.collapsed_bounds(bounds, blocks), reuse.collapsed_anchor(natural_M, blocks)
    problem = Problem(law, params, np.full(tasks, 1 / tasks), anchor, bounds, KL_WEIGHT)
    starts_SM = None
    if not problem.convex:
        best = evaluate(law, params, runs_KD).mean(axis=1).argmin()
        starts_SM = np.stack([anchor / anchor.sum(), runs_KD[best]])
    found = solve(problem, starts_SM=starts_SM).weights_M
    return found if blocks is None else reuse.expand(found, blocks)


def losses(world: World, runs: int, seed: int) -> dict:
    """BPB above the true optimum by each rule; what was predicted of the choice; and what it recomputed."""
    draw, width = rng.generator(seed, f"rule {runs}"), len(world.natural_M)
    old, tasks = width - world.new, len(world.law.log_c_N)
    natural_O = world.natural_M[:old] / world.natural_M[:old].sum()
    before = World(log_linear.Params(world.law.log_c_N, world.law.coef_NM[:, :old]), natural_O, 0, world.noise, 0)
    old_KO = swarm_around(natural_O, world.old_runs, draw)
    law = warped_gp.fit(old_KO, measured(before, old_KO, draw)).params
    kept_O = optimum(warped_gp.LAW, law, natural_O, np.minimum(1, REPEATS * natural_O), runs_KD=old_KO)
    names = tuple(f"d{j}" for j in range(old))
    change = changes.change(names, [changes.add(*(f"new{j}" for j in range(world.new)))])
    weights_M = np.append(kept_O, np.zeros(world.new))
    setting = recompute.Setting(
        change.new,
        world.natural_M,
        box(np.zeros(width), world.upper_M),
        KL_WEIGHT,
        np.full(tasks, 1 / tasks),
        np.arange(width) >= old,
        weights_M,
        np.full(tasks, world.noise),
        SHARED,
        np.zeros((0, width)),
        np.zeros(0),
    )
    distilled = prior.distil(warped_gp.LAW, warped_gp.sample(law, SAMPLES, seed), old, old_KO, seed)
    truth = prior.truths(distilled, change.expressed(world.natural_M), -np.ones(width, int), seed=seed)
    taken, tried, _ = recompute.choose(truth, setting, lambda dimensions: runs, seed=seed)
    best = value(
        world, optimum(log_linear.LAW, world.law, world.natural_M, world.upper_M, runs_KD=world.natural_M[None])
    )
    known = change.new, change.affected, weights_M, world.natural_M
    found = {"natural": value(world, world.natural_M) - best}
    for rule in RULES:
        blocks = taken.blocks if rule == "auto" else strategies.apply(strategies.Strategy(rule), *known).blocks
        found[rule] = _by(world, blocks, runs, rng.generator(seed, f"{rule} {blocks.names}")) - best
    more = [name for name in taken.recomputed if name not in change.affected]
    predicted = {"auto": taken.loss, "full_reuse": tried[0].loss, "full": tried[1].loss}
    return {"loss": found, "predicted": predicted, "also_recomputed": more}


def _by(world: World, blocks: reuse.Blocks, runs: int, draw) -> float:
    """The true objective of what a swarm over the blocks leads to."""
    if len(blocks.names) == 1:
        mixture_M = np.minimum(blocks.ratios_DM[0], world.upper_M)
        return value(world, mixture_M / mixture_M.sum())
    ratios_KD = swarm_around(reuse.collapse(world.natural_M, blocks), runs, draw)
    params = warped_gp.fit(ratios_KD, measured(world, reuse.expand(ratios_KD, blocks), draw)).params
    return value(world, optimum(warped_gp.LAW, params, world.natural_M, world.upper_M, blocks, ratios_KD))


def _row(kind: str, runs: int, found: list[dict]) -> dict:
    """Means over worlds, with standard errors."""

    def mean(values) -> dict:
        return {"mean": float(np.mean(values)), "error": float(np.std(values, ddof=1) / np.sqrt(len(values)))}

    rules = {name: mean([one["loss"][name] for one in found]) for name in found[0]["loss"]}
    fixed = min(("full_reuse", "full", "carry"), key=lambda name: rules[name]["mean"])
    shown = ", ".join(f"{name} {1e3 * rule['mean']:.2f} ± {1e3 * rule['error']:.2f}" for name, rule in rules.items())
    log.info("%s, %d runs, %d worlds, loss in mBPB: %s", kind, runs, len(found), shown)
    return {
        "worlds": kind,
        "runs": runs,
        "number": len(found),
        "loss": rules,
        "predicted": {name: mean([one["predicted"][name] for one in found]) for name in found[0]["predicted"]},
        "best_fixed": fixed,
        # Rules meet the same worlds, so that their difference is of pairs.
        "auto_minus_best_fixed": mean([one["loss"]["auto"] - one["loss"][fixed] for one in found]),
        "also_recomputed": [one["also_recomputed"] for one in found],
    }


def main() -> None:
    where = {"published": ("", "folder with olmix_dclm/; without it, drawn worlds alone")}
    flags = common.arguments(__doc__, tuple(SCALES), **where)
    (worlds, sizes), begun = SCALES[flags.scale], time.monotonic()
    kinds = {"no task shared": lambda s: drawn(s, False), "tasks shared": lambda s: drawn(s, True)}
    if flags.published:
        kinds["published"] = lambda s: published(pathlib.Path(flags.published), s)
    rows, first = [], 1000 * flags.seed
    for kind, make in kinds.items():
        # Laws over so many domains and tasks take a hundred times as long.
        count, some = (worlds, sizes) if kind != "published" else (max(2, worlds // 4), sizes[-1:])
        rows += [
            _row(kind, runs, [losses(make(seed), runs, seed) for seed in range(first, first + count)]) for runs in some
        ]
    common.write_results(flags.workdir, {"rows": rows, "seconds": time.monotonic() - begun})


if __name__ == "__main__":
    main()

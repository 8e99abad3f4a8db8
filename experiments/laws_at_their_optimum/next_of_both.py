"""Spend a budget on further real and cheap runs in different ways, where the truth is known.

python -m experiments.laws_at_their_optimum.next_of_both --scale=cpu --workdir=runs/next_of_both

Every world starts with a few real and cheap runs as in ``cheap_runs.py``. Each policy adds runs that cost as much as
BUDGET real ones, the law is fitted again, and the truth judges its predictions and its proposal. ``results.json`` has a
row per world, cost of a cheap run, and policy.
"""

import dataclasses
import functools
import pathlib

import numpy as np

from benchmarks.laws_page import table
from experiments import common
from experiments.laws_at_their_optimum import cheap_runs, worlds
from olmix_jax.laws import FittedLaw, evaluate, two_fidelity
from olmix_jax.laws.scores import score
from olmix_jax.propose import make_proposal, next_runs
from olmix_jax.propose.options import Options
from olmix_jax.propose.swarm_facts import SwarmFacts
from olmix_jax.swarm.fidelity import Cheap
from olmix_jax.utils import rng
from olmix_jax.utils.progress import log

REAL, CHEAP, JUDGED, BUDGET = 6, 30, 200, 6
NAMES = tuple(f"d{j}" for j in range(cheap_runs.DOMAINS))
ANY_COST = ("none", "random real", "chosen real")
POLICIES = (*ANY_COST, "random half", "random cheap", "chosen of both")


@dataclasses.dataclass(frozen=True)
class Scale:
    """Worlds per kind, costs of a cheap run, and kinds of truth."""

    worlds: int
    costs: tuple[float, ...]
    kinds: tuple[str, ...] = worlds.KINDS[:-1]


SCALES = {"smoke": Scale(1, (0.5,), ("power",)), "cpu": Scale(3, (0.1, 0.3))}


@dataclasses.dataclass(frozen=True)
class Row:
    """What one policy reached in one world.

    Attributes:
      kind, seed, cost: the world, and the cost of a cheap run.
      policy: one of POLICIES.
      real, cheap: further runs of each kind.
      spearman: rank correlation with the truth at other mixtures, mean over tasks.
      error: root mean square error of their log BPB, relative to natural.
      true, best: true gain of the proposal, and the largest that was found, averaged over tasks [BPB].
    """

    kind: str
    seed: int
    cost: float
    policy: str
    real: int
    cheap: int
    spearman: float
    error: float
    true: float
    best: float


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """Runs of both kinds."""

    ratios_KM: np.ndarray
    bpb_KN: np.ndarray
    cheap: Cheap

    def fitted(self) -> FittedLaw:
        base = two_fidelity.LAW.base(self.cheap.ratios_JM, self.cheap.bpb_JN)
        return FittedLaw(two_fidelity.LAW, two_fidelity.LAW.fit(self.ratios_KM, self.bpb_KN, base=base).params)


def measured(world: worlds.World, ratios_QM, is_cheap_Q, seed: int, stage: str) -> np.ndarray:
    """Return what runs of either kind measure; the truths are those of ``cheap_runs.cheap_scores``.

    ``seed`` is that of the world, and ``stage`` names a draw of the noise.
    """
    draw = rng.generator(seed, f"next_of_both.noise {stage}")
    other = worlds.drawn(world.kind, cheap_runs.DOMAINS, 20, seed=seed + 50_000).params
    other = other._replace(natural_M=world.natural_M, epochs=world.params.epochs)
    unit = cheap_runs.effects(world, world.params).std() / cheap_runs.effects(world, other).std()
    at = dataclasses.replace(world, ratios_KM=ratios_QM)
    effect_QN, other_QN = (cheap_runs.effects(at, params) for params in (world.params, other))
    cheap_QN = (effect_QN + cheap_runs.DISTORTION * unit * other_QN) / cheap_runs.ATTENUATION
    common_Q1, own_QN = draw.normal(size=(len(ratios_QM), 1)), draw.normal(size=effect_QN.shape)
    noise_QN = np.sqrt(cheap_runs.SHARED) * common_Q1 + np.sqrt(1 - cheap_runs.SHARED) * own_QN
    is_cheap_Q1 = np.asarray(is_cheap_Q)[:, None]
    noise_QN *= np.where(is_cheap_Q1, cheap_runs.CHEAP_NOISE, cheap_runs.REAL_NOISE)
    level_N = evaluate(worlds.LAWS[world.kind], world.params, world.natural_M[None])[0]
    return level_N * np.where(is_cheap_Q1, 1.2, 1.0) * np.exp(np.where(is_cheap_Q1, cheap_QN, effect_QN) + noise_QN)


def more(policy: str, fitted: FittedLaw, world: worlds.World, data: Data, cost: float, seed: int):
    """Return the mixtures that a policy adds, and which of them are cheap."""
    if policy.startswith("chosen"):
        cheap = data.cheap._replace(cost=cost if policy.endswith("both") else None)
        found = next_runs.propose_next(
            fitted,
            BUDGET,
            natural_M=world.natural_M,
            domains=NAMES,
            existing_KM=data.ratios_KM,
            cheap=cheap,
            strength=(0.3, 3.0),
            candidates=800 if policy.endswith("both") else 400,
            references=256 if policy.endswith("both") else 128,
            seed=seed,
        )
        return found.ratios_BM, found.cheap_B
    share = {"none": None, "random real": 1.0, "random half": 0.5, "random cheap": 0.0}[policy]
    real, cheap = (0, 0) if share is None else (round(share * BUDGET), round((1 - share) * BUDGET / cost))
    free_QM = worlds.drawn(world.kind, cheap_runs.DOMAINS, 200, seed=seed).ratios_KM
    chosen_Q = rng.generator(seed, "next_of_both.random").permutation(np.arange(1, 200))[: real + cheap]
    return free_QM[chosen_Q], np.arange(real + cheap) >= real


def judged(kind: str, seed: int, costs: tuple[float, ...]) -> list[Row]:
    """Return the rows of one world."""
    noise, shared = cheap_runs.REAL_NOISE, cheap_runs.SHARED
    world = worlds.drawn(kind, cheap_runs.DOMAINS, REAL + CHEAP + JUDGED, noise=noise, shared=shared, seed=seed)
    first_KM, is_cheap_K = world.ratios_KM[: REAL + CHEAP], np.arange(REAL + CHEAP) >= REAL
    bpb_KN = measured(world, first_KM, is_cheap_K, seed, "first")
    ids = tuple(f"c{j}" for j in range(CHEAP))
    data = Data(first_KM[:REAL], bpb_KN[:REAL], Cheap(ids, first_KM[REAL:], bpb_KN[REAL:]))
    fitted, rows = data.fitted(), []
    for cost in costs:
        for policy in POLICIES:
            if same := [row for row in rows if policy in ANY_COST and row.policy == policy]:
                rows.append(dataclasses.replace(same[0], cost=cost))
                continue
            ratios_BM, cheap_B = more(policy, fitted, world, data, cost, seed)
            added_BN = measured(world, ratios_BM, cheap_B, seed, "more")
            everything = Data(
                np.concatenate([data.ratios_KM, ratios_BM[~cheap_B]]),
                np.concatenate([data.bpb_KN, added_BN[~cheap_B]]),
                Cheap(
                    ids,
                    np.concatenate([data.cheap.ratios_JM, ratios_BM[cheap_B]]),
                    np.concatenate([data.cheap.bpb_JN, added_BN[cheap_B]]),
                ),
            )
            numbers = int((~cheap_B).sum()), int(cheap_B.sum())
            rows.append(Row(kind, seed, cost, policy, *numbers, *_scores(world, everything, seed)))
    return rows


def _scores(world: worlds.World, data: Data, seed: int) -> tuple[float, float, float, float]:
    """Return the last fields of a row."""
    fitted, new_KM = data.fitted(), world.ratios_KM[-JUDGED:]
    true_KN, natural_1M = evaluate(worlds.LAWS[world.kind], world.params, new_KM), world.natural_M[None]
    bpb_KN, at_natural_N = fitted.predict(new_KM), fitted.predict(natural_1M)
    true_1N = evaluate(worlds.LAWS[world.kind], world.params, natural_1M)
    error_KN = np.log(bpb_KN / at_natural_N) - np.log(true_KN / true_1N)
    tasks = tuple(f"t{i}" for i in range(bpb_KN.shape[1]))
    facts = SwarmFacts(
        tasks, NAMES, world.natural_M, cheap_runs.UNIQUE * world.tokens_M, ratios_KM=data.ratios_KM, bpb_KN=data.bpb_KN
    )
    options = Options(
        kl_weight=cheap_runs.KL_WEIGHT,
        max_repeats=worlds.REPEATS,
        target_tokens=cheap_runs.UNIQUE * world.target,
        explore=False,
    )
    weights = make_proposal.solve(fitted, facts, options, seed=seed).proposal.weights
    proposed_1M = np.array([[weights[name] for name in NAMES]])
    spearman = float(score(bpb_KN, true_KN).spearman_N.mean())
    best = world.best_gain(proposed_1M)
    return spearman, float(np.sqrt((error_KN**2).mean())), float(world.gain(proposed_1M)[0]), best


def summary(rows: list[Row]) -> str:
    """Return a table of means by cost and policy; regret with its standard error over worlds."""
    lines = []
    for cost in dict.fromkeys(row.cost for row in rows):
        best = {(r.kind, r.seed): max(q.best for q in rows if (q.kind, q.seed) == (r.kind, r.seed)) for r in rows}
        for policy in POLICIES:
            of = [row for row in rows if (row.cost, row.policy) == (cost, policy)]
            mean = functools.partial(_mean, of)
            regret = np.array([best[row.kind, row.seed] - row.true for row in of])
            cells = [f"{mean('real'):.1f}", f"{mean('cheap'):.1f}", f"{mean('spearman'):.3f}", f"{mean('error'):.4f}"]
            cells += [f"{mean('true'):.4f}", f"{regret.mean():.4f} ± {regret.std() / len(of) ** 0.5:.4f}"]
            lines.append((f"{cost:g}", policy, str(len(of)), *cells))
    header = ("cost", "policy", "worlds", "real", "cheap", "Spearman", "error of log BPB", "true gain", "regret")
    return table(header, lines)


def _mean(rows: list[Row], name: str) -> float:
    return float(np.mean([getattr(row, name) for row in rows]))


def run(scale: Scale, workdir: pathlib.Path, seed: int) -> list[Row]:
    """Judge all policies, and write the rows. The worlds are of seeds from 8000, which served no choice."""
    rows = []
    for kind in scale.kinds:
        for number in range(8000 + 100 * seed, 8000 + 100 * seed + scale.worlds):
            rows += judged(kind, number, scale.costs)
            log.info("%s, world %d", kind, number)
    common.write_results(workdir, {"rows": [dataclasses.asdict(row) for row in rows]})
    return rows


def main() -> None:
    flags = common.arguments(__doc__, tuple(SCALES))
    print(summary(run(SCALES[flags.scale], flags.workdir, flags.seed)))


if __name__ == "__main__":
    main()

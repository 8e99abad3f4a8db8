"""How a proposal moves with its settings, all settings solved in one call; and the λ that data choose."""

import dataclasses

import jax
import numpy as np

from olmix_jax.laws import evaluate, evaluate_each, quality
from olmix_jax.propose import proposal
from olmix_jax.propose.feasibility import repetition_caps
from olmix_jax.solver import batch, starts
from olmix_jax.solver.feasibility import feasible
from olmix_jax.solver.problem import Problem
from olmix_jax.utils import rng
from olmix_jax.utils.errors import UserError

# λ [BPB per nat], and multiples of k.
KL_WEIGHTS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
REPEATS = (0.5, 1.0, 2.0, 4.0)
# Steps between one family's weight of 0 and of 1, for two families and for more.
STEPS = {2: 20, 3: 6}
# Random halves of the runs, each half judged by the other.
SPLITS = 4
# Starts for a law that is not convex; neighbours on a path mostly lead to the same place.
STARTS = 2


def path(
    problem: Problem,
    kl_weights_L,
    repeats_R,
    *,
    wished_M,
    tokens_M,
    target_tokens,
    natural_M,
    ratios_KM=None,
    seed: int = 0,
) -> proposal.Path | None:
    """The mixture for every λ and every k; k and R enter by k/R alone, so twice the tokens are half the repeats.

    Args:
      problem: at the settings in use; its own λ and repetition caps are replaced.
      kl_weights_L: λ > 0, ascending.
      repeats_R: k, ascending; [None] where repetition is not capped.
      wished_M: upper bounds but for repetition's.
      tokens_M: N_j, where it is.
      target_tokens: R, where it is.
      natural_M: to compare with.
      ratios_KM: runs to start from, for a law that is not convex.
      seed: of starts that are drawn.

    Returns:
      The path without ``chosen``; None if no mixture keeps the caps of any k.
    """
    uppers = {r: _upper(problem, wished_M, k, tokens_M, target_tokens) for r, k in enumerate(repeats_R)}
    uppers = {r: upper_M for r, upper_M in uppers.items() if upper_M is not None}
    cells = [(i, r) for i in range(len(kl_weights_L)) for r in uppers]
    if not cells:
        return None
    kl_weight_P = np.array([kl_weights_L[i] for i, _ in cells])
    found_PM = _solved(problem, {"upper_M": np.stack([uppers[r] for _, r in cells])}, kl_weight_P, ratios_KM, seed)
    predicted_P = evaluate(problem.law, problem.params, found_PM) @ problem.weights
    kl_P = problem.kl(found_PM)

    def table(values_P) -> tuple:
        """One row per λ and one entry per k; None where no mixture keeps the caps."""
        by_cell = dict(zip(cells, values_P, strict=True))
        return tuple(tuple(by_cell.get((i, r)) for r in range(len(repeats_R))) for i in range(len(kl_weights_L)))

    natural = float(evaluate(problem.law, problem.params, natural_M[None])[0] @ problem.weights)
    return proposal.Path(
        kl_weight=tuple(kl_weights_L),
        max_repeats=tuple(repeats_R),
        weights=table(map(tuple, found_PM.tolist())),
        predicted=table(predicted_P.tolist()),
        kl=table(kl_P.tolist()),
        predicted_natural=natural,
    )


def pareto(
    problem: Problem, families, tasks, domains, *, natural_M, weights_M, ratios_KM=None, seed: int = 0
) -> proposal.Front | None:
    """Mixtures of which no family can be predicted better without another's being worse (for a convex law).

    Families' weights run over a grid; each family's is shared equally by its tasks.

    Args:
      problem: its task weights are replaced.
      families: {family: its tasks}.
      tasks: N names.
      domains: M names.
      natural_M: marked beside the front.
      weights_M: the proposal, likewise.
      ratios_KM: runs to start from.
      seed: of starts that are drawn.

    Returns:
      The front; None for another number of families than two or three.
    """
    names = list(families)
    if len(names) not in STEPS:
        return None
    rows_FN = np.array([[(task in families[name]) / len(families[name]) for task in tasks] for name in names])
    grid_PF = np.array(_compositions(STEPS[len(names)], len(names)), np.float64) / STEPS[len(names)]
    found_PM = _solved(problem, {"weights": grid_PF @ rows_FN}, problem.kl_weight, ratios_KM, seed)
    marked_CM = np.concatenate([found_PM, natural_M[None], weights_M[None]])
    bpb_CF = evaluate(problem.law, problem.params, marked_CM) @ rows_FN.T
    *bpb_PF, natural_F, proposed_F = bpb_CF
    # By the objective with its KL term a point may be worse in every family than one of another weighting.
    front = [f for f, own_F in enumerate(bpb_PF) if not any((o <= own_F).all() and (o < own_F).any() for o in bpb_PF)]
    points = (
        proposal.FrontPoint(
            family_weights=proposal.by_name(names, grid_PF[f]),
            predicted=proposal.by_name(names, bpb_PF[f]),
            weights=proposal.by_name(domains, found_PM[f]),
        )
        for f in front
    )
    natural, proposed = proposal.by_name(names, natural_F), proposal.by_name(names, proposed_F)
    return proposal.Front(tuple(names), tuple(points), natural, proposed)


def choose_kl_weight(
    law, ratios_KM, bpb_KN, problem: Problem, kl_weights_L, *, natural_M, splits: int = SPLITS, seed: int = 0
) -> proposal.LambdaChoice:
    """λ by what a proposal of half of the runs gains by a law of the other half, which it has not seen.

    A law's own optimum flatters it: where it errs, the optimum goes. A small λ follows its errors further than a large
    one. The best λ is the largest whose gain is within one standard error, of the difference over splits, of the most.

    Args:
      law: the module; fitted to halves of the runs (all mixtures of a run's replicates on one side).
      ratios_KM: runs.
      bpb_KN: what they measured.
      problem: task weights, anchor and bounds.
      kl_weights_L: λ > 0, ascending.
      natural_M: what gains are over.
      splits: random halvings; each side judges the other.
      seed: of the halvings.

    Returns:
      The gain by λ and the best λ, not marked as used.

    Raises:
      UserError: too few runs to halve.
    """
    which_K = quality.mixtures(ratios_KM)
    number = int(which_K.max()) + 1
    if number // 2 < max(4, law.parameters(ratios_KM.shape[1]) + 1):
        raise UserError(f"{number} different mixtures are too few for laws of half of them")
    draw = rng.generator(seed, "paths.choose_kl_weight")
    first_SK = np.stack([(draw.permutation(number) < number // 2)[which_K] for _ in range(splits)])
    halves_HK = np.stack([first_SK, ~first_SK], axis=1).reshape(-1, len(which_K)).astype(np.float64)
    params_H = law.fit_weighted(ratios_KM, bpb_KN, halves_HK, seed=seed)
    lambdas, sides = len(kl_weights_L), len(halves_HK)
    wide = jax.tree.map(lambda x: np.repeat(x, lambdas, axis=0), params_H)
    kl_weight_P = np.tile(np.asarray(kl_weights_L, np.float64), sides)
    half = dataclasses.replace(problem, law=law, params=jax.tree.map(lambda x: np.asarray(x)[0], params_H))
    found_PM = _solved(half, {"params": wide}, kl_weight_P, ratios_KM, seed)
    asked_HCM = np.concatenate(
        [found_PM.reshape(sides, lambdas, -1), np.broadcast_to(natural_M, (sides, 1, len(natural_M)))], axis=1
    )
    # Every half's proposals by the law of the other half.
    others = np.arange(sides) ^ 1
    judges = jax.tree.map(lambda x: np.asarray(x)[others], params_H)
    bpb_HC = evaluate_each(law, judges, asked_HCM) @ problem.weights
    gain_SL = (bpb_HC[:, -1:] - bpb_HC[:, :-1]).reshape(splits, 2, lambdas).mean(axis=1)
    mean_L, best = gain_SL.mean(axis=0), int(gain_SL.mean(axis=0).argmax())
    behind_L = (gain_SL[:, best : best + 1] - gain_SL).std(axis=0, ddof=1) / np.sqrt(splits)
    within = np.flatnonzero(mean_L >= mean_L[best] - behind_L)
    return proposal.LambdaChoice(
        kl_weight=tuple(kl_weights_L),
        gain=tuple(mean_L.tolist()),
        gain_error=tuple((gain_SL.std(axis=0, ddof=1) / np.sqrt(splits)).tolist()),
        best=float(kl_weights_L[int(within.max())]),
        splits=splits,
        used=False,
    )


def _solved(problem: Problem, own: dict, kl_weight_P, ratios_KM, seed: int) -> np.ndarray:
    """found_PM: the problem with some of its parts replaced, one per problem on a leading axis.

    ``own`` has parts by their names: params, weights, upper_M.
    """
    number = len(jax.tree.leaves(own)[0])
    # Parts that all share are spelt out as well, so that paths and fronts are one program.
    weights_PN, upper_PM, kl_weight_P = (
        np.broadcast_to(x, (number, *np.shape(like)))
        for x, like in (
            (own.get("weights", problem.weights), problem.weights),
            (own.get("upper_M", problem.bounds.upper_M), problem.bounds.upper_M),
            (np.asarray(kl_weight_P, np.float64), 0.0),
        )
    )
    varying = batch.Varying(own.get("params"), weights_PN, upper_M=upper_PM, kl_weight=kl_weight_P)
    begin_SM = problem.anchor_M[None] if problem.convex else starts.from_runs(problem, ratios_KM, seed)[:STARTS]
    ends = [batch.solve_each(problem, varying, start_M=start_M) for start_M in begin_SM]
    value_SP = np.stack([np.where(np.isfinite(end.value), end.value, np.inf) for end in ends])
    found_PM = np.stack([end.weights_M for end in ends])[value_SP.argmin(axis=0), np.arange(number)]
    if not np.isfinite(value_SP.min(axis=0)).all() or not np.isfinite(found_PM).all():
        raise UserError("the law predicts no finite BPB around the natural distribution: fit it on more runs")
    return found_PM


def _upper(problem: Problem, wished_M, repeats, tokens_M, target_tokens):
    """The upper bounds with k repeats; None where no mixture keeps them."""
    caps_M = np.ones(len(wished_M)) if repeats is None else repetition_caps(tokens_M, target_tokens, repeats)
    upper_M = np.where(problem.anchor_M > 0, np.minimum(wished_M, caps_M), 0.0)
    return upper_M if feasible(problem.bounds._replace(upper_M=upper_M)) else None


def _compositions(total: int, parts: int):
    """Ways to write a total as so many numbers of 0 or more, in order."""
    if parts == 1:
        return [(total,)]
    return [(i, *others) for i in range(total + 1) for others in _compositions(total - i, parts - 1)]

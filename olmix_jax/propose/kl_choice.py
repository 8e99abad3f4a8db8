"""The choice of λ from data: proposals of one half of the runs, judged by a law of the other half.

The optimum of a law exploits its errors, so its own prediction there is too good. A small λ follows the errors further
than a large one. A law of other runs has other errors and shows the real gain.
"""

import dataclasses

import jax
import numpy as np

from olmix_jax.laws import Law, evaluate_each, quality
from olmix_jax.propose.proposal_parts import LambdaChoice
from olmix_jax.propose.variants import best_run, solve_variants
from olmix_jax.solver.problem import Problem
from olmix_jax.utils import rng
from olmix_jax.utils.errors import UserError

# Number of random halvings of the runs; each half judges the other.
SPLITS = 4


def choose_kl_weight(
    law: Law, ratios_KM, bpb_KN, problem: Problem, kl_weights_L, *, natural_M, splits: int = SPLITS, seed: int = 0
) -> LambdaChoice:
    """Return the gain by λ and the best λ: the largest whose gain is within one standard error of the largest gain.

    The standard error is that of the difference in gain, over splits. The best λ is chosen by its gain, so that gain is
    too high. ``held_out_gain`` is the gain of a choice: each split's at the λ that the others choose.

    Args:
      law: the family; it is fitted to halves of the runs. Replicates of a mixture stay in one half.
      ratios_KM: the runs' mixtures.
      bpb_KN: the runs' measurements.
      problem: gives task weights, anchor and bounds and, if it has the same law, the fit to all runs.
      kl_weights_L: λ > 0, ascending.
      natural_M: the mixture that gains are measured from.
      splits: number of random halvings, at least three.
      seed: of the halvings.

    Raises:
      UserError: there are too few runs to halve.
    """
    halves_HK = halves(law, ratios_KM, splits, seed)
    begin = problem.params if problem.law == law else None
    params_H = law.refit(ratios_KM, bpb_KN, halves_HK, seed=seed, begin=begin)
    lambdas, sides = len(kl_weights_L), len(halves_HK)
    problems = [
        dataclasses.replace(problem, law=law, params=jax.tree.map(lambda x, h=h: np.asarray(x)[h], params_H))
        for h in range(sides)
    ]
    near_M = None if problem.convex else best_run(problems[0], ratios_KM, seed)
    variants_H = [solve_variants(half, kl_weights_L, near_M=near_M) for half in problems]
    compared_HCM = np.stack([np.concatenate([variants.ratios_PM, natural_M[None]]) for variants in variants_H])
    # Halves of a split are neighbours; each half's proposals are judged by the law of the other half.
    others = np.arange(sides) ^ 1
    judges_H = jax.tree.map(lambda x: np.asarray(x)[others], params_H)
    bpb_HC = evaluate_each(law, judges_H, compared_HCM) @ problem.weights
    gain_SL = (bpb_HC[:, -1:] - bpb_HC[:, :-1]).reshape(splits, 2, lambdas).mean(axis=1)
    unseen_S = not_chosen_by(gain_SL)
    return LambdaChoice(
        kl_weight=tuple(kl_weights_L),
        gain=tuple(gain_SL.mean(axis=0).tolist()),
        # All splits are of the same runs, so their mean is hardly more certain than one of them: its standard error
        # over swarms was 1.7 to 2.0 times the one of independent splits, and √SPLITS is 2.
        gain_error=tuple(gain_SL.std(axis=0, ddof=1).tolist()),
        best=float(kl_weights_L[chosen(gain_SL)]),
        splits=splits,
        used=False,
        unconverged=sum(variants.unconverged for variants in variants_H),
        held_out_gain=float(unseen_S.mean()),
        held_out_gain_error=float(unseen_S.std(ddof=1)),
    )


def chosen(gain_SL) -> int:
    """Return the column of the largest λ whose mean gain is within one standard error of the best.

    Args:
      gain_SL: gain of each split (at least two) by λ, ascending.
    """
    # The standard error is that of independent splits, although splits share runs. The larger error of splits that
    # share all runs chooses larger λ, whose mixtures are truly worse (docs/log.md).
    mean_L, best = gain_SL.mean(axis=0), int(gain_SL.mean(axis=0).argmax())
    error_L = (gain_SL[:, best : best + 1] - gain_SL).std(axis=0, ddof=1) / np.sqrt(len(gain_SL))
    return int(np.flatnonzero(mean_L >= mean_L[best] - error_L).max())


def not_chosen_by(gain_SL) -> np.ndarray:
    """Return each split's gain at the λ that the *other* splits choose, gain_S. At least three splits."""
    return np.array([gain_SL[s, chosen(np.delete(gain_SL, s, axis=0))] for s in range(len(gain_SL))])


def halves(law: Law, ratios_KM, splits: int = SPLITS, seed: int = 0) -> np.ndarray:
    """Return weights of the runs, halves_HK of 0 and 1: both halves of the first split, of the second, and so on.

    Raises:
      UserError: there are too few runs to halve.
    """
    mixture_K = quality.mixtures(ratios_KM)
    number = int(mixture_K.max()) + 1
    least = 2 * max(4, law.parameters(ratios_KM.shape[1]) + 1)
    if number < least:
        raise UserError(
            f"{number} different mixtures are too few to fit laws to halves of them; add runs up to {least}, or set "
            "propose.kl_weight"
        )
    # The name of the stream is part of every result; it must not change.
    draw = rng.generator(seed, "paths.choose_kl_weight")
    first_SK = np.stack([(draw.permutation(number) < number // 2)[mixture_K] for _ in range(splits)])
    return np.stack([first_SK, ~first_SK], axis=1).reshape(-1, len(mixture_K)).astype(np.float64)

"""Losses of choices by trial fits: the law that will be fitted, fitted to simulated swarms.

The quick fit of :mod:`olmix_jax.update.simulation` knows the form of the truth, its constants, its noise and the prior
of its coefficients. That is good enough to find candidates among many choices, but its losses are too small where few
weights are fitted, and too large where there are hardly more runs than weights (docs/log.md). So the candidates are
judged by fits of the real family to simulated scores, which know nothing but the runs.
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from olmix_jax.laws import FittedLaw, Law, evaluate_each, log_linear
from olmix_jax.propose.blocks import Blocks, collapsed_anchor, collapsed_bounds, expand
from olmix_jax.propose.variants import solve_variants
from olmix_jax.update.simulation import Choice, Simulation
from olmix_jax.utils import rng

# Starting points of each fit, for families that use several.
STARTS = 2
# Runs in all trial fits of the largest swarm, and the least number of truths. With this many runs over 64 domains and
# with 52 tasks, the fits of a candidate take a minute of one core.
RUNS, LEAST_TRUTHS = 4096, 8


def judge(simulation: Simulation, choices: Sequence[Choice]) -> list[Choice]:
    """Return the choices with the losses of trial fits; unchanged without a law that can be fitted and followed.

    All choices see the same truths: as many of the simulation's as RUNS allows.
    """
    law, old = simulation.setting.law, len(simulation.setting.trust_K)
    if law is None or not law.differentiable:
        return list(choices)
    largest = max(choice.proxies for choice in choices) + old
    truths = min(len(simulation.gain_S), max(LEAST_TRUTHS, RUNS // max(largest, 1)))
    return [_judged(simulation, choice, law, truths) for choice in choices]


def _judged(simulation: Simulation, choice: Choice, law: Law, truths: int) -> Choice:
    if not choice.proxies:
        return dataclasses.replace(choice, loss_S=choice.loss_S[:truths])
    mixture_SM = _proposals(simulation, choice.blocks, choice.proxies, law, truths)
    return dataclasses.replace(choice, loss_S=simulation.losses(mixture_SM), quick_loss=choice.loss)


def _proposals(simulation: Simulation, blocks: Blocks, runs: int, law: Law, truths: int) -> np.ndarray:
    """Return the mixture_SM that a law fitted to a new swarm over the blocks proposes, for each of the first truths.

    Without old runs the law is over blocks, as in the stage ``fit``; with old runs it is over domains.
    """
    setting, drawn_KD = simulation.setting, simulation.swarm(blocks, runs)
    ratios_KM = np.concatenate([expand(drawn_KD, blocks), setting.old_KM])
    trust_K = np.concatenate([np.ones(runs), setting.trust_K])
    bpb_SKN = _scores(simulation, ratios_KM, trust_K, truths)
    over_blocks = not len(setting.trust_K)
    fitted_KX = drawn_KD if over_blocks else ratios_KM
    fits = [
        law.fit(fitted_KX, bpb_KN, starts=STARTS, seed=simulation.seed, weight_K=trust_K).params for bpb_KN in bpb_SKN
    ]
    fitted = FittedLaw(law, fits[0], jax.tree.map(lambda *of_each: np.stack(of_each), *fits))
    fitted = fitted.through(np.eye(len(blocks.names)) if over_blocks else blocks.ratios_DM)
    problem = dataclasses.replace(
        setting.problem,
        law=fitted.law,
        params=fitted.params,
        anchor_M=collapsed_anchor(setting.problem.anchor_M, blocks),
        bounds=collapsed_bounds(setting.problem.bounds, blocks),
    )
    solved = solve_variants(
        problem,
        problem.kl_weight,
        params=fitted.samples,
        weights_PN=simulation.weights_SN[:truths],
        ratios_KM=drawn_KD,
        seed=simulation.seed,
    )
    return expand(solved.ratios_PM, blocks)


def _scores(simulation: Simulation, ratios_KM, trust_K, truths: int) -> np.ndarray:
    """Return simulated scores bpb_SKN. Choices with the same number of runs get the same noise."""
    setting, truth = simulation.setting, jax.tree.map(lambda x: x[:truths], simulation.truth)
    bpb_SKN = evaluate_each(log_linear.LAW, truth, ratios_KM)
    draw = rng.generator(simulation.seed, f"recompute.trial {len(ratios_KM)}")
    run_SK1, task_SKN = draw.normal(size=(*bpb_SKN.shape[:2], 1)), draw.normal(size=bpb_SKN.shape)
    noise_SKN = np.sqrt(setting.shared) * run_SK1 + np.sqrt(1 - setting.shared) * task_SKN
    return bpb_SKN + noise_SKN * setting.noise_N / np.sqrt(trust_K)[:, None]

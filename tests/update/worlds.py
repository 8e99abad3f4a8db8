"""Inputs of simulated updates: an old law over five domains, to which one is added."""

import dataclasses

import numpy as np

from olmix_jax.laws import log_linear
from olmix_jax.solver.bounds import box
from olmix_jax.solver.problem import Problem
from olmix_jax.update import changes
from olmix_jax.update.simulation import Setting

TASKS, SAMPLES = 6, 12
NAMES = tuple("abcde")
ADDED = changes.change(NAMES, [changes.add("new")])
NATURAL = np.array([0.2, 0.2, 0.15, 0.15, 0.1, 0.2])
# An old mixture, and 0 for the added domain.
WEIGHTS = np.array([0.25, 0.2, 0.2, 0.2, 0.15, 0.0])


def old_law(rng, noise=0.02):
    """Samples of a law in which domain j helps task j most, and domain a also helps task 5."""
    coef_NO = np.full((TASKS, len(NAMES)), -0.1)
    coef_NO[np.arange(len(NAMES)), np.arange(len(NAMES))] = -1.2
    coef_NO[5, 0] = -1.0
    coef_SNO = coef_NO + noise * rng.normal(size=(SAMPLES, TASKS, len(NAMES)))
    return log_linear.Params(np.full((SAMPLES, TASKS), np.log(0.5)), coef_SNO)


def make_setting(change, natural_M, weights_M, upper=4.0, noise=0.01, **more):
    """A setting whose caps are ``upper`` times natural."""
    natural_M = np.asarray(natural_M)
    affected_M = np.array([name in change.affected for name in change.new])
    bounds = box(np.zeros(len(natural_M)), np.minimum(1, upper * natural_M))
    fields = {
        "domains": change.new,
        "natural_M": natural_M,
        "problem": Problem(log_linear.LAW, None, np.full(TASKS, 1 / TASKS), natural_M, bounds, 0.02),
        "affected_M": affected_M,
        "weights_M": np.where(affected_M, 0.0, weights_M),
        "noise_N": np.full(TASKS, noise),
        "shared": 0.3,
        "old_KM": np.zeros((0, len(change.new))),
        "trust_K": np.zeros(0),
    }
    return Setting(**fields | more)


def posed(setting, **parts):
    """The setting with other parts of its problem; parts of its bounds may be given too."""
    bounds = {name: parts.pop(name) for name in list(parts) if name in setting.bounds._fields}
    problem = dataclasses.replace(setting.problem, bounds=setting.bounds._replace(**bounds), **parts)
    return dataclasses.replace(setting, problem=problem)

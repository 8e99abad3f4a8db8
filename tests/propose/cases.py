"""Laws, swarms and proposals that several tests of this folder share."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from olmix_jax.laws import FittedLaw, evaluate, log_linear, search, warped_gp
from olmix_jax.propose import propose
from olmix_jax.propose.formulation import Formulation, formulate
from olmix_jax.propose.options import Options
from olmix_jax.propose.proposal import Proposal
from olmix_jax.propose.swarm_facts import SwarmFacts

OPTION_NAMES = {field.name for field in dataclasses.fields(Options)}

# A convex law over three domains and two tasks that pull in different directions.
TASKS = ("math", "chat")
DOMAINS = ("web:a", "web:b", "code")
NATURAL_M = np.array([0.1, 0.3, 0.6])
PARAMS = log_linear.Params(np.log([0.5, 0.4]), np.array([[-1.5, 0.3, 0.2], [0.4, -0.6, 0.1]]))

# Four runs; the law `search` proposes the best one.
RUNS_KM = np.array([[0.9, 0.1, 0.0], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.0, 0.2, 0.8]])
SEARCH = FittedLaw(search.LAW, search.fit(RUNS_KM, np.array([[1.0, 1.2], [1.3, 1.1], [1.5, 1.4], [1.6, 1.5]])).params)


def sampled_params(noise: float, number: int = 24) -> log_linear.Params:
    """Samples of PARAMS with normal noise in the coefficients."""
    rng = np.random.default_rng(0)
    coef_RNM = PARAMS.coef_NM + noise * rng.normal(size=(number, 2, 3))
    return log_linear.Params(np.tile(PARAMS.log_c_N, (number, 1)), coef_RNM)


def split(arguments: dict) -> tuple[Options, dict]:
    """Options, which do not explore by default, and the remaining arguments."""
    options = {"explore": False} | {name: value for name, value in arguments.items() if name in OPTION_NAMES}
    return Options(**options), {name: value for name, value in arguments.items() if name not in OPTION_NAMES}


def log_linear_case(samples=None, **arguments) -> tuple[FittedLaw, SwarmFacts, Options]:
    """PARAMS with options and facts by keyword."""
    options, facts = split(arguments)
    swarm = SwarmFacts(**{"tasks": TASKS, "domains": DOMAINS, "natural_M": NATURAL_M} | facts)
    return FittedLaw(log_linear.LAW, PARAMS, samples), swarm, options


def log_linear_formulation(**arguments) -> Formulation:
    return formulate(*log_linear_case(**arguments))


def log_linear_proposal(**arguments) -> Proposal:
    return propose(*log_linear_case(**arguments))


def proposal_of(fitted: FittedLaw, natural_M, *, seed: int = 0, **arguments) -> Proposal:
    """A proposal for any law of the tasks math and chat, over domains d0, d1, …"""
    options, facts = split(arguments)
    names = tuple(f"d{j}" for j in range(len(natural_M)))
    swarm = SwarmFacts(**{"tasks": TASKS, "domains": names, "natural_M": natural_M} | facts)
    return propose(fitted, swarm, options, seed=seed)


def weights_of(proposal: Proposal) -> np.ndarray:
    return np.array(list(proposal.weights.values()))


def caps_of(proposal: Proposal) -> np.ndarray:
    return np.array(list(proposal.caps.values()))


def _waves(params, ratios_KM):
    direction_NM, phase_N = params
    return 2 + jnp.cos(ratios_KM @ direction_NM.T + phase_N[None, :])


# A law with many local minima: cosines along random directions.
WAVES = dataclasses.replace(log_linear.LAW, name="waves", predict=_waves, convex=False)


def waves(rng, scale: float = 1.0) -> FittedLaw:
    """WAVES over six domains."""
    return FittedLaw(WAVES, (scale * rng.normal(size=(2, 6)), rng.normal(size=2)))


def _steps(params, ratios_KM):
    bowl_K = ((ratios_KM - params) ** 2).sum(axis=1)
    return np.stack([np.floor(20 * bowl_K) / 20, np.floor(30 * bowl_K) / 30], axis=1) + 1


def steps(centre_M) -> FittedLaw:
    """A piecewise constant law, as of trees: a rounded quadratic bowl around a mixture."""
    law = dataclasses.replace(log_linear.LAW, name="steps", predict=_steps, differentiable=False, convex=False)
    return FittedLaw(law, centre_M)


def fitted_gp(noise: float = 0.003, seed: int = 2) -> tuple[FittedLaw, np.ndarray]:
    """The default law, fitted to 30 noisy runs of PARAMS; and the runs' mixtures."""
    rng = np.random.default_rng(seed)
    ratios_KM = rng.dirichlet(np.ones(3), size=30)
    bpb_KN = evaluate(log_linear.LAW, PARAMS, ratios_KM) + noise * rng.normal(size=(30, 2))
    return FittedLaw(warped_gp.LAW, warped_gp.fit(ratios_KM, bpb_KN).params), ratios_KM

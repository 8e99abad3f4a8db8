"""Synthetic truths: functions from mixture to BPB, swarms that measure them with noise, and their optima.

A world has M domains of unequal sizes, a target run of R tokens, and N tasks. A task depends on a few domains, and one
domain matters to most tasks. The kinds differ in how a domain acts:

    log_linear    c + exp(A·p), the only kind that a family of laws represents exactly
    threshold     a logistic step in each weight
    power         a sum of power laws in the weights
    interaction   pairs of domains help only together
    repetition    power laws in effective tokens, which saturate with epochs, and a harm beyond some epochs
    nothing       no domain acts
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from olmix_jax.laws import Law, evaluate
from olmix_jax.solver.bounds import Bounds, box
from olmix_jax.solver.problem import Problem
from olmix_jax.solver.solve import solve
from olmix_jax.solver.starts import spread_out
from olmix_jax.swarm import sampling
from olmix_jax.utils import rng

# Sequences of a proxy: mixtures are multiples of 1/SEQUENCES.
SEQUENCES = 8_000
# Epochs that additional epochs are worth at most (Muennighoff et al. 2023, R* of repeated tokens).
WORTH = 8.0
REPEATS = 4.0


class Params(NamedTuple):
    """Parameters of a truth. What ``strength``, ``place`` and ``shape`` mean depends on the kind.

    Attributes:
      base_N: BPB that no mixture changes.
      strength_NM: size of a domain's effect.
      place_NM: the weight, or number of epochs, at which it acts.
      shape_NM: steepness, exponent, or harm.
      natural_M: the natural distribution.
      epochs: R / Σ N_j, epochs of every domain under natural.
    """

    base_N: Any
    strength_NM: Any
    place_NM: Any
    shape_NM: Any
    natural_M: Any
    epochs: Any


@dataclasses.dataclass(frozen=True, eq=False)
class World:
    """A truth and a swarm that measured it.

    Attributes:
      kind: one of :data:`KINDS`.
      params: of the truth.
      tokens_M: N_j, of sum 1.
      target: R, in the same unit.
      ratios_KM, bpb_KN: the swarm; BPB with noise.
    """

    kind: str
    params: Params
    tokens_M: np.ndarray
    target: float
    ratios_KM: np.ndarray
    bpb_KN: np.ndarray

    @property
    def natural_M(self) -> np.ndarray:
        return self.tokens_M

    @property
    def bounds(self) -> Bounds:
        """No domain is repeated more than REPEATS times."""
        return box(np.zeros(len(self.tokens_M)), np.minimum(1.0, REPEATS * self.tokens_M / self.target))

    def gain(self, ratios_QM) -> np.ndarray:
        """Return the true gain of mixtures over natural, averaged over tasks [BPB]."""
        bpb_QN = evaluate(LAWS[self.kind], self.params, np.concatenate([self.natural_M[None], ratios_QM]))
        return bpb_QN[0].mean() - bpb_QN[1:].mean(axis=1)

    def best_gain(self, near_QM) -> float:
        """Return the largest true gain that was found, from many starts and from the mixtures ``near_QM``."""
        tasks = self.bpb_KN.shape[1]
        law, weights_N = LAWS[self.kind], np.full(tasks, 1 / tasks)
        problem = Problem(law, self.params, weights_N, self.natural_M, self.bounds, kl_weight=0.0)
        starts_SM = np.concatenate([spread_out(problem, self.ratios_KM, seed=0), near_QM])
        found_M = solve(problem, starts_SM=starts_SM).weights_M
        return float(self.gain(np.concatenate([found_M[None], self.natural_M[None], near_QM])).max())


def drawn(
    kind: str, domains: int, runs: int, *, tasks: int = 12, noise: float = 0.006, shared: float = 0.3, seed: int = 0
) -> World:
    """Draw a world and its swarm.

    Args:
      kind: one of :data:`KINDS`.
      domains: M.
      runs: K, of which the first is natural.
      tasks: N.
      noise: standard deviation of a measurement, relative to the BPB.
      shared: share of the noise variance that is common to the tasks of a run.
      seed: of everything that is drawn.
    """
    draw = rng.generator(seed, f"world {kind} {domains} {runs}")
    natural_M = 0.9 * draw.dirichlet(np.full(domains, 0.8)) + 0.1 / domains
    target = float(np.exp(draw.uniform(np.log(0.3), np.log(2.0))))
    params = _params(kind, draw, natural_M, target, tasks)
    names = tuple(f"d{j}" for j in range(domains))
    counts_KM = sampling.sample(
        natural_M, runs, SEQUENCES, names=names, strength=(0.3, 3.0), seed=rng.derive(seed, f"swarm {kind}")
    )
    ratios_KM = counts_KM / SEQUENCES
    bpb_KN = evaluate(LAWS[kind], params, ratios_KM)
    common_K1, own_KN = draw.normal(size=(runs, 1)), draw.normal(size=bpb_KN.shape)
    bpb_KN = bpb_KN * (1 + noise * (np.sqrt(shared) * common_K1 + np.sqrt(1 - shared) * own_KN))
    return World(kind, params, natural_M, target, ratios_KM, bpb_KN)


def _params(kind: str, draw, natural_M, target: float, tasks: int) -> Params:
    """Draw a truth. Strengths add up to .3 BPB a task before a domain's own effect is shaped."""
    domains = len(natural_M)
    matters_NM = draw.random((tasks, domains)) < 3 / domains
    matters_NM[np.arange(tasks), draw.integers(0, domains, tasks)] = True
    matters_NM[:, draw.integers(domains)] |= draw.random(tasks) < 0.7
    share_NM = np.where(matters_NM, draw.gamma(1.0, size=(tasks, domains)), 0.0)
    share_NM /= share_NM.sum(axis=1, keepdims=True)
    base_N, place_NM, shape_NM = draw.uniform(0.5, 0.9, tasks), *draw.random((2, tasks, domains))
    strength_NM = 0.3 * share_NM
    if kind == "log_linear":
        strength_NM = -6 * share_NM + 0.3 * draw.normal(size=share_NM.shape)
    elif kind == "threshold":
        place_NM, shape_NM = natural_M * np.exp(draw.normal(0.3, 0.8, (tasks, domains))), 0.15 + 0.35 * shape_NM
    elif kind == "power":
        place_NM, shape_NM = 0.02 * natural_M + 0.01 * place_NM, 0.1 + 0.5 * shape_NM
    elif kind == "interaction":
        strength_NM = 6 * share_NM
    elif kind == "repetition":
        place_NM, shape_NM = 1.0 + 2.0 * place_NM, 0.1 + 0.4 * shape_NM
    elif kind == "nothing":
        strength_NM = np.zeros_like(share_NM)
    return Params(base_N, strength_NM, place_NM, shape_NM, natural_M, target)


def _log_linear(p: Params, ratios_KM):
    return p.base_N[None, :] + 0.4 * jnp.exp(ratios_KM @ p.strength_NM.T)


def _threshold(p: Params, ratios_KM):
    steep_KNM = (p.place_NM[None] - ratios_KM[:, None, :]) / (p.shape_NM * p.place_NM)[None]
    return p.base_N[None, :] + (p.strength_NM[None] * jax.nn.sigmoid(steep_KNM)).sum(axis=2)


def _power(p: Params, ratios_KM):
    relative_KNM = (ratios_KM[:, None, :] + p.place_NM[None]) / (p.natural_M[None, :] + p.place_NM)[None]
    return p.base_N[None, :] + (p.strength_NM[None] * relative_KNM ** -p.shape_NM[None]).sum(axis=2)


def _interaction(p: Params, ratios_KM):
    # Each domain helps together with its neighbour; the root keeps the product in units of a weight.
    together_KM = jnp.sqrt(ratios_KM * jnp.roll(ratios_KM, 1, axis=1) + 1e-6)
    return p.base_N[None, :] + 0.4 * jnp.exp(-(0.5 * ratios_KM + together_KM) @ p.strength_NM.T)


def _repetition(p: Params, ratios_KM):
    epochs_KM = ratios_KM / p.natural_M[None, :] * p.epochs
    relative_KNM = ((_worth(epochs_KM) + 0.02) / (_worth(p.epochs) + 0.02))[:, None, :]
    benefit_KNM = p.strength_NM[None] * relative_KNM ** -p.shape_NM[None]
    over_KNM = jnp.maximum(epochs_KM[:, None, :] - p.place_NM[None], 0.0)
    harm_KNM = 0.3 * p.strength_NM[None] * jnp.log1p(over_KNM) ** 2
    return p.base_N[None, :] + (benefit_KNM + harm_KNM).sum(axis=2)


def _worth(epochs):
    """Return the epochs of new tokens that these epochs are worth."""
    return jnp.minimum(epochs, 1.0) + WORTH * (1 - jnp.exp(-jnp.maximum(epochs - 1, 0.0) / WORTH))


def _nothing(p: Params, ratios_KM):
    return p.base_N[None, :] + 0.3 + 0.0 * ratios_KM[:, :1]


def _law(name: str, predict: Callable) -> Law:
    def unsupported(*_, **__):
        raise TypeError("a truth is not fitted")

    return Law(
        name=name,
        Params=Params,
        fit=unsupported,
        fit_weighted=unsupported,
        predict=predict,
        parameters=unsupported,
        describe=unsupported,
        differentiable=True,
    )


LAWS = {
    "log_linear": _law("log_linear truth", _log_linear),
    "threshold": _law("threshold truth", _threshold),
    "power": _law("power truth", _power),
    "interaction": _law("interaction truth", _interaction),
    "repetition": _law("repetition truth", _repetition),
    "nothing": _law("no truth", _nothing),
}
KINDS = tuple(LAWS)

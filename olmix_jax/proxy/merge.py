"""Models of any mixture from a few trained ones, without training them: merged members.

*Experts* are branches of one trunk. Expert j trains on (1 − α) b + α e_j: a base mixture b with more of domain j, where
α is the tilt. A mixture p is one combination of theirs,

    p = Σ_j c_j ((1 − α) b + α e_j)    with c = b + (p − b) / α,

where Σ c = 1 and c_j may be negative. There are two ways to score p from the experts:
  - :func:`score_weights`: the model whose weights are θ(p) = Σ_j c_j θ_j. It assumes that weights after the branch are
    linear in the mixture, and costs a forward pass per mixture.
  - :func:`score_probabilities`: every token's probability is a mean of the experts' probabilities. It assumes nothing
    about weights, and costs a forward pass per expert only.
The mean of both, :func:`score`, follows trained models better than either (docs/log.md).
"""

import jax
import jax.numpy as jnp
import numpy as np

from olmix_jax.corpus.task_set import TaskSet, bits_per_byte_N
from olmix_jax.proxy import scoring, sharding
from olmix_jax.proxy.proxy_swarm import ProxySwarm, map_members
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import Progress, warnings_only

# Largest error of a mixture that is combined from the experts' mixtures.
_TOLERANCE = 1e-6


def expert_mixtures(base_M: np.ndarray, tilt: float) -> np.ndarray:
    """Return the mixtures of one expert per domain, (1 − tilt) · base + tilt · e_j, as rows [M, M]."""
    return (1 - tilt) * np.asarray(base_M, np.float64) + tilt * np.eye(len(base_M))


def coefficients(ratios_KM: np.ndarray, experts_JM: np.ndarray) -> np.ndarray:
    """Return c_KJ with c @ experts = ratios, so that each row sums to 1.

    For :func:`expert_mixtures` this is b + (p − b) / α. Solving for it also covers experts with mixtures in whole
    sequences. With more experts than domains there are several solutions, and the shortest is returned.

    Raises:
      UserError: a mixture is no combination of the experts' mixtures.
    """
    ratios_KM, experts_JM = np.asarray(ratios_KM, np.float64), np.asarray(experts_JM, np.float64)
    c_KJ = np.linalg.lstsq(experts_JM.T, ratios_KM.T)[0].T
    error_K = np.abs(c_KJ @ experts_JM - ratios_KM).max(axis=1)
    if error_K.max(initial=0) > _TOLERANCE:
        k, rank = int(error_K.argmax()), np.linalg.matrix_rank(experts_JM)
        raise UserError(
            f"mixture {k} is no combination of the mixtures of the {len(experts_JM)} experts, which span {rank} of "
            f"{experts_JM.shape[1]} domains. Every domain needs an expert with more of it than the others have"
        )
    return c_KJ


def expert_weights(c_KJ: np.ndarray) -> np.ndarray:
    """Return the weights of experts in a mean of probabilities: c without its negative parts, as rows that sum to 1."""
    positive_KJ = np.maximum(c_KJ, 0)
    return positive_KJ / positive_KJ.sum(axis=1, keepdims=True)


def merged(experts, c_KJ: np.ndarray, mapping: str):
    """Return the parameters Σ_j c_kj θ_j [K, …] on the devices of ``mapping``, with K a multiple of their number.

    Args:
      experts: parameters [J, …].
      c_KJ: coefficients.
      mapping: how members are mapped to devices.
    """
    # No states are mapped, and members are computed together: a merge is one product per array.
    return map_members(_combine, mapping, 0)(None, sharding.place(np.float32(c_KJ), mapping), experts)


def _combine(_, c_J, experts):
    return jax.tree.map(lambda x: jnp.tensordot(c_J, x, 1, precision=jax.lax.Precision.HIGHEST), experts)


def score(swarm: ProxySwarm, experts, ratios_KM: np.ndarray, tasks: TaskSet, mapping: str) -> np.ndarray:
    """Return bits per byte of mixtures, float64 [K, N]: the mean of both kinds of merge; NaN where one is not finite.

    Args:
      swarm: the experts: their functions, sizes and mixtures.
      experts: their parameters [J, …].
      ratios_KM: mixtures.
      tasks: what is scored.
      mapping: how members are mapped to devices.

    Raises:
      UserError: a mixture is no combination of the experts' mixtures.
    """
    c_KJ, rest = coefficients(ratios_KM, mixtures(swarm)), (tasks, mapping)
    by_probabilities_KN = score_probabilities(swarm, experts, expert_weights(c_KJ), *rest)
    return (score_weights(swarm, experts, c_KJ, *rest) + by_probabilities_KN) / 2


def mixtures(swarm: ProxySwarm) -> np.ndarray:
    """Return the mixtures that members are trained on, in whole sequences."""
    counts_JM = swarm.runs.counts_KM
    return counts_JM / counts_JM.sum(axis=1, keepdims=True)


def score_weights(
    swarm: ProxySwarm, experts, c_KJ: np.ndarray, tasks: TaskSet, mapping: str, block: int = 0
) -> np.ndarray:
    """Return bits per byte, float64 [K, N], of the models with weights Σ_j c_kj θ_j; NaN for those that are not finite.

    Args:
      swarm: the experts' functions and sizes.
      experts: their parameters [J, …].
      c_KJ: :func:`coefficients` of the mixtures.
      tasks: what is scored.
      mapping: how members are mapped to devices.
      block: models that exist at once; the next block replaces them. One program scores all blocks. 0: as many as there
        are experts.
    """
    size = sharding.padded_size(min(block or c_KJ.shape[1], len(c_KJ)), mapping)
    bpb_KN = np.full((len(c_KJ), len(tasks.names)), np.nan)
    with Progress(f"score {len(c_KJ)} merged models", len(c_KJ), "models") as progress:
        for first in range(0, len(c_KJ), size):
            own_KJ = c_KJ[first : first + size]
            params = merged(experts, sharding.pad(own_KJ, size), mapping)
            with warnings_only():
                nats_KE = scoring.example_nats(swarm, params, tasks, mapping)[: len(own_KJ)]
            _set_scores(bpb_KN[first : first + size], nats_KE, tasks)
            progress.advance(len(own_KJ))
    return bpb_KN


def score_probabilities(
    swarm: ProxySwarm, experts, weights_KJ: np.ndarray, tasks: TaskSet, mapping: str, block: int = 0
) -> np.ndarray:
    """Return bits per byte, float64 [K, N], where each token's probability is Σ_j w_kj P_j(token).

    The arguments are those of :func:`score_weights`. The weights are not negative and sum to 1: mixtures themselves, or
    :func:`expert_weights`.
    """
    number = weights_KJ.shape[1]
    size = sharding.padded_size(number, mapping)
    placed = sharding.place(jax.tree.map(lambda x: sharding.pad(np.asarray(x), size), experts), mapping)
    nats_JA = scoring.token_nats(swarm, placed, tasks, mapping)[:number].astype(np.float64)
    # Relative to the likeliest expert, so that no probability underflows.
    least_A = nats_JA.min(axis=0)
    ratio_JA = np.exp(least_A - nats_JA)
    example_A = np.nonzero(tasks.answer_EL)[0]
    bpb_KN, block = np.full((len(weights_KJ), len(tasks.names)), np.nan), block or number
    for first in range(0, len(weights_KJ), block):
        nats_KA = least_A - np.log(weights_KJ[first : first + block] @ ratio_JA)
        nats_KE = np.stack([np.bincount(example_A, nats_A, len(tasks.task_E)) for nats_A in nats_KA])
        _set_scores(bpb_KN[first : first + block], nats_KE, tasks)
    return bpb_KN


def _set_scores(bpb_KN: np.ndarray, nats_KE: np.ndarray, tasks: TaskSet) -> None:
    """Set the scores of models whose nats are all finite."""
    for k in np.flatnonzero(np.isfinite(nats_KE).all(axis=1)):
        bpb_KN[k] = bits_per_byte_N(nats_KE[k], tasks)

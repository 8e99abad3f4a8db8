"""Bits per byte of every member on every task."""

import functools
import math
from collections.abc import Callable, Iterator

import jax
import numpy as np

from olmix_jax.corpus.task_set import TaskSet, bits_per_byte_N
from olmix_jax.proxy import sharding
from olmix_jax.proxy.proxy_swarm import ProxySwarm, map_members
from olmix_jax.utils.progress import tracked

# Size of the logits of all tokens of one block of examples on one device, for all members that it computes together
# [bytes]. On a CPU, blocks that stay in a core's cache are scored faster (docs/log.md).
SCORE_BYTES, CPU_SCORE_BYTES = 64 << 20, 2 << 20
# Most parts of the examples, after each of which progress is reported.
_PARTS = 50


def score(swarm: ProxySwarm, params, tasks: TaskSet, mapping: str, alive_K: np.ndarray) -> np.ndarray:
    """Return bits per byte, float64 [K, N], with NaN for members that are not alive. One program scores all members."""
    nats_KE = example_nats(swarm, params, tasks, mapping)[: len(swarm.runs)]
    bpb_KN = np.full((len(swarm.runs), len(tasks.names)), np.nan)
    for k in np.flatnonzero(alive_K & np.isfinite(nats_KE).all(axis=1)):
        bpb_KN[k] = bits_per_byte_N(nats_KE[k], tasks)
    return bpb_KN


def example_nats(swarm: ProxySwarm, params, tasks: TaskSet, mapping: str) -> np.ndarray:
    """Return −ln P(answer | prompt) of every member on every example, float64 [K, E].

    Args:
      swarm: the members' functions and sizes. Their number is that of ``params``, so members of other weights than the
        swarm's are scored by the same program.
      params: parameters [K, …] on the devices of ``mapping``, with padding.
      tasks: the examples.
      mapping: how members are mapped to devices.
    """
    nats_KE = np.empty((_members(params), len(tasks.task_E)))
    for example_n, nats_Kn in _parts(swarm, params, tasks, mapping, swarm.member.score):
        nats_KE[:, example_n] = nats_Kn
    return nats_KE


def token_nats(swarm: ProxySwarm, params, tasks: TaskSet, mapping: str) -> np.ndarray:
    """Return −ln P of every answer token, float32 [K, A], in the order of ``tasks.answer_EL``.

    The arguments are those of :func:`example_nats`.
    """
    place_EL = np.cumsum(tasks.answer_EL).reshape(tasks.answer_EL.shape) - 1
    nats_KA = np.empty((_members(params), int(tasks.answer_EL.sum())), np.float32)
    for example_n, nats_KnL in _parts(swarm, params, tasks, mapping, swarm.member.token_nats):
        answer_nL = tasks.answer_EL[example_n]
        nats_KA[:, place_EL[example_n][answer_nL]] = nats_KnL[:, answer_nL]
    return nats_KA


def _members(params) -> int:
    return len(jax.tree.leaves(params)[0])


def _parts(
    swarm: ProxySwarm, params, tasks: TaskSet, mapping: str, function: Callable
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (example_n, values [K, n, …]) of a member's function for parts of the examples, in any order."""
    (examples, length), size = tasks.answer_EL.shape, _members(params)
    members = sharding.concurrent_members(size, mapping, swarm.train.map_batch)
    budget = min(SCORE_BYTES, CPU_SCORE_BYTES) if jax.default_backend() == "cpu" else SCORE_BYTES
    block = int(np.clip(budget // (length * swarm.vocabulary * 4 * members), 1, examples))
    blocks = -(-examples // block)
    blocks_per_part = -(-blocks // _PARTS)
    shape = -(-blocks // blocks_per_part), blocks_per_part, block
    order_S = _balanced(tasks.answer_EL.sum(axis=1), math.prod(shape[:2]), block)
    tokens = tasks.tokens_EL[order_S].reshape(*shape, length + 1)
    answers = tasks.answer_EL[order_S].reshape(*shape, length)
    most = int(answers.sum(axis=(2, 3)).max())
    mapped = map_members(_map_blocks(function, most), mapping, swarm.train.map_batch)
    parts = list(zip(order_S.reshape(shape[0], -1), tokens, answers))
    for example_n, *part in tracked(parts, f"score models on {examples} examples", "parts"):
        values = sharding.to_host(mapped(params, None, tuple(part)))
        yield example_n, values.reshape(size, len(example_n), *values.shape[3:])


def _balanced(answers_E: np.ndarray, blocks: int, block: int) -> np.ndarray:
    """Return the examples of one block after the other, such that blocks have similar numbers of answer tokens.

    Examples are dealt to the blocks, longest answers first, back and forth. The shortest is repeated as padding.
    """
    order_S = sharding.pad(np.argsort(-answers_E, kind="stable"), blocks * block).reshape(block, blocks)
    order_S[1::2] = order_S[1::2, ::-1]
    return order_S.T.reshape(-1)


@functools.lru_cache(maxsize=8)
def _map_blocks(function: Callable, answers: int) -> Callable:
    def of_blocks(params, _, blocks):
        return jax.lax.map(lambda block: function(params, *block, answers), blocks)

    return of_blocks

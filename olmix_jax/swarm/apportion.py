"""Convert mixtures to whole sequences, by rounding or exactly, and spread the sequences of a run evenly.

A run trains on ``total`` sequences, so its mixture is a vector of counts over ``total``. The counts are chosen here;
no data loader rounds anything.

:func:`snap` works in float64, because samplers call it for thousands of candidates. For token totals of 10¹³ and for
bounds on groups, :func:`olmix_jax.swarm.rounding.counts` applies the same rule in exact fractions, about 20 times
slower. A test compares the two on random mixtures and caps.
"""

import heapq
from typing import NamedTuple

import numpy as np

from olmix_jax.utils.errors import UserError

# Tolerance for float arithmetic on `weight × total`, in sequences.
SLACK = 1e-6
# If no whole numbers meet the caps, a cap of at least this many sequences may be exceeded by less than one: 1 % of it.
# Caps k·N_j/R with R = k·ΣN leave no room for rounding all of them down.
LARGE = 100
# An error suggests a larger total that works. At most this many totals are tried.
_TOTALS_TRIED = 2000


def snap(weights_M: np.ndarray, total: int, caps_M: np.ndarray | None = None) -> np.ndarray:
    """Return the mixture of ``total`` sequences nearest to ``weights_M``, by largest remainders.

    argmin over integer counts_M ≥ 0, Σ counts = total, of Σ_j |counts_j − total·w_j|^p, for every p ≥ 1 including ∞
    (the largest error). With caps, counts_j ≤ total·caps_j as well. Only if no whole numbers meet the caps, caps of
    LARGE sequences or more are rounded up instead of down. Ties go to the lower index. A zero weight stays zero unless
    the caps leave no other place. A weight below one sequence may become zero.

    Args:
      weights_M: weights ≥ 0; normalised here.
      total: sequences of the run.
      caps_M: largest weights, or None.

    Returns:
      counts_M, int64, summing to ``total`` exactly.

    Raises:
      UserError: ``total`` is below 1; the weights are negative, not finite or all zero; a weight exceeds its cap by
        more than one sequence; or the caps in whole sequences sum to less than ``total``.
    """
    if total < 1:
        raise UserError(f"a run needs at least one sequence, not {total}")
    weights_M = checked_weights(weights_M)
    wanted_M = weights_M / weights_M.sum() * total
    most_M = _max_counts(wanted_M, total, caps_M)
    counts_M = np.minimum(np.floor(wanted_M + SLACK).astype(np.int64), most_M)
    while (left := total - int(counts_M.sum())) > 0:
        open_M = (counts_M < most_M) & (weights_M > 0)
        if not open_M.any():
            open_M = counts_M < most_M
        # Remainders are rounded so that float errors do not break ties: the lower index wins.
        order = np.argsort(np.where(open_M, -np.round(wanted_M - counts_M, 6), np.inf), kind="stable")
        counts_M[order[: min(left, int(open_M.sum()))]] += 1
    return counts_M


def checked_weights(weights_M) -> np.ndarray:
    """Return mixture weights as float64, before normalisation.

    Raises:
      UserError: the weights are negative, not finite or all zero.
    """
    weights_M = np.asarray(weights_M, np.float64)
    if weights_M.ndim != 1 or not np.isfinite(weights_M).all() or (weights_M < 0).any() or not weights_M.any():
        raise UserError(f"mixture weights must be finite, not negative and not all zero: {weights_M.tolist()}")
    return weights_M


def _max_counts(wanted_M: np.ndarray, total: int, caps_M: np.ndarray | None) -> np.ndarray:
    """Return the largest number of sequences allowed per domain."""
    if caps_M is None:
        return np.full(len(wanted_M), total)
    room_M = np.clip(caps_M, 0, 1) * total
    most_M = np.floor(room_M + SLACK).astype(np.int64)
    if most_M.sum() < total:
        most_M = np.where(room_M >= LARGE, np.ceil(room_M - SLACK).astype(np.int64), most_M)
    if most_M.sum() < total:
        raise UserError(
            f"infeasible: in whole sequences the caps leave room for {most_M.sum()} of {total}; raise a cap"
        )
    over = int(np.argmax(wanted_M - most_M))
    if wanted_M[over] >= most_M[over] + 1:
        raise UserError(
            f"weight {over} asks for {wanted_M[over]:.6g} sequences, but its cap allows {most_M[over]}; "
            "lower the weight, or raise the cap"
        )
    return most_M


def realise(weights_KM: np.ndarray, total: int, names: tuple[str, ...]) -> np.ndarray:
    """Convert mixtures to counts of sequences, and refuse a mixture that ``total`` sequences cannot represent.

    Rows on the grid (counts / ``total``) convert exactly. Where the nearest mixture is good enough, use :func:`snap`.

    Args:
      weights_KM: requested weights; rows sum to 1 within 1e-9.
      total: sequences of each run.
      names: the M domains, for messages.

    Returns:
      counts_KM, int64, rows summing to ``total``, with |counts − total·weights| ≤ ½ everywhere.

    Raises:
      UserError: a row is not a mixture, a weight would be off by more than half a sequence, or a positive weight would
        get no sequence. The message names the member, the domain, the request and the result.
    """
    weights_KM = np.asarray(weights_KM, np.float64)
    if weights_KM.ndim != 2 or weights_KM.shape[1] != len(names):
        raise UserError(f"mixtures must be members × {len(names)} domains, not of shape {weights_KM.shape}")
    return np.stack([_realise_one(k, w_M, total, names) for k, w_M in enumerate(weights_KM)])


def _realise_one(k: int, weights_M: np.ndarray, total: int, names: tuple[str, ...]) -> np.ndarray:
    for name, w in zip(names, weights_M):
        if not np.isfinite(w) or w < 0:
            raise UserError(f"member {k}: the weight of {name} is {w}; weights must be finite and not negative")
    if abs(weights_M.sum() - 1) > 1e-9:
        raise UserError(f"member {k}: weights sum to {weights_M.sum():.12g}, not to 1")
    counts_M = snap(weights_M, total)
    error_M = _errors(weights_M, counts_M, total)
    j = int(error_M.argmax())
    if error_M[j] > 0.5 + SLACK:
        result = "no sequence" if counts_M[j] == 0 else f"{counts_M[j]} sequences ({counts_M[j] / total:.6g})"
        raise UserError(
            f"member {k}: {names[j]} has weight {weights_M[j]:.6g}, which is {weights_M[j] * total:.6g} of {total} "
            f"sequences, and would get {result}: {_advice(weights_M, total)}"
        )
    return counts_M


def _errors(weights_M: np.ndarray, counts_M: np.ndarray, total: int) -> np.ndarray:
    """Return the rounding errors in sequences; infinite where a positive weight gets no sequence."""
    return np.where((counts_M == 0) & (weights_M > 0), np.inf, np.abs(counts_M - weights_M * total))


def _advice(weights_M: np.ndarray, total: int) -> str:
    for larger in range(total + 1, total + _TOTALS_TRIED):
        if _errors(weights_M, snap(weights_M, larger), larger).max() <= 0.5 + SLACK:
            return f"train on {larger} sequences (steps × batch), or ask for weights that are multiples of 1/{total}"
    return f"ask for weights that are multiples of 1/{total}, or drop the domains with the smallest weights"


class Node(NamedTuple):
    """A node of the tree that orders a run's sequences: number of sequences, and its domain or its two children."""

    size: int
    content: "int | tuple[Node, Node]"


class Sequences(NamedTuple):
    """Sequences of a run: the domain of each (int32), and how many of that domain come before it (int64)."""

    domain_n: np.ndarray
    nth_n: np.ndarray


def interleaving(counts_M: np.ndarray) -> Node:
    """Return the order of a run's sequences as a binary tree over the domains: deterministic and evenly spread.

    The two nodes with the smallest counts are merged until one is left (a Huffman tree). From the root down, each
    node's places are split between its two children by rounding, so a split is off by at most ½ at every prefix. A
    domain's error is the sum over its ancestors of ½ · (size of the domain / size of the ancestor's child on its path).
    These sizes grow towards the root at least as fast as the Fibonacci numbers, so

      |#{i < t: domain_i = j} − t·counts_j/total| ≤ ½ Σ_n 1/Fib_n = 1.68    for every prefix t and domain j.

    (Sorting sequence i of domain j by (i + ½)/counts_j has no such bound: rare domains would all come in the middle.)

    Args:
      counts_M: sequences per domain, summing to at least 1.
    """
    # Every entry has a different second item, so nodes are never compared.
    heap: list[tuple[int, int, Node]] = [(int(c), j, Node(int(c), j)) for j, c in enumerate(counts_M) if c > 0]
    heapq.heapify(heap)
    number = len(counts_M)
    while len(heap) > 1:
        (_, _, a), (_, _, b) = heapq.heappop(heap), heapq.heappop(heap)
        heapq.heappush(heap, (a.size + b.size, number, Node(a.size + b.size, (a, b))))
        number += 1
    return heap[0][2]


def read_at(tree: Node, places_n: np.ndarray) -> Sequences:
    """Return the sequences at some places of a run. Only the tree is kept in memory, never the whole order.

    Args:
      tree: from :func:`interleaving`.
      places_n: int in [0, total).

    Returns:
      The domain and the number within the domain for each place; O(entropy of the mixture) each.
    """
    domain_n, nth_n = np.empty(len(places_n), np.int32), np.empty(len(places_n), np.int64)
    todo = [(tree, np.arange(len(places_n)), np.asarray(places_n, np.int64))]
    while todo:
        node, where, at = todo.pop()
        if isinstance(node.content, int):
            domain_n[where], nth_n[where] = node.content, at
            continue
        a, b = node.content
        # The first t places of the node contain t · a.size / node.size places of a, rounded.
        before, after = ((2 * t * a.size + node.size) // (2 * node.size) for t in (at, at + 1))
        to_a = after > before
        todo += [(a, where[to_a], before[to_a]), (b, where[~to_a], (at - before)[~to_a])]
    return Sequences(domain_n, nth_n)

"""Mixtures in whole sequences: the nearest one, the exact one, and the order in which its sequences come.

A run trains on ``total`` sequences, so what it trains on is a vector of counts, whatever weights were asked for.
Nothing is left to a loader's rounding.
"""

import heapq

import numpy as np

from olmix_jax.utils.errors import UserError

# Slack for float arithmetic on `weight × total`, in sequences.
SLACK = 1e-6


def snap(weights_M: np.ndarray, total: int, caps_M: np.ndarray | None = None) -> np.ndarray:
    """The mixture nearest to ``weights_M`` that ``total`` sequences can realise, by largest remainders.

    argmin over integer counts_M ≥ 0, Σ counts = total, of Σ_j |counts_j − total·w_j|^p for every p ≥ 1 at once, and so
    of the largest error. With caps, counts_j ≤ total·caps_j too: rounding never breaks a cap that the weights keep.
    Ties go to the lower index. A zero stays zero, unless caps leave no other place; a weight under one sequence may
    become zero.

    Args:
      weights_M: weights ≥ 0, normalised here.
      total: sequences of the run.
      caps_M: largest weights, or None.

    Returns:
      counts_M, int64, summing to ``total`` exactly.

    Raises:
      UserError: ``total`` is under 1; the weights are negative, not finite or all zero; a weight is above its cap by
        more than a sequence; or caps in whole sequences leave room for fewer than ``total``.
    """
    weights_M = np.asarray(weights_M, np.float64)
    if total < 1:
        raise UserError(f"a run needs at least one sequence, not {total}")
    if weights_M.ndim != 1 or not np.isfinite(weights_M).all() or (weights_M < 0).any() or not weights_M.any():
        raise UserError(f"mixture weights must be finite, not negative and not all zero: {weights_M.tolist()}")
    wanted_M = weights_M / weights_M.sum() * total
    most_M = _most(wanted_M, total, caps_M)
    counts_M = np.minimum(np.floor(wanted_M + SLACK).astype(np.int64), most_M)
    while (left := total - int(counts_M.sum())) > 0:
        open_M = (counts_M < most_M) & (weights_M > 0)
        if not open_M.any():
            open_M = counts_M < most_M
        # Rounded, so that ties are ties in spite of float arithmetic and the lower index wins them.
        order = np.argsort(np.where(open_M, -np.round(wanted_M - counts_M, 6), np.inf), kind="stable")
        counts_M[order[: min(left, int(open_M.sum()))]] += 1
    return counts_M


def _most(wanted_M: np.ndarray, total: int, caps_M: np.ndarray | None) -> np.ndarray:
    """Most sequences of each domain."""
    if caps_M is None:
        return np.full(len(wanted_M), total)
    most_M = np.floor(np.clip(caps_M, 0, 1) * total + SLACK).astype(np.int64)
    if most_M.sum() < total:
        raise UserError(f"in whole sequences the caps leave room for {most_M.sum()} of {total}: raise a cap")
    over = int(np.argmax(wanted_M - most_M))
    if wanted_M[over] >= most_M[over] + 1:
        raise UserError(f"weight {over} asks for {wanted_M[over]:.6g} sequences and its cap allows {most_M[over]}")
    return most_M


def realise(weights_KM: np.ndarray, total: int, names: tuple[str, ...]) -> np.ndarray:
    """Turns requested mixtures into counts of sequences, exactly or not at all.

    Rows on the grid (counts / ``total``) come back exact. Use :func:`snap` first where the nearest mixture will do.

    Args:
      weights_KM: requested weights; rows sum to 1 within 1e-9.
      total: sequences of each run.
      names: the M domains, for messages.

    Returns:
      counts_KM, int64, rows summing to ``total``, with |counts − total·weights| ≤ ½ everywhere.

    Raises:
      UserError: a row is no mixture, a weight would be off by more than half a sequence, or a positive weight would get
        no sequence. The message names member, domain, request and result.
    """
    weights_KM = np.asarray(weights_KM, np.float64)
    if weights_KM.ndim != 2 or weights_KM.shape[1] != len(names):
        raise UserError(f"mixtures of shape {weights_KM.shape} for {len(names)} domains; rows are members")
    return np.stack([_realise_one(k, w_M, total, names) for k, w_M in enumerate(weights_KM)])


def _realise_one(k: int, weights_M: np.ndarray, total: int, names: tuple[str, ...]) -> np.ndarray:
    for name, w in zip(names, weights_M):
        if not np.isfinite(w) or w < 0:
            raise UserError(f"member {k}: weight of {name} is {w}; weights are finite and not negative")
    if abs(weights_M.sum() - 1) > 1e-9:
        raise UserError(f"member {k}: weights sum to {weights_M.sum():.12g}, not to 1")
    counts_M = snap(weights_M, total)
    error_M = _errors(weights_M, counts_M, total)
    j = int(error_M.argmax())
    if error_M[j] > 0.5 + SLACK:
        got = "no sequence" if counts_M[j] == 0 else f"{counts_M[j]} sequences ({counts_M[j] / total:.6g})"
        raise UserError(
            f"member {k}: {names[j]} is asked for at {weights_M[j]:.6g}, {weights_M[j] * total:.6g} of {total} "
            f"sequences, and would get {got}: {_advice(weights_M, total)}"
        )
    return counts_M


def _errors(weights_M: np.ndarray, counts_M: np.ndarray, total: int) -> np.ndarray:
    """Distance from the request in sequences; infinite where a domain that was asked for gets nothing."""
    return np.where((counts_M == 0) & (weights_M > 0), np.inf, np.abs(counts_M - weights_M * total))


def _advice(weights_M: np.ndarray, total: int) -> str:
    for larger in range(total + 1, total + 2000):
        if _errors(weights_M, snap(weights_M, larger), larger).max() <= 0.5 + SLACK:
            return f"train on {larger} sequences (steps × batch), or ask for a mixture of whole sequences"
    return f"ask for a mixture of whole sequences of {total}, or drop the domains of least weight"


# A node of the tree by which domains are interleaved: its sequences, and its domain or its two children.
Node = tuple[int, "int | tuple[Node, Node]"]


def interleaving(counts_M: np.ndarray) -> Node:
    """The order in which the domains of a run's sequences come, as a tree of the domains: deterministic, evenly spread.

    Domains are merged in pairs, least counts first (a Huffman tree); going down the tree, each node's places are
    split between its two children by rounding, so every split is within ½ of its share at every prefix. Errors of the
    levels add up, weighted by child / ancestor; as ancestors grow at least as the Fibonacci numbers do,

      |#{i < t: domain_i = j} − t·counts_j/total| ≤ ½ Σ_n 1/Fib_n = 1.68    for every prefix t and domain j.

    (Sorting sequence i of domain j by (i + ½)/counts_j has no such bound: rare domains all come in the middle.)

    Args:
      counts_M: sequences per domain, one at least in all.
    """
    # The tie-break is unique, so that nodes are never compared.
    heap = [(int(c), j, (int(c), j)) for j, c in enumerate(counts_M) if c > 0]
    heapq.heapify(heap)
    made = len(counts_M)
    while len(heap) > 1:
        (count_a, _, a), (count_b, _, b) = heapq.heappop(heap), heapq.heappop(heap)
        heapq.heappush(heap, (count_a + count_b, made, (count_a + count_b, (a, b))))
        made += 1
    return heap[0][2]


def read_at(tree: Node, places_n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a run reads at some places: looked up one by one, so that nothing is held of a run but its tree.

    Args:
      tree: of :func:`interleaving`.
      places_n: int in [0, total).

    Returns:
      domain_n, int32; and nth_n, int64, how often that domain has come before. O(entropy of the mixture) each.
    """
    domain_n, nth_n = np.empty(len(places_n), np.int32), np.empty(len(places_n), np.int64)
    todo = [(tree, np.arange(len(places_n)), np.asarray(places_n, np.int64))]
    while todo:
        (count, what), where, at = todo.pop()
        if isinstance(what, int):
            domain_n[where], nth_n[where] = what, at
            continue
        a, b = what
        # Places of a among the first t of the node: t·a/count, rounded.
        before, after = ((2 * t * a[0] + count) // (2 * count) for t in (at, at + 1))
        to_a = after > before
        todo += [(a, where[to_a], before[to_a]), (b, where[~to_a], (at - before)[~to_a])]
    return domain_n, nth_n

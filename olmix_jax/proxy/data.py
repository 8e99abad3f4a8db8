"""What every member reads, and when: exact apportionment over one shuffled stream per domain."""

import dataclasses

import grain
import numpy as np

from olmix_jax.swarm import apportion
from olmix_jax.utils import rng
from olmix_jax.utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class Runs:
    """What makes the members of a swarm differ.

    Attributes:
      names: K run names.
      counts_KM: int, sequences that each member reads of each domain; every row sums to steps · batch.
      init_seed_K: seeds of the initial weights.
      data_seed_K: seeds of the document order; members with the same one see the same streams.
    """

    names: tuple[str, ...]
    counts_KM: np.ndarray
    init_seed_K: np.ndarray
    data_seed_K: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def taken(self, chosen: np.ndarray) -> "Runs":
        """Some of them, by number."""
        arrays = (x[chosen] for x in (self.counts_KM, self.init_seed_K, self.data_seed_K))
        return Runs(tuple(self.names[k] for k in chosen), *arrays)


class _Sequences:
    """A domain's pool as `grain` sees it: sequence n of a token store holds tokens n·L … n·L + L, and the pool is the
    first `size` of them in the order of `seed`, or all."""

    def __init__(self, store, length: int, size: int, seed: int):
        self.store, self.length, self.size = store, length, size
        self.order = grain.MapDataset.range(store.sequences(length)).shuffle(seed=seed)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, i: int) -> np.ndarray:
        n = self.order[int(i)] if self.size < len(self.order) else i
        return self.store.sequence(int(n), self.length)


def stream(store, length: int, seed: int, share: float = 1.0) -> grain.MapDataset:
    """One domain's endless stream: every sequence once per epoch, each epoch in another order.

    With a `share` under 1 the domain's pool is that part of its sequences, drawn at random, one at least. Pool and
    order are looked up, not held: a stream takes no memory, however large the store.
    """
    size = max(1, round(share * store.sequences(length)))
    pool = _Sequences(store, length, size, rng.derive(seed, "pool"))
    return grain.MapDataset.source(pool).shuffle(seed=seed).repeat()


class _Chunks:
    """Chunk c: the tokens of every member for `steps` steps, int32 [K, steps, B, L + 1]; zeros after the last step."""

    def __init__(self, runs: Runs, streams: dict, length: int, batch: int, steps: int, total_steps: int):
        self.runs, self.streams, self.length, self.batch, self.steps = runs, streams, length, batch, steps
        self.total = total_steps * batch
        self.orders = [apportion.interleaving(counts_M) for counts_M in runs.counts_KM]

    def __len__(self) -> int:
        return -(-self.total // (self.steps * self.batch))

    def __getitem__(self, c: int) -> np.ndarray:
        size = self.steps * self.batch
        places_S = np.arange(c * size, min((c + 1) * size, self.total))
        tokens_KSL1 = np.zeros((len(self.runs), size, self.length + 1), np.int32)
        # Members share streams: a sequence that many of them read in this chunk is fetched once.
        fetched = {}
        for k, (seed, order) in enumerate(zip(self.runs.data_seed_K, self.orders)):
            for s, where in enumerate(zip(*apportion.read_at(order, places_S))):
                key = (int(seed), *map(int, where))
                if key not in fetched:
                    fetched[key] = self.streams[key[:2]][key[2]]
                tokens_KSL1[k, s] = fetched[key]
        return tokens_KSL1.reshape(len(self.runs), self.steps, self.batch, self.length + 1)


def chunks(
    runs: Runs, stores: dict, length: int, batch: int, steps: int, total_steps: int, share: float = 1.0
) -> grain.DatasetIterator:
    """The swarm's training data as one checkpointable iterator of int32 [K, steps, B, L + 1].

    The n-th sequence that a member reads of domain j is the n-th of that domain's stream, whatever the mixture: with a
    common seed, members see the same documents in the same order and differ in nothing but the mixture. Nothing is
    quantised on the way: `counts_KM` is what is read.

    Args:
      stores: token store per domain, in column order; all must hold at least one sequence.
      share: part of every domain that is read; see :func:`stream`.

    Raises:
      UserError: a domain is smaller than one sequence, or a row of counts is not the run's length.
    """
    short = [name for name, store in stores.items() if store.sequences(length) < 1]
    if short:
        raise UserError(
            f"domain smaller than one sequence of {length} tokens: {', '.join(short)}; give it more text, merge it "
            "with another, or lower `proxy.length`"
        )
    wrong = np.flatnonzero(runs.counts_KM.sum(axis=1) != total_steps * batch)
    if len(wrong):
        raise UserError(
            f"run {runs.names[wrong[0]]} is made of {runs.counts_KM[wrong[0]].sum()} sequences, but "
            f"train.steps × train.batch is {total_steps * batch}; run the sample stage again"
        )
    # Seeds by name: an epoch's order is drawn from seed + epoch, so neighbouring seeds would share orders.
    streams = {
        (int(seed), j): stream(store, length, rng.derive(int(seed), f"stream/{name}"), share)
        for seed in np.unique(runs.data_seed_K)
        for j, (name, store) in enumerate(stores.items())
    }
    source = _Chunks(runs, streams, length, batch, steps, total_steps)
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    return iter(grain.MapDataset.source(source).to_iter_dataset(options))

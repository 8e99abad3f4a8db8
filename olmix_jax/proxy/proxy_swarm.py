"""A swarm of proxies ready to train: one member's code mapped over all members, and their data."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import grain
import jax
import numpy as np

from olmix_jax.config.schema import Track, Train
from olmix_jax.proxy import data, model, sharding, state
from olmix_jax.proxy.trunk import Trunk
from olmix_jax.utils import files

# Limits of one dispatch: tokens on the host [bytes], steps, and operations of one member. A dispatch cannot be
# interrupted, and one step of a model that fills several devices takes seconds.
CHUNK_BYTES, CHUNK_STEPS, CHUNK_FLOPS = 64 << 20, 20, 2e15


@dataclasses.dataclass(frozen=True)
class ProxySwarm:
    """One member's code, the differences between members, and the data.

    Attributes:
      shape: sizes of the decoder.
      vocabulary: number of tokens V.
      length: tokens per sequence L.
      dtype: type of the matrix products.
      train: the trainer's settings.
      runs: what differs between members.
      stores: token store per domain, in the column order of `runs.counts_KM`.
      share: share of every domain's text that members may read.
      width: number of members that the program is compiled for, if larger than the number of `runs`. The last member
        is repeated as padding, so waves of different sizes share one program.
      track: where metrics are sent.
      score_steps: steps at which members are scored, besides the last one.
      decay: steps with a falling learning rate, as for :func:`olmix_jax.proxy.optimizer.schedule`; None for a cosine.
      trunk: the steps that all members share, from whose end they are trained; None to train them from step 0.
      expansion: tokens per token of the corpus' tokenizer, by domain, in which counts are; empty if all are 1.
    """

    shape: model.Shape
    vocabulary: int
    length: int
    dtype: str
    train: Train
    runs: data.Runs
    stores: dict[str, Any]
    share: float = 1.0
    width: int = 0
    track: Track = Track()
    score_steps: tuple[int, ...] = ()
    decay: int | None = None
    trunk: Trunk | None = None
    expansion: tuple[float, ...] = ()

    @property
    def member(self) -> state.Member:
        """One member's functions."""
        return state.member(self.shape, self.vocabulary, self.train, self.dtype, self.decay)

    @property
    def first_step(self) -> int:
        """The step that members start from: the last of their trunk, or 0."""
        return 0 if self.trunk is None else self.trunk.steps

    @property
    def size(self) -> int:
        """Number of members, including padding."""
        return max(self.width, len(self.runs))

    @property
    def chunk_steps(self) -> int:
        """Most steps per dispatch. It depends on the config only; a resumed run may have another number."""
        bytes_per_step = self.size * self.train.batch * (self.length + 1) * 4
        by_flops = int(CHUNK_FLOPS // (6 * self.member.parameters * self.train.batch * self.length))
        by_bytes = CHUNK_BYTES // bytes_per_step
        return max(1, min(CHUNK_STEPS, by_bytes, by_flops, self.train.checkpoint_every, self.train.steps))

    @property
    def identity(self) -> str:
        """Digest of everything that determines a checkpoint's content, so that no other swarm's is resumed."""
        sizes = {name: store.sequences(self.length) for name, store in self.stores.items()}
        # Mapping and micro-batches may change between runs: they only change the order of sums.
        trainer = dataclasses.replace(
            self.train, mapping=None, map_batch=0, micro_batch=None, remat=False, checkpoint_every=1
        )
        settings = self.dtype, trainer
        # Only where there are any, so that swarms without them keep their checkpoints.
        more: list[Any] = [self.score_steps] if self.score_steps else []
        more += [] if self.decay is None else [{"decay": self.decay}]
        more += [{"expansion": self.expansion}] if self.expansion else []
        more += [] if self.trunk is None else [self.trunk.identity, self.trunk.read_M]
        return files.digest([self.shape, self.vocabulary, self.length, *settings, self.runs, sizes, self.share, *more])

    def subset(self, indices: np.ndarray, width: int = 0) -> "ProxySwarm":
        """Return the members with these indices as a swarm."""
        return dataclasses.replace(self, runs=self.runs.subset(indices), width=width)

    @property
    def stops(self) -> tuple[int, ...]:
        """All steps at which members are scored: :attr:`score_steps` and the last. A dispatch ends at each."""
        return (*self.score_steps, self.train.steps)

    def dispatch_ends(self, first_step: int | None = None) -> list[int]:
        """Return the step at which each dispatch ends, from a step on; None for :attr:`first_step`."""
        first_step = self.first_step if first_step is None else first_step
        return data.chunk_ends(first_step, self.chunk_steps, self.stops)

    def chunks(self, first_step: int | None = None) -> grain.DatasetIterator:
        """Return the tokens of the dispatches of :meth:`dispatch_ends`, int32 [K, chunk_steps, B, L + 1]."""
        t, first_step = self.train, self.first_step if first_step is None else first_step
        sizes = self.length, t.batch, self.chunk_steps, t.steps
        start = None if self.trunk is None else data.Start(self.trunk.steps, self.trunk.read_M)
        return data.chunks(
            self.runs, self.stores, *sizes, self.share, first_step, self.score_steps, start, self.expansion
        )

    def on_host(self, states):
        """Return the members' states as NumPy arrays [K, …], without padding."""
        return jax.tree.map(lambda x: sharding.to_host(x)[: len(self.runs)], states)

    def host_template(self, states):
        """Return placeholder arrays with the shapes and types of :meth:`on_host`, which take no memory."""
        return jax.tree.map(lambda x: np.broadcast_to(np.zeros((), x.dtype), (len(self.runs), *x.shape[1:])), states)

    def on_devices(self, states, mapping: str):
        """Invert :meth:`on_host`: pad the states and place them on the devices of `mapping`."""
        size = sharding.padded_size(self.size, mapping)
        return sharding.place(jax.tree.map(lambda x: sharding.pad(np.asarray(x), size), states), mapping)

    def start(self, mapping: str) -> state.State:
        """Return the members' initial states on the devices: from their seeds, or copies of the trunk's last state."""
        size = sharding.padded_size(self.size, mapping)
        seeds_K = sharding.place(sharding.pad(self.runs.init_seed_K.astype(np.int32), size), mapping)
        if self.trunk is not None:
            copy = map_members(_copy_of_trunk, mapping, self.train.map_batch)
            return copy(None, seeds_K, self.trunk.state(self.member))
        init = map_members(_init_from_seed(self.member), mapping, self.train.map_batch)
        return init(None, seeds_K, None)

    def steps(self, mapping: str) -> Callable[[state.State, np.ndarray, int], tuple[state.State, jax.Array]]:
        """Return a function (states_K, tokens_KTBL1, n) → (states_K, loss_KT) that takes n steps of all members."""
        mapped = map_members(self.member.steps, mapping, self.train.map_batch, donate=True)

        def run(states, tokens_KTBL1, n: int):
            size = sharding.padded_size(self.size, mapping)
            tokens = sharding.place(sharding.pad(tokens_KTBL1, size), mapping)
            return mapped(states, tokens, np.int32(n))

        return run


# A member's functions and mapped functions are cached, so that all waves run one compiled program.
map_members = functools.lru_cache(maxsize=8)(sharding.map_members)


def _copy_of_trunk(_, seed, trunk: state.State) -> state.State:
    del seed
    return trunk


@functools.lru_cache(maxsize=8)
def _init_from_seed(member: state.Member) -> Callable:
    return lambda _, seed, __: member.init(jax.random.key(seed))

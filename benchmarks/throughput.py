"""Compare the tokens per second of the whole swarm in one program with the same proxies one after another.

    python -m benchmarks.throughput [--members=24] [--rounds=5] [--all]

Both sides run the same jitted step of one member on the same data. The baseline trains one member after another and
dispatches every step separately. Run it on an idle machine. The two sides alternate, and the result is the ratio of
their medians, because absolute speeds vary between machines. The last line printed is a JSON object.
"""

import argparse
import json
import statistics
import time

import jax
import numpy as np

from olmix_jax import config as configs
from olmix_jax.proxy import data, model, sharding
from olmix_jax.proxy.proxy_swarm import ProxySwarm
from olmix_jax.utils import devices


class Zipf:
    """A token store of random tokens with probabilities ∝ 1/rank, as in text.

    A sixth to a twelfth of all tokens is then one token, whose row in the embedding's gradient is a sum of many.
    """

    def __init__(self, vocabulary: int):
        share_V = 1 / np.arange(1, vocabulary)
        self.tokens = 1 + np.random.default_rng(0).choice(vocabulary - 1, 200_000, p=share_V / share_V.sum())

    def sequences(self, length: int) -> int:
        return (len(self.tokens) - 1) // length

    def sequence(self, i: int, length: int) -> np.ndarray:
        return self.tokens[i * length : (i + 1) * length + 1].astype(np.int32)


def swarm_of(config: configs.Config, members: int) -> ProxySwarm:
    """Return a swarm of the config's proxies on random tokens with the frequencies of text."""
    total = config.train.steps * config.train.batch
    first_K = np.linspace(0, total, members).astype(int)
    zero_K = np.zeros(members, int)
    runs = data.Runs(tuple(map(str, range(members))), np.stack([first_K, total - first_K], 1), zero_K, zero_K)
    vocabulary = config.corpus.vocabulary
    stores = {"a": Zipf(vocabulary), "b": Zipf(vocabulary)}
    shape = model.PRESETS[config.proxy.preset]
    return ProxySwarm(shape, vocabulary, config.proxy.length, config.proxy.dtype, config.train, runs, stores)


def together(swarm: ProxySwarm, mapping: str, tokens: np.ndarray, steps: int):
    """Return a function that advances all members by `steps` in one program, and its compile time [seconds]."""
    begun = time.perf_counter()
    run = swarm.steps(mapping)
    states, _ = run(swarm.start(mapping), tokens, 0)
    jax.block_until_ready(states)
    compiled, carry = time.perf_counter() - begun, [states]

    def advance():
        carry[0], losses = run(carry[0], tokens, steps)
        jax.block_until_ready(losses)

    return advance, compiled


def one_by_one(swarm: ProxySwarm, tokens: np.ndarray, steps: int):
    """Return a function that advances the members by `steps` one after another, one jitted step at a time."""
    member = swarm.member
    step = jax.jit(member.steps, donate_argnums=0)
    init = jax.jit(lambda seed: member.init(jax.random.key(seed)))
    states = [init(seed) for seed in swarm.runs.init_seed_K]
    batches = [[jax.device_put(tokens[k, t][None]) for t in range(steps)] for k in range(len(states))]
    states[0], _ = step(states[0], batches[0][0], 0)

    def advance():
        for k, batches_T in enumerate(batches):
            for batch in batches_T:
                states[k], loss = step(states[k], batch, 1)
        jax.block_until_ready(states)

    return advance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="steps of every member per round")
    parser.add_argument("--mapping", default=None, choices=sharding.MAPPINGS, help="default: the one that run.py uses")
    parser.add_argument("--all", action="store_true", help="every mapping, not only the default")
    args = parser.parse_args()
    devices.use_all_cpus()
    from configs import quickstart

    config = configs.from_dict(quickstart.get_config())
    swarm = swarm_of(config, args.members)
    tokens = next(swarm.chunks())
    names = sharding.MAPPINGS if args.all else (args.mapping or sharding.default_mapping(),)
    contenders = {name: together(swarm, name, tokens, args.steps) for name in names}
    baseline = one_by_one(swarm, tokens, args.steps)
    size = args.members * args.steps * config.train.batch * config.proxy.length
    seconds = {name: [] for name in ("one by one", *names)}
    for _ in range(args.rounds):
        for name, advance in (("one by one", baseline), *((n, c[0]) for n, c in contenders.items())):
            begun = time.perf_counter()
            advance()
            seconds[name].append(time.perf_counter() - begun)
    middle = {name: statistics.median(s) for name, s in seconds.items()}
    for name, s in middle.items():
        print(f"{name:12s} {size / s:10,.0f} tokens/s   {middle['one by one'] / s:5.2f} ×")
    best = min(names, key=middle.get)
    ratios = [a / b for a, b in zip(seconds["one by one"], seconds[best])]
    print(
        json.dumps(
            {
                "speedup": round(middle["one by one"] / middle[best], 3),
                "speedup_range": [round(min(ratios), 3), round(max(ratios), 3)],
                "mapping": best,
                "members": args.members,
                "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
                "compile_s": {name: round(c[1], 2) for name, c in contenders.items()},
                "jax": jax.__version__,
            }
        )
    )


if __name__ == "__main__":
    main()

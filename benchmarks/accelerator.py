"""Measure the swarm engine on this machine's accelerator; without one, at reduced size on the CPU.

    python -m benchmarks.accelerator PART [ARGUMENT …]

calls the function PART of ``PARTS`` and prints its result as JSON. ``benchmarks/accelerator_page.py`` runs all parts
and writes a page.
"""

import argparse
import contextlib
import functools
import json
import pathlib
import resource
import subprocess
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import throughput
from configs import paper, quickstart
from olmix_jax import config as configs
from olmix_jax.proxy import aot, chips, model, optimizer, resources, sharding, state
from olmix_jax.proxy.proxy_swarm import CHUNK_BYTES, ProxySwarm
from olmix_jax.utils import devices, files

# Number of members in `simulated_devices`, and the maximum in `first_step`.
MEMBERS, FIRST_STEP_MEMBERS = 64, 128


def on_accelerator() -> bool:
    return jax.default_backend() != "cpu"


def settings() -> configs.Config:
    """Return the paper's config for 30M, with micro-batches that suit a large device; on a CPU, the quickstart."""
    if not on_accelerator():
        return configs.from_dict(quickstart.get_config())
    config = paper.get_config("30M")
    config.train.micro_batch = 16
    return configs.from_dict(config)


def simulated_devices(devices: int) -> dict:
    """Train two steps on ``devices`` simulated devices; return the losses and the collectives in the compiled step."""
    jax.config.update("jax_num_cpu_devices", devices)
    swarm = throughput.swarm_of(settings(), MEMBERS)
    # Different seeds, so that mixed-up members would have different losses.
    swarm.runs.init_seed_K[:] = np.arange(MEMBERS)
    states, run, tokens = swarm.start("shard"), swarm.steps("shard"), next(swarm.chunks())
    _, loss_KT = run(states, tokens, 2)
    shape = swarm.chunk_steps, swarm.train.batch, swarm.length + 1
    report = aot.compile_steps(swarm.member, shape, MEMBERS, jax.local_devices())
    return {"loss_KT": np.asarray(loss_KT)[:, :2].tolist(), "collectives": report.collectives}


def member_memory(members: int, topology: str = "") -> dict:
    """Return the memory that the compiled step of ``members`` members needs on one device [bytes].

    Also returns the two parts of one member's memory: its state (weights and moments), and the gradient of a batch with
    all temporaries. For a TPU topology the model is the paper's 30M.
    """
    config = configs.from_dict(paper.get_config("30M")) if topology else settings()
    devices = (aot.topology_devices(topology) if topology else jax.local_devices())[:1]
    swarm = throughput.swarm_of(config, members)
    shape = 1, swarm.train.batch, swarm.length + 1
    report = aot.compile_steps(swarm.member, shape, members, devices)
    # `memory_bytes` counts 16 bytes per parameter. 4 of these are for the gradient, so the state takes three quarters.
    needed, states = report.memory, swarm.member.memory_bytes * 3 // 4
    return {"needed": needed, "states": states, "gradient": _gradients(swarm, devices)}


def _gradients(swarm: ProxySwarm, devices) -> int:
    """Return the memory of one member's gradient of a batch on a device, without the weights [bytes]."""
    decoder = model.Decoder(swarm.shape, swarm.vocabulary, jnp.dtype(swarm.dtype), swarm.train.remat)
    start = jax.eval_shape(jax.vmap(lambda seed: swarm.member.init(jax.random.key(seed))), jnp.zeros(1, jnp.int32))
    tokens = jax.ShapeDtypeStruct((1, swarm.train.batch, swarm.length + 1), jnp.int32)
    one = functools.partial(state.gradient, decoder, swarm.train)
    mapped = sharding.map_members(lambda params, tokens, _: one(params, tokens), "shard", 1, devices=devices)
    given = sharding.abstract((start.params, tokens), "shard", devices)
    memory = aot.compile_for_analysis(mapped.lower(*given, None), devices).memory_analysis()
    return memory.temp_size_in_bytes + memory.output_size_in_bytes


def first_step(begun: float, compiled: str) -> dict:
    """Return the seconds from the start of the process to the end of the first step, on one device.

    The step trains as many members as fit into the device's memory (``at_once``), at most ``FIRST_STEP_MEMBERS``.

    Args:
      begun: when the process was started, as ``time.time()``.
      compiled: folder of the compilation cache.
    """
    jax.config.update("jax_compilation_cache_dir", compiled)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    swarm, at_once = throughput.swarm_of(settings(), FIRST_STEP_MEMBERS), FIRST_STEP_MEMBERS
    mapping, memory = "vmap" if on_accelerator() else "map", sharding.usable_memory()
    if memory is not None:
        shape = swarm.chunk_steps, swarm.train.batch, swarm.length + 1
        device = jax.local_devices()[:1]
        fit = aot.largest_fit(swarm.member, shape, FIRST_STEP_MEMBERS, device, memory)
        at_once = int(fit.members_per_device)
        swarm = swarm.subset(np.arange(at_once), at_once)
    _, loss_KT = swarm.steps(mapping)(swarm.start(mapping), next(swarm.chunks()), 1)
    jax.block_until_ready(loss_KT)
    return {"seconds": time.time() - begun, "at_once": at_once}


def reader_memory(members: int) -> dict:
    """Return the peak memory of a process that only reads the tokens of ``members`` members [bytes]."""
    for tokens, _ in zip(throughput.swarm_of(settings(), members).chunks(), range(8)):
        assert tokens.nbytes <= max(CHUNK_BYTES, tokens[:, :1].nbytes)
    return {"bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


def speed(torch: str = "") -> dict:
    """Return tokens per second for all members in one program, one after another, and one after another in PyTorch.

    Also returns the largest difference between the losses of this package and of PyTorch [nats].

    Args:
      torch: a Python executable with PyTorch; empty to skip it.
    """
    devices.use_all_cpus()
    swarm, steps = throughput.swarm_of(settings(), 8 if on_accelerator() else 24), 4
    mapping, tokens = sharding.default_mapping(), next(swarm.chunks())
    states = swarm.start(mapping)
    weights = {_name(path): x[0] for path, x in jax.tree_util.tree_leaves_with_path(swarm.on_host(states).params)}
    losses = np.asarray(swarm.steps(mapping)(states, tokens, steps)[1])[0, :steps]
    contenders = {
        "together": throughput.together(swarm, mapping, tokens, steps)[0],
        "one_by_one": throughput.one_by_one(swarm, tokens, steps),
    }
    size = len(swarm.runs) * steps * swarm.train.batch * swarm.length
    seconds, referee = {}, {}
    with contextlib.ExitStack() as closing:
        if torch:
            referee, contenders["torch"] = closing.enter_context(
                _torch(torch, swarm, weights, tokens[0, :steps], losses, len(swarm.runs) * steps)
            )
        for _ in range(5):
            for name, advance in contenders.items():
                begun = time.perf_counter()
                advance()
                seconds.setdefault(name, []).append(time.perf_counter() - begun)
    rates = {name: size / float(np.median(s)) for name, s in seconds.items()}
    chip = chips.find_chip(jax.local_devices()[0].device_kind)
    flops = resources.flops_per_token(swarm.shape, swarm.member.parameters, swarm.length)
    return rates | {"utilisation": chip and rates["together"] * flops / chip.flops} | referee


@contextlib.contextmanager
def _torch(python: str, swarm: ProxySwarm, weights: dict, tokens_TBL1, losses, steps: int):
    """Start PyTorch; yield its version and largest difference of losses, and a function that takes ``steps`` steps."""
    t = swarm.train
    rate = optimizer.schedule(t, optimizer.learning_rate(t, swarm.member.parameters))
    given = {
        **{"heads": swarm.shape.heads, "layers": swarm.shape.layers, "dtype": swarm.dtype, "z_loss": t.z_loss},
        **{"betas": (t.beta1, t.beta2), "weight_decay": t.weight_decay, "clip": t.clip},
        **{"parts": t.batch // (t.micro_batch or t.batch), "lr": [float(rate(step)) for step in range(t.steps)]},
    }
    with tempfile.TemporaryDirectory() as folder:
        files.write_json(pathlib.Path(folder, "settings.json"), given)
        np.savez(pathlib.Path(folder, "start.npz"), **weights, tokens=tokens_TBL1)
        command = [python, str(pathlib.Path(__file__).with_name("torch_proxy.py")), folder]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

            def take(steps: int):
                process.stdin.write(f"{steps}\n")
                process.stdin.flush()
                return float(process.stdout.readline())

            first = json.loads(process.stdout.readline() or "null")
            if first is None or (first["device"] == "cpu") == on_accelerator():
                raise RuntimeError(
                    f"{' '.join(command)}: PyTorch and JAX run on different devices; PyTorch reported {first}"
                )
            take(1)
            apart = float(np.abs(np.array(first["losses"]) - losses).max())
            yield {"version": first["torch"], "apart": apart}, lambda: take(steps)
            process.stdin.close()


def _name(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


PARTS = {part.__name__: part for part in (simulated_devices, member_memory, first_step, reader_memory, speed)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("arguments", nargs="*", help="arguments of the part's function")
    args = parser.parse_args()
    print(json.dumps(PARTS[args.part](*(_number(a) for a in args.arguments))))


def _number(text: str):
    return int(text) if text.isdecimal() else float(text) if text.replace(".", "", 1).isdecimal() else text


if __name__ == "__main__":
    main()

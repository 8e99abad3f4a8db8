"""The swarm engine on the accelerator at hand; without one, at reduced size on the CPU: benchmarks/accelerator.md.

    python -m benchmarks.accelerator [--torch=PYTHON]

``--torch`` is a Python that has PyTorch, of an environment of its own or this one, for the comparison with
``benchmarks/torch_proxy.py``. Every figure comes from a process of its own, ``python -m benchmarks.accelerator
--part=…``, which prints it as JSON.
"""

import argparse
import concurrent.futures
import contextlib
import datetime
import functools
import json
import os
import pathlib
import platform
import resource
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

import run as program
from benchmarks import throughput
from configs import paper, quickstart
from olmix_jax import config as configs
from olmix_jax import dry_run, files
from olmix_jax.proxy import ahead, model, optimizer, sharding, state, train

PAGE = pathlib.Path(__file__).with_name("accelerator.md")
MEMBERS, DEVICES = 64, (1, 2, 4, 8)
STARTED, HELD, READ = 128, (1, 2, 3), (64, 512, 4096, 8192)


def on_accelerator() -> bool:
    return jax.default_backend() != "cpu"


def settings() -> configs.Config:
    """30M of the paper, in micro-batches for a large device; on a CPU the quickstart's proxies."""
    if not on_accelerator():
        return configs.from_dict(quickstart.get_config())
    config = paper.get_config("30M")
    config.train.micro_batch = 16
    return configs.from_dict(config)


def divided(devices: int) -> dict:
    """Two steps of all members on so many simulated devices: losses, and collectives in the compiled step."""
    jax.config.update("jax_num_cpu_devices", devices)
    swarm = throughput.swarm_of(settings(), MEMBERS)
    # Each from a seed of its own, so that a wrong member could not pass for another.
    swarm.runs.init_seed_K[:] = np.arange(MEMBERS)
    states, run, tokens = swarm.start("shard"), swarm.steps("shard"), next(swarm.chunks())
    _, loss_KT = run(states, tokens, 2)
    shape = swarm.chunk_steps, swarm.train.batch, swarm.length + 1
    found = ahead.compile_steps(swarm.member, shape, MEMBERS, jax.local_devices())
    return {"loss_KT": np.asarray(loss_KT)[:, :2].tolist(), "collectives": found["collectives"]}


def held(members: int, topology: str = "") -> dict:
    """What the compiler says of so many members on a device, and of what a member alone is made of [bytes]: weights and
    moments, and its gradient of a batch with all that takes. Of the paper's 30M where it is for a TPU topology."""
    config = configs.from_dict(paper.get_config("30M")) if topology else settings()
    devices = (ahead.devices_of(topology) if topology else jax.local_devices())[:1]
    swarm = throughput.swarm_of(config, members)
    shape = 1, swarm.train.batch, swarm.length + 1
    found = ahead.compile_steps(swarm.member, shape, members, devices)
    # Of the 16 bytes a parameter that a member takes, 4 are the gradient's.
    needed, states = ahead.needed(found), swarm.member.memory * 3 // 4
    return {"needed": needed, "states": states, "gradient": _gradients(swarm, devices)}


def _gradients(swarm: train.Swarm, devices) -> int:
    """What a member's gradient of a batch takes on a device, without the weights [bytes]."""
    decoder = model.Decoder(swarm.shape, swarm.vocabulary, jnp.dtype(swarm.dtype), swarm.train.remat)
    start = jax.eval_shape(jax.vmap(lambda seed: swarm.member.init(jax.random.key(seed))), jnp.zeros(1, jnp.int32))
    tokens = jax.ShapeDtypeStruct((1, swarm.train.batch, swarm.length + 1), jnp.int32)
    one = functools.partial(state._gradient, decoder, swarm.train)
    mapped = sharding.map_members(lambda params, tokens, _: one(params, tokens), "shard", 1, devices=devices)
    given = sharding.abstract((start.params, tokens), "shard", devices)
    memory = ahead.untuned(mapped.lower(*given, None), devices).memory_analysis()
    return memory.temp_size_in_bytes + memory.output_size_in_bytes


def started(begun: float, compiled: str) -> dict:
    """Seconds from the process's start to the end of the first step, of many members on one device: of as many as it
    holds at once, and how many those are."""
    jax.config.update("jax_compilation_cache_dir", compiled)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    swarm, at_once = throughput.swarm_of(settings(), STARTED), STARTED
    mapping, memory = "vmap" if on_accelerator() else "map", sharding.usable_memory()
    if memory is not None:
        shape = swarm.chunk_steps, swarm.train.batch, swarm.length + 1
        at_once = ahead.fitting(swarm.member, shape, STARTED, jax.local_devices()[:1], memory)[1]
        swarm = swarm.taken(np.arange(at_once), at_once)
    _, loss_KT = swarm.steps(mapping)(swarm.start(mapping), next(swarm.chunks()), 1)
    jax.block_until_ready(loss_KT)
    return {"seconds": time.time() - begun, "at_once": at_once}


def read(members: int) -> dict:
    """Peak memory of a process that does nothing but read so many members' tokens [bytes]."""
    for tokens, _ in zip(throughput.swarm_of(settings(), members).chunks(), range(8)):
        assert tokens.nbytes <= max(train.CHUNK_BYTES, tokens[:, :1].nbytes)
    return {"bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


def speed(torch: str = "") -> dict:
    """Tokens a second of all members in one program; of the same members one after another, by the same step of ours
    and by PyTorch's; and how far apart the losses of ours and PyTorch's are [nats]."""
    program.use_all_cpus()
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
    found = {name: size / float(np.median(s)) for name, s in seconds.items()}
    chip = dry_run._chip(jax.local_devices()[0].device_kind)
    flops = dry_run.flops_per_token(swarm.shape, swarm.member.parameters, swarm.length)
    return found | {"utilisation": chip and found["together"] * flops / chip.flops} | referee


@contextlib.contextmanager
def _torch(python: str, swarm: train.Swarm, weights: dict, tokens_TBL1, losses, steps: int):
    """({its version, losses apart from ours at most}, a function by which PyTorch takes so many steps)."""
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
                raise RuntimeError(f"{' '.join(command)}: PyTorch did not run on the device that JAX has; {first}")
            take(1)
            apart = float(np.abs(np.array(first["losses"]) - losses).max())
            yield {"version": first["torch"], "apart": apart}, lambda: take(steps)
            process.stdin.close()


def _name(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


PARTS = {"divided": divided, "held": held, "started": started, "read": read, "speed": speed}


def measure(part: str, *arguments, **environment) -> dict:
    """One figure, from a new process."""
    command = [sys.executable, "-m", "benchmarks.accelerator", f"--part={part}", *map(str, arguments)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _divided_rows(torch: str) -> list[tuple[str, str]]:
    """members on simulated devices"""
    losses = {n: measure("divided", n, JAX_PLATFORMS="cpu") for n in DEVICES}
    first = np.array(losses[DEVICES[-1]]["loss_KT"])
    apart = {n: float(np.abs(np.array(found["loss_KT"]) - first).max()) for n, found in losses.items()}
    return [
        (
            f"{MEMBERS} members on {_listed(DEVICES)} simulated devices, two steps: losses apart at most",
            _listed(f"{apart[n]:.1e}" for n in DEVICES),
        ),
        ("collectives in the compiled step", _listed(losses[n]["collectives"] for n in DEVICES)),
    ]


def _speed_rows(torch: str) -> list[tuple[str, str]]:
    """tokens a second"""
    rate = measure("speed", *[torch] * bool(torch))
    used = rate["utilisation"]
    return [
        (
            "tokens a second, all members in one program over one after another",
            f"{rate['together'] / rate['one_by_one']:.2f}",
        ),
        (
            f"the same over one after another by compiled PyTorch {rate.get('version', '')}",
            f"{rate['together'] / rate['torch']:.2f}" if torch else "not measured: no `--torch`",
        ),
        ("PyTorch's losses and ours over four steps, apart at most", f"{rate['apart']:.1e}" if torch else ""),
        ("model FLOPs utilisation", "the peak is not known" if used is None else f"{100 * used:.0f} %"),
    ]


def _held_rows(torch: str) -> list[tuple[str, str]]:
    """memory of a further member"""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        needs = list(pool.map(lambda n: measure("held", n), HELD))
    extra = [b["needed"] - a["needed"] for a, b in zip(needs, needs[1:])]
    states, gradient = needs[0]["states"], needs[0]["gradient"]
    return [
        (
            "a member's weights and optimiser, and its gradient of a batch with all that takes, MB",
            f"{states / 1e6:.1f} + {gradient / 1e6:.1f}",
        ),
        (
            f"a further member on a device, from {HELD[0]} to {HELD[-1]}, MB, and over that sum",
            _listed(f"{x / 1e6:.1f} ({x / (states + gradient):.2f})" for x in extra),
        ),
    ]


def _started_rows(torch: str) -> list[tuple[str, str]]:
    """seconds to the first step"""
    with tempfile.TemporaryDirectory() as compiled:
        starts = [measure("started", time.time(), compiled) for _ in range(2)]
    return [
        (
            f"{STARTED} members on one device, {starts[0]['at_once']} at once: seconds to the first step, at the first "
            "and second start",
            _listed(round(start["seconds"]) for start in starts),
        )
    ]


def _read_rows(torch: str) -> list[tuple[str, str]]:
    """memory of reading"""
    peaks = [measure("read", n)["bytes"] for n in READ]
    return [
        (
            f"peak memory of reading for {_listed(READ)} members, of which a dispatch's tokens are "
            f"{train.CHUNK_BYTES >> 20} MiB, or a step's where that is more, MB",
            _listed(round(b / 1e6) for b in peaks),
        )
    ]


def section(torch: str) -> str:
    """All figures of the device at hand, as Markdown; one that cannot be had is no reason to lose the others."""
    config, rows = settings(), []
    parts = (_speed_rows, _held_rows, _started_rows)
    for part in parts if on_accelerator() else (_divided_rows, *parts, _read_rows):
        try:
            found = part(torch)
        except RuntimeError as e:
            print(e, file=sys.stderr)
            found = [(part.__doc__, "failed: " + str(e).splitlines()[-1].replace("|", "/"))]
        rows += found
        print(*(f"{what}: {value}" for what, value in found), sep="\n", file=sys.stderr)
    micro = config.train.micro_batch or config.train.batch
    head = [
        f"## {jax.local_devices()[0].device_kind}",
        "",
        f"`python -m benchmarks.accelerator{' --torch=PYTHON' * bool(torch)}`, {datetime.date.today()}, "
        f"{os.cpu_count()} CPU cores; Python {platform.python_version()}, JAX {jax.__version__}."
        + " No accelerator: these are reduced sizes."
        * (not on_accelerator()),
        "",
        f"Proxies: {config.proxy.preset}, vocabulary {config.corpus.vocabulary:,}, {config.train.batch} sequences of "
        f"{config.proxy.length} a step, {micro} at a time, {config.proxy.dtype}.",
        "",
        "| measured | |",
        "|---|---|",
    ]
    return "\n".join(head + [f"| {what} | {value} |" for what, value in rows]) + "\n"


def page(old: str, new: str) -> str:
    """The page with a device's section in the place of its earlier one, or as the first."""
    kind = new.splitlines()[0]
    sections = ["## " + text.strip() + "\n" for text in ("\n" + old).split("\n## ")[1:]]
    kinds = [text.splitlines()[0] for text in sections]
    if kind in kinds:
        sections[kinds.index(kind)] = new
    else:
        sections.insert(0, new)
    return "\n".join(["# The swarm engine on a device\n", *sections])


def _listed(values) -> str:
    return ", ".join(map(str, values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", default="", metavar="PYTHON", help="a Python that has PyTorch, to compare with it")
    parser.add_argument("--part", choices=PARTS, help="one figure alone, as JSON")
    parser.add_argument("arguments", nargs="*", help="the part's")
    args = parser.parse_args()
    # Several processes have the device, one of them PyTorch's.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if args.part:
        print(json.dumps(PARTS[args.part](*(_number(a) for a in args.arguments))))
        return
    new = section(args.torch)
    files.write_text(PAGE, page(PAGE.read_text() if PAGE.exists() else "", new))
    print(new)


def _number(text: str):
    return int(text) if text.isdecimal() else float(text) if text.replace(".", "", 1).isdecimal() else text


if __name__ == "__main__":
    main()

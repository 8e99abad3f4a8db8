"""The swarm engine on the accelerator at hand; without one, at reduced size on the CPU: benchmarks/accelerator.md.

    python -m benchmarks.accelerator

Every figure comes from a process of its own, ``python -m benchmarks.accelerator PART …``, which prints it as JSON.
"""

import datetime
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
import numpy as np

from benchmarks import throughput
from configs import paper, quickstart
from olmix_jax import config as configs
from olmix_jax import dry_run, files
from olmix_jax.proxy import ahead, train

PAGE = pathlib.Path(__file__).with_name("accelerator.md")
MEMBERS, DEVICES = 64, (1, 2, 4, 8)
STARTED, HELD, READ = 128, (1, 2, 3), (8, 64, 512)


def on_accelerator() -> bool:
    return jax.default_backend() != "cpu"


def settings() -> configs.Config:
    """30M of the paper; on a CPU the quickstart's proxies."""
    return configs.from_dict(paper.get_config("30M") if on_accelerator() else quickstart.get_config())


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


def held(members: int) -> dict:
    """What the compiler says of so many members on a device, and what they are made of [bytes]."""
    swarm = throughput.swarm_of(settings(), members)
    shape = 1, swarm.train.batch, swarm.length + 1
    found = ahead.compile_steps(swarm.member, shape, members, jax.local_devices()[:1])
    return {"needed": ahead.needed(found), "state": swarm.member.memory}


def started(begun: float, compiled: str) -> dict:
    """Seconds from the process's start to the end of the first step, of many members on one device."""
    jax.config.update("jax_compilation_cache_dir", compiled)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    swarm = throughput.swarm_of(settings(), STARTED)
    mapping = "vmap" if on_accelerator() else "map"
    _, loss_KT = swarm.steps(mapping)(swarm.start(mapping), next(swarm.chunks()), 1)
    jax.block_until_ready(loss_KT)
    return {"seconds": time.time() - begun}


def read(members: int) -> dict:
    """Peak memory of a process that does nothing but read so many members' tokens [bytes]."""
    for tokens, _ in zip(throughput.swarm_of(settings(), members).chunks(), range(8)):
        assert tokens.nbytes <= max(train.CHUNK_BYTES, tokens[:, :1].nbytes)
    return {"bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


def speed() -> dict:
    """Tokens a second of all members in one program, and of the same members one after another."""
    config = settings()
    swarm = throughput.swarm_of(config, 8 if on_accelerator() else 24)
    mapping = "vmap" if on_accelerator() else "map"
    tokens, steps = next(swarm.chunks()), 4
    contenders = throughput.together(swarm, mapping, tokens, steps)[0], throughput.one_by_one(swarm, tokens, steps)
    rates = {name: [] for name in ("together", "one_by_one")}
    for _ in range(5):
        for name, advance in zip(rates, contenders):
            begun = time.perf_counter()
            advance()
            rates[name].append(
                len(swarm.runs) * steps * swarm.train.batch * swarm.length / (time.perf_counter() - begun)
            )
    middle = {name: float(np.median(values)) for name, values in rates.items()}
    chip = dry_run._chip(jax.local_devices()[0].device_kind)
    flops = dry_run.flops_per_token(swarm.shape, swarm.member.parameters, swarm.length)
    return middle | {"utilisation": chip and middle["together"] * flops / chip.flops}


PARTS = {"divided": divided, "held": held, "started": started, "read": read, "speed": speed}


def measure(part: str, *arguments, **environment) -> dict:
    """One figure, from a new process."""
    command = [sys.executable, "-m", "benchmarks.accelerator", part, *map(str, arguments)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def page() -> str:
    """All figures, as Markdown."""
    config, kind = settings(), jax.local_devices()[0].device_kind
    losses = {n: measure("divided", n, JAX_PLATFORMS="cpu") for n in DEVICES}
    first = np.array(losses[DEVICES[-1]]["loss_KT"])
    apart = {n: float(np.abs(np.array(found["loss_KT"]) - first).max()) for n, found in losses.items()}
    needs = [measure("held", n) for n in HELD]
    with tempfile.TemporaryDirectory() as compiled:
        starts = [measure("started", time.time(), compiled)["seconds"] for _ in range(2)]
    peaks = [measure("read", n)["bytes"] for n in READ]
    rate, state = measure("speed"), needs[0]["state"]
    extra = [b["needed"] - a["needed"] for a, b in zip(needs, needs[1:])]
    used = rate["utilisation"]
    rows = [
        (
            f"{MEMBERS} members on {_listed(DEVICES)} simulated devices, two steps: losses apart at most",
            ", ".join(f"{apart[n]:.1e}" for n in DEVICES),
        ),
        ("collectives in the compiled step", _listed(losses[n]["collectives"] for n in DEVICES)),
        (
            "tokens a second, all members in one program over one after another",
            f"{rate['together'] / rate['one_by_one']:.2f}",
        ),
        ("model FLOPs utilisation", "the peak is not known" if used is None else f"{100 * used:.0f} %"),
        ("a member's weights, optimiser and gradient, MB", f"{state / 1e6:.1f}"),
        (f"a further member on a device, from {HELD[0]} to {HELD[-1]}, MB", _listed(f"{x / 1e6:.1f}" for x in extra)),
        (
            f"{STARTED} members on one device: seconds to the first step, at the first and second start",
            _listed(round(s) for s in starts),
        ),
        (f"peak memory of reading for {_listed(READ)} members, MB", _listed(round(b / 1e6) for b in peaks)),
    ]
    size = "" if on_accelerator() else " **No accelerator was at hand: these are reduced sizes, on a CPU.**"
    head = [
        "# The swarm engine on a device",
        "",
        f"`python -m benchmarks.accelerator`, {datetime.date.today()}, {kind}, {os.cpu_count()} CPU cores; Python "
        f"{platform.python_version()}, JAX {jax.__version__}.{size}",
        "",
        f"Proxies: {config.proxy.preset}, vocabulary {config.corpus.vocabulary:,}, {config.train.batch} sequences of "
        f"{config.proxy.length}, {config.proxy.dtype}.",
        "",
        "| measured | |",
        "|---|---|",
    ]
    return "\n".join(head + [f"| {what} | {value} |" for what, value in rows]) + "\n"


def _listed(values) -> str:
    return ", ".join(map(str, values))


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(PARTS[sys.argv[1]](*(_number(a) for a in sys.argv[2:]))))
        return
    text = page()
    files.write_text(PAGE, text)
    print(text)


def _number(text: str):
    return int(text) if text.isdecimal() else float(text) if text.replace(".", "", 1).isdecimal() else text


if __name__ == "__main__":
    main()

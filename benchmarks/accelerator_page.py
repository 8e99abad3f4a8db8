"""Write the section of this machine's device in benchmarks/accelerator.md.

    python -m benchmarks.accelerator_page [--torch=PYTHON]

``--torch`` is a Python executable with PyTorch, for the comparison with ``benchmarks/torch_proxy.py``. Every figure is
measured in a separate process (``benchmarks/accelerator.py``).
"""

import argparse
import concurrent.futures
import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np

from benchmarks.accelerator import FIRST_STEP_MEMBERS, MEMBERS, on_accelerator, settings
from olmix_jax.proxy.proxy_swarm import CHUNK_BYTES
from olmix_jax.utils import files

PAGE = pathlib.Path(__file__).with_name("accelerator.md")
# Numbers of simulated devices, and of members in the measurements of memory on the device and on the host.
DEVICES, DEVICE_MEMBERS, HOST_MEMBERS = (1, 2, 4, 8), (1, 2, 3), (64, 512, 4096, 8192)


def measure(part: str, *arguments, **environment) -> dict:
    """Measure one part of :mod:`benchmarks.accelerator` in a new process."""
    command = [sys.executable, "-m", "benchmarks.accelerator", part, *map(str, arguments)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _divided_rows(torch: str) -> list[tuple[str, str]]:
    """members on simulated devices"""
    losses = {n: measure("simulated_devices", n, JAX_PLATFORMS="cpu") for n in DEVICES}
    first = np.array(losses[DEVICES[-1]]["loss_KT"])
    apart = {n: float(np.abs(np.array(result["loss_KT"]) - first).max()) for n, result in losses.items()}
    return [
        (
            f"{MEMBERS} members on {_listed(DEVICES)} simulated devices, two steps: largest difference of losses",
            _listed(f"{apart[n]:.1e}" for n in DEVICES),
        ),
        ("collectives in the compiled step", _listed(losses[n]["collectives"] for n in DEVICES)),
    ]


def _speed_rows(torch: str) -> list[tuple[str, str]]:
    """tokens per second"""
    rate = measure("speed", *[torch] * bool(torch))
    used = rate["utilisation"]
    return [
        (
            "tokens per second: all members in one program, relative to one after another",
            f"{rate['together'] / rate['one_by_one']:.2f}",
        ),
        (
            f"the same, relative to one after another in compiled PyTorch {rate.get('version', '')}",
            f"{rate['together'] / rate['torch']:.2f}" if torch else "not measured: no `--torch`",
        ),
        ("largest difference from PyTorch's losses over four steps [nats]", f"{rate['apart']:.1e}" if torch else ""),
        ("model FLOPs utilisation", "unknown peak" if used is None else f"{100 * used:.0f} %"),
    ]


def _held_rows(torch: str) -> list[tuple[str, str]]:
    """memory of an additional member"""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        needs = list(pool.map(lambda n: measure("member_memory", n), DEVICE_MEMBERS))
    extra = [b["needed"] - a["needed"] for a, b in zip(needs, needs[1:])]
    states, gradient = needs[0]["states"], needs[0]["gradient"]
    return [
        (
            "memory of one member: weights and optimiser state + gradient of a batch with temporaries [MB]",
            f"{states / 1e6:.1f} + {gradient / 1e6:.1f}",
        ),
        (
            f"memory of each additional member on a device, from {DEVICE_MEMBERS[0]} to {DEVICE_MEMBERS[-1]} [MB] "
            "(relative to that sum)",
            _listed(f"{x / 1e6:.1f} ({x / (states + gradient):.2f})" for x in extra),
        ),
    ]


def _started_rows(torch: str) -> list[tuple[str, str]]:
    """seconds to the first step"""
    with tempfile.TemporaryDirectory() as compiled:
        # Preallocate as in a real run: memory that grows piece by piece is fragmented and holds fewer members.
        alone = {"XLA_PYTHON_CLIENT_PREALLOCATE": "true"}
        starts = [measure("first_step", time.time(), compiled, **alone) for _ in range(2)]
    return [
        (
            f"{FIRST_STEP_MEMBERS} members on one device, {starts[0]['at_once']} at once: seconds to the first step, "
            "without and with a compilation cache",
            _listed(round(start["seconds"]) for start in starts),
        )
    ]


def _read_rows(torch: str) -> list[tuple[str, str]]:
    """memory of reading"""
    peaks = [measure("reader_memory", n)["bytes"] for n in HOST_MEMBERS]
    return [
        (
            f"peak memory of reading for {_listed(HOST_MEMBERS)} members [MB]; at most {CHUNK_BYTES >> 20} MiB of "
            "it are tokens, or one step's if that is more",
            _listed(round(b / 1e6) for b in peaks),
        )
    ]


def section(torch: str) -> str:
    """Return all figures of this machine's device as Markdown. A part that fails becomes a cell with its error."""
    config, rows = settings(), []
    parts = (_speed_rows, _held_rows, _started_rows)
    for part in parts if on_accelerator() else (_divided_rows, *parts, _read_rows):
        try:
            new = part(torch)
        except RuntimeError as e:
            print(e, file=sys.stderr)
            new = [(part.__doc__, "failed: " + str(e).splitlines()[-1].replace("|", "/"))]
        rows += new
        print(*(f"{name}: {value}" for name, value in new), sep="\n", file=sys.stderr)
    micro = config.train.micro_batch or config.train.batch
    head = [
        f"## {jax.local_devices()[0].device_kind}",
        "",
        f"`python -m benchmarks.accelerator_page{' --torch=PYTHON' * bool(torch)}`, {datetime.date.today()}, "
        f"{os.cpu_count()} CPU cores; Python {platform.python_version()}, JAX {jax.__version__}."
        + " No accelerator: the sizes are reduced."
        * (not on_accelerator()),
        "",
        f"Proxies: {config.proxy.preset}, vocabulary {config.corpus.vocabulary:,}, {config.train.batch} sequences of "
        f"{config.proxy.length} tokens per step, micro-batches of {micro}, {config.proxy.dtype}.",
        "",
        "| measured | |",
        "|---|---|",
    ]
    return "\n".join(head + [f"| {name} | {value} |" for name, value in rows]) + "\n"


def page(old: str, new: str) -> str:
    """Return the page with a device's new section in place of its old one, or first if it has none."""
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
    parser.add_argument(
        "--torch", default="", metavar="PYTHON", help="a Python executable with PyTorch, to compare with"
    )
    args = parser.parse_args()
    # Several processes share the device, one of them PyTorch's.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    new = section(args.torch)
    files.write_text(PAGE, page(PAGE.read_text() if PAGE.exists() else "", new))
    print(new)


if __name__ == "__main__":
    main()

"""The page of the swarm engine on a device, benchmarks/accelerator.md: the section of the one at hand.

    python -m benchmarks.accelerator_page [--torch=PYTHON]

``--torch`` is a Python that has PyTorch, of an environment of its own or this one, for the comparison with
``benchmarks/torch_proxy.py``. Every figure comes from a process of its own (``benchmarks/accelerator.py``).
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

from benchmarks.accelerator import MEMBERS, STARTED, on_accelerator, settings
from olmix_jax.proxy import train
from olmix_jax.utils import files

PAGE = pathlib.Path(__file__).with_name("accelerator.md")
DEVICES, HELD, READ = (1, 2, 4, 8), (1, 2, 3), (64, 512, 4096, 8192)


def measure(part: str, *arguments, **environment) -> dict:
    """One figure, from a new process."""
    command = [sys.executable, "-m", "benchmarks.accelerator", part, *map(str, arguments)]
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
        # Alone on the device, as a run is: memory had bit by bit would lie in pieces, and hold less.
        alone = {"XLA_PYTHON_CLIENT_PREALLOCATE": "true"}
        starts = [measure("started", time.time(), compiled, **alone) for _ in range(2)]
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
        f"`python -m benchmarks.accelerator_page{' --torch=PYTHON' * bool(torch)}`, {datetime.date.today()}, "
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
    args = parser.parse_args()
    # Several processes have the device, one of them PyTorch's.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    new = section(args.torch)
    files.write_text(PAGE, page(PAGE.read_text() if PAGE.exists() else "", new))
    print(new)


if __name__ == "__main__":
    main()

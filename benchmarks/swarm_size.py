"""Measure seconds and peak memory of a fit, a proposal and a report by size of the swarm: benchmarks/swarm_size.md.

    python -m benchmarks.swarm_size [--sizes=512x64x52,...]

Every size K × M × N is one process of `run.py --config=configs/fit_csv.py --stages=fit,propose,report` with the default
law, on a synthetic swarm (truths of kind "power", experiments/laws_at_their_optimum). The choice of next runs is also
measured alone at the size of NEXT_RUNS, in a process that conditions the law on the swarm with θ at the prior's mean.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

import numpy as np

from benchmarks import laws_page
from experiments.laws_at_their_optimum import worlds
from olmix_jax.laws import FittedLaw, cpu, warped_gp, warped_kernel
from olmix_jax.propose import next_runs
from olmix_jax.swarm import table

HERE = pathlib.Path(__file__).parent
PAGE = HERE / "swarm_size.md"
# Runs × domains × tasks. The fourth is the paper's.
SIZES = "64x12x12", "128x24x52", "256x64x52", "512x64x52", "1024x64x52"
PAPER, SECONDS = "512x64x52", 60
NEXT_RUNS, GIGABYTES = "1000x64x500", 2.0

# Where it stops being usable.
LIMITS = """## Where it stops

Time grows in proportion to the tasks: at 500 tasks it is about ten times that of 52, so a whole run at 1,000 × 64 × 500
should take half an hour to an hour of two cores (not measured). With the runs it grows in proportion up to some 1,000.
Beyond that, matrices of runs × runs for every task and fold dominate, and time grows with their third power. Then leave
out tasks (`fit.drop_metrics`), the choice of λ and the paths (`propose.explore=False`), or fit `log_linear`."""


class Measured(NamedTuple):
    """One process.

    Attributes:
      wall_s, cpu_s: seconds of the clock, and of all threads.
      peak_gb: largest resident memory, ru_maxrss.
      fit_s: seconds of the clock for the stage ``fit``; 0 if it is not known.
      files_mb: size of the parameters and samples of the law.
    """

    wall_s: float
    cpu_s: float
    peak_gb: float
    fit_s: float = 0.0
    files_mb: float = 0.0


def dimensions(size: str) -> tuple[int, int, int]:
    runs, domains, tasks = map(int, size.split("x"))
    return runs, domains, tasks


def write_swarm(folder: pathlib.Path, size: str) -> None:
    """Write the tables of a synthetic swarm."""
    runs, domains, tasks = dimensions(size)
    world = worlds.drawn("power", domains, runs, tasks=tasks, seed=1)
    names = tuple(f"run{k}" for k in range(runs))
    columns = tuple(f"domain{j}" for j in range(domains))
    table.write_ratios(folder / "ratios.csv", names, names, columns, world.ratios_KM)
    table.write_ratios(folder / "metrics.csv", names, names, tuple(f"task{i}" for i in range(tasks)), world.bpb_KN)
    natural = dict(zip(columns, world.natural_M.tolist(), strict=True))
    (folder / "meta.json").write_text(json.dumps({"relative_sizes": natural}))


def run(command: list[str]) -> Measured:
    """Run a command to its end and measure its process."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, cwd=HERE.parent, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed with status {process.returncode}")
    return Measured(time.perf_counter() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20)


def measure(size: str) -> Measured:
    """Measure all stages at one size."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_swarm(folder, size)
        tables = [f"--config.swarm.{part}={folder}/{part}.csv" for part in ("ratios", "metrics")]
        flags = [*tables, f"--config.swarm.meta={folder}/meta.json", "--stages=fit,propose,report"]
        measured = run([sys.executable, "run.py", "--config=configs/fit_csv.py", f"--workdir={folder}/run", *flags])
        fit_s = json.loads((folder / "run/fit/fit.json").read_text())["wall_s"]
        files = (folder / "run/fit" / name for name in ("params.npz", "samples.npz"))
        return measured._replace(fit_s=fit_s, files_mb=sum(path.stat().st_size for path in files) / 1e6)


def choose_next_runs(size: str) -> None:
    """Choose next runs in this process."""
    runs, domains, tasks = dimensions(size)
    draw = np.random.default_rng(0)
    ratios_KM = draw.dirichlet(np.full(domains, 0.3), size=runs)
    bpb_KN = np.exp(-0.1 * np.log1p(ratios_KM / 0.05) @ draw.random((domains, tasks)))
    with cpu.float64():
        mean_P = np.asarray(warped_kernel.prior(domains)[0])
    few = warped_gp.fit(ratios_KM[:4], bpb_KN[:4]).params
    near = few._replace(theta_NP=np.tile(mean_P, (tasks, 1)))
    params = warped_gp.fit_weighted(ratios_KM, bpb_KN, np.ones((1, runs)), near=near)
    fitted = FittedLaw(warped_gp.LAW, warped_gp.Params(*(x[0] for x in params)))
    names = [f"domain{j}" for j in range(domains)]
    next_runs.propose_next(fitted, 8, natural_M=np.full(domains, 1 / domains), domains=names, existing_KM=ratios_KM)


def page(rows: dict[str, Measured], alone: Measured, load: float) -> str:
    """Return the page."""
    heads = "runs × domains × tasks", "seconds", "of these fit", "CPU seconds", "peak memory, GB", "law on disk, MB"
    lines = [
        (
            size.replace("x", " × "),
            *(f"{x:.0f}" for x in (row.wall_s, row.fit_s, row.cpu_s)),
            f"{row.peak_gb:.2f}",
            f"{row.files_mb:.1f}",
        )
        for size, row in rows.items()
    ]
    text = [
        "# Size of the swarm: seconds and memory",
        "",
        laws_page.provenance("`python -m benchmarks.swarm_size`"),
        "",
        "Each row is one process of `run.py --config=configs/fit_csv.py --stages=fit,propose,report` with the default "
        f"law, on a synthetic swarm and in a new workdir. The load of the machine before the run was {load:.1f}. Other "
        "load lengthens the seconds on the clock much more than CPU seconds, which count all threads.",
        "",
        laws_page.table(heads, lines),
    ]
    if PAPER in rows:
        wall_s = rows[PAPER].wall_s
        text += ["", f"Target: < {SECONDS} s at the paper's size: {wall_s:.0f} s, {_verdict(wall_s < SECONDS)}."]
    text += [
        "",
        f"Choosing 8 next runs alone at {NEXT_RUNS.replace('x', ' × ')}: {alone.wall_s:.0f} s, {alone.cpu_s:.0f} CPU "
        f"seconds, peak {alone.peak_gb:.2f} GB. Target: < {GIGABYTES:g} GB, {_verdict(alone.peak_gb < GIGABYTES)}.",
    ]
    return "\n".join([*text, "", LIMITS, ""])


def _verdict(reached: bool) -> str:
    return "reached" if reached else "**missed**"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default=",".join(SIZES), help="sizes K x M x N, separated by commas")
    parser.add_argument("--next-runs", metavar="SIZE", help="only choose next runs at this size, in this process")
    args = parser.parse_args()
    if args.next_runs:
        choose_next_runs(args.next_runs)
        return
    rows, load = {}, os.getloadavg()[0]
    for size in args.sizes.split(","):
        rows[size] = measure(size)
        print(size, rows[size], flush=True)
    alone = run([sys.executable, "-m", "benchmarks.swarm_size", f"--next-runs={NEXT_RUNS}"])
    PAGE.write_text(page(rows, alone, load))
    print(PAGE.read_text())


if __name__ == "__main__":
    main()

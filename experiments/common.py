"""Shared by all experiments: the flags --scale, --workdir and --seed, and results.json."""

import argparse
import pathlib

from olmix_jax.utils import devices, files, progress

SCALES = ("smoke", "cpu", "paper")


def arguments(about: str, scales=SCALES, **more) -> argparse.Namespace:
    """Parse the command line, start the log in the workdir, and let JAX use all cores.

    Args:
      about: the docstring of the experiment; its first paragraph is the help text.
      scales: allowed values of ``--scale``; the first is the default.
      **more: further flags, as {flag: (default, help)}.

    Returns:
      The flags, with ``workdir`` as a path.
    """
    parser = argparse.ArgumentParser(description=about.split("\n\n")[0])
    parser.add_argument(
        "--scale", choices=scales, default=scales[0], help="size of the experiment; default: %(default)s"
    )
    parser.add_argument("--workdir", required=True, type=pathlib.Path, help="the folder for all results")
    parser.add_argument("--seed", type=int, default=0, help="seed of all random draws; default: %(default)s")
    for flag, (default, text) in more.items():
        parser.add_argument(f"--{flag}", default=default, type=type(default), help=f"{text}; default: %(default)s")
    flags = parser.parse_args()
    progress.start_log(flags.workdir)
    devices.use_all_cpus()
    return flags


def write_results(workdir: pathlib.Path, results: dict) -> pathlib.Path:
    """Write ``results.json`` and return its path."""
    files.write_json(workdir / "results.json", results)
    return workdir / "results.json"

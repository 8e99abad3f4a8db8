"""What every experiment's command line has in common: --scale, --workdir, and results.json."""

import argparse
import pathlib

from olmix_jax.utils import files, progress

SCALES = ("smoke", "cpu", "paper")


def arguments(about: str, scales=SCALES, **more) -> argparse.Namespace:
    """``--scale``, ``--workdir`` and ``--seed``, and what else an experiment has ({flag: (default, help)}).

    Returns:
      The flags, ``workdir`` as a path; progress goes to the terminal and to its log.
    """
    parser = argparse.ArgumentParser(description=about.split("\n\n")[0])
    parser.add_argument("--scale", choices=scales, default=scales[0], help="how much is run; default: %(default)s")
    parser.add_argument("--workdir", required=True, type=pathlib.Path, help="where all results go")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn; default: %(default)s")
    for flag, (default, text) in more.items():
        parser.add_argument(f"--{flag}", default=default, type=type(default), help=f"{text}; default: %(default)s")
    found = parser.parse_args()
    progress.start_log(found.workdir)
    return found


def write_results(workdir: pathlib.Path, results: dict) -> pathlib.Path:
    """Writes ``results.json`` and returns its path."""
    files.write_json(workdir / "results.json", results)
    return workdir / "results.json"

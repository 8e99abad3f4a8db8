"""The wheel, installed into an empty environment: the README's Python example and the console command."""

import pathlib
import re
import subprocess
import sys
import venv

import numpy as np
import pytest

from olmix_jax.swarm import table

ROOT = pathlib.Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def run(*command, cwd):
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Install the wheel into an empty environment and return the folder of its programs."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT, cwd=folder)
    venv.create(folder / "empty")
    (wheel,) = folder.glob("*.whl")
    # Most modules of the packages are never imported here.
    install = ("install", "--quiet", "--disable-pip-version-check", "--no-compile", wheel)
    run(sys.executable, "-m", "pip", "--python", folder / "empty/bin/python", *install, cwd=folder)
    return folder / "empty/bin"


def readme_example() -> str:
    """Return the block of code under the README's heading "In Python"."""
    section = (ROOT / "README.md").read_text().split("\n## In Python\n")[1].split("\n## ")[0]
    lines = re.findall(r"^(?:    (.*)|)$", section, re.MULTILINE)
    return "\n".join(lines)


def test_the_readme_example_runs_from_the_wheel(installed, tmp_path):
    draw = np.random.default_rng(0)
    ratios_KM = draw.dirichlet(np.ones(3), 24)
    bpb_KN = np.exp(-ratios_KM @ draw.uniform(0, 1, (3, 2))) + 0.5
    runs, natural_M, tokens_M = tuple(f"run-{k}" for k in range(24)), np.array([0.5, 0.3, 0.2]), np.array([5, 3, 2])
    table.write_swarm(
        tmp_path,
        runs,
        runs,
        ("web", "code", "wiki"),
        ("qa", "math"),
        ratios_KM,
        bpb_KN,
        natural_M,
        tokens_M * 10**12,
        {},
    )
    output = run(installed / "python", "-c", readme_example(), cwd=tmp_path)
    assert "local optimum" in output and "'web':" in output


def test_the_console_command_runs_a_config_outside_the_checkout(installed, tmp_path):
    assert "--workdir" in run(installed / "olmix-jax", "--help", cwd=tmp_path)
    command = ("--config=configs/quickstart.py:smoke", "--workdir=run", "--stages=prepare,sample")
    run(installed / "olmix-jax", *command, cwd=tmp_path)
    assert (tmp_path / "run/swarm/ratios.csv").is_file()

"""proxy/train.py and proxy/waves.py in processes with 1, 2, 4 and 8 devices (PITFALLS 9 to 12)."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]


def train_on(devices, folder, *more):
    """Run tests/on_devices.py in a process with that many devices. Return the process and the file of results."""
    results = folder / "results.npz"
    command = [sys.executable, "-m", "tests.on_devices", devices, folder / "train", results, *more]
    return subprocess.run([str(word) for word in command], cwd=ROOT, capture_output=True, text=True), results


@pytest.fixture(scope="module")
def on_eight(tmp_path_factory):
    """Return the results of a run on eight devices that was not interrupted."""
    process, results = train_on(8, tmp_path_factory.mktemp("eight"))
    assert process.returncode == 0, process.stderr[-2000:]
    return dict(np.load(results))


def assert_results(process, results, expected, rtol):
    assert process.returncode == 0, process.stderr[-2000:]
    with np.load(results) as actual:
        for name, array in expected.items():
            np.testing.assert_allclose(actual[name], array, rtol=rtol)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2, 4])
def test_number_of_devices_does_not_change_the_results(on_eight, tmp_path, devices):
    """Results are identical on two or more devices. On one device, the CPU splits matrix products differently."""
    assert_results(*train_on(devices, tmp_path), on_eight, rtol=1e-5 if devices == 1 else 0)


def test_resume_on_four_devices_after_preemption_on_eight_gives_identical_results(on_eight, tmp_path):
    stopped, results = train_on(8, tmp_path, 2)
    assert "KeyboardInterrupt" in stopped.stderr and not results.exists()
    assert (tmp_path / "train/checkpoints/2").is_dir()
    assert_results(*train_on(4, tmp_path), on_eight, rtol=0)
    assert (tmp_path / "train/metrics.jsonl").read_text().count("\n") == 3


@pytest.mark.slow
def test_resume_on_two_devices_keeps_the_waves_of_eight(on_eight, tmp_path):
    stopped, _ = train_on(8, tmp_path, 4, 1)
    assert "KeyboardInterrupt" in stopped.stderr
    process, results = train_on(2, tmp_path, 0, 1)
    assert sorted(p.name for p in (tmp_path / "train").glob("wave-*")) == ["wave-0001", "wave-0002", "wave-0003"]
    assert_results(process, results, on_eight, rtol=1e-5)

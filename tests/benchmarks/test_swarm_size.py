"""benchmarks/swarm_size.py: the swarm's tables, a measured process and the page."""

import sys

import pytest

from benchmarks import swarm_size
from olmix_jax.swarm.table import SwarmTable


def test_swarm_has_the_size_and_can_be_read(tmp_path):
    swarm_size.write_swarm(tmp_path, "9x4x3")
    swarm = SwarmTable.read(*(tmp_path / name for name in ("ratios.csv", "metrics.csv", "meta.json")))
    assert (len(swarm.runs), len(swarm.domains), len(swarm.tasks)) == (9, 4, 3)


def test_process_is_measured_and_a_failed_one_ends_the_benchmark():
    measured = swarm_size.run([sys.executable, "-c", "x = b'1' * 50_000_000"])
    assert measured.wall_s > 0 and measured.cpu_s > 0 and 0.04 < measured.peak_gb < 2
    with pytest.raises(SystemExit, match="failed"):
        swarm_size.run([sys.executable, "-c", "raise SystemExit(3)"])


def test_page_states_targets():
    row = swarm_size.Measured(70.0, 110.0, 1.2, 20.0, 0.5)
    text = swarm_size.page({swarm_size.PAPER: row}, row, 0.0)
    assert "| 512 × 64 × 52 | 70 | 20 | 110 | 1.20 | 0.5 |" in text
    assert "70 s, **missed**" in text and "peak 1.20 GB. Target: < 2 GB, reached" in text

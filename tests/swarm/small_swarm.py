"""A small swarm as files, for the tests of this folder."""

import json

import numpy as np

from olmix_jax.swarm.table import SwarmTable

RATIOS = "run,name,index,web,code\nr1,one,0,0.25,0.75\nr2,two,1,1.0,0.0\nr3,three,2,0.5,0.5\n"
METRICS = "run,name,index,qa,math\nr1,one,0,1.5,2.5\nr2,two,1,1.25,2.25\nr3,three,2,1.125,2.125\n"
META = {"relative_sizes": {"code": 0.25, "web": 0.75}, "token_counts": {"code": 100, "web": 300}}
# Eight runs over three domains with two tasks that are in conflict.
BASE_RATIOS = """run,web,code,wiki
r0,.6,.3,.1
r1,.2,.7,.1
r2,.1,.2,.7
r3,.4,.4,.2
r4,.3,.1,.6
r5,.1,.5,.4
r6,.8,.1,.1
r7,.3,.3,.4
"""
BASE_METRICS = """run,t1,t2
r0,1.10,1.02
r1,1.21,.90
r2,.98,1.08
r3,1.12,.98
r4,1.00,1.10
r5,1.11,.96
r6,1.08,1.08
r7,1.06,1.01
"""


def write_and_read(folder, ratios=RATIOS, metrics=METRICS, meta=None, **options):
    """Write the files of a swarm, given as text or bytes, and read them."""
    for name, content in (("ratios.csv", ratios), ("metrics.csv", metrics)):
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    if meta is not None:
        (folder / "meta.json").write_text(json.dumps(meta))
    meta_path = folder / "meta.json" if meta is not None else ""
    return SwarmTable.read(folder / "ratios.csv", folder / "metrics.csv", meta_path, **options)


def assert_same_table(a, b):
    """Assert that two tables are equal, bit for bit."""
    for field in ("runs", "domains", "tasks", "names", "diverged"):
        assert getattr(a, field) == getattr(b, field)
    for field in ("ratios_KM", "bpb_KN", "natural_M", "tokens_M"):
        np.testing.assert_array_equal(getattr(a, field), getattr(b, field))

"""meta.py: sizes by domain, columns to drop and diverged runs, from a file, a text or a mapping.

tests/swarm/test_table.py has the errors for invalid fields, as a table is read.
"""

import json

import numpy as np
import pytest

from olmix_jax.swarm.meta import Meta
from olmix_jax.utils.errors import UserError

CONTENT = {
    "relative_sizes": {"code": 1, "web": 3},
    "token_counts": {"code": 10, "web": 20},
    "drop_metrics": ["old"],
    "diverged": {"r7": 12},
}


@pytest.mark.parametrize("kind", ["file", "text", "mapping"])
def test_meta_is_read_in_the_order_of_the_domains(tmp_path, kind):
    path = tmp_path / "meta.json"
    path.write_text(json.dumps(CONTENT))
    meta = Meta.read({"file": path, "text": json.dumps(CONTENT), "mapping": CONTENT}[kind], ("web", "code"))
    np.testing.assert_array_equal(meta.natural_M, [0.75, 0.25])
    np.testing.assert_array_equal(meta.tokens_M, [20, 10])
    assert (meta.drop_metrics, meta.diverged) == (("old",), ("r7",))
    assert meta.where == (str(path) if kind == "file" else "config field `swarm.meta`")


def test_empty_meta_has_no_sizes():
    meta = Meta.read("", ("web",))
    assert meta.natural_M is None and meta.tokens_M is None and meta.drop_metrics == meta.diverged == ()


def test_error_names_the_source_of_a_mapping():
    with pytest.raises(UserError, match="fit.yaml: priors: `token_counts` lacks web and has unknown wob; its names"):
        Meta.read({"source": "fit.yaml: priors", "token_counts": {"wob": 1}}, ("web",))

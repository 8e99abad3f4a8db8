"""meta.py: sizes by domain, columns to drop and diverged runs; invalid fields are errors that name them."""

import json

import numpy as np
import pytest

from olmix_jax.swarm.meta import Meta
from olmix_jax.swarm.table import SwarmTable
from olmix_jax.utils.errors import UserError
from tests.swarm.small_swarm import META, assert_same_table, write_and_read

CONTENT = {
    "relative_sizes": {"code": 0.25, "web": 0.75},
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


@pytest.mark.parametrize(
    "meta, message",
    [
        ({"relative_sizes": {"web": 1.0}}, "`relative_sizes` lacks code; its names must be the domains web, code"),
        ({"token_counts": {"web": 1}}, r"lacks code; .* domains web, code, the columns of .*ratios.csv; remove those"),
        (
            {"token_counts": {"web": 0.6, "code": 0.4}},
            "`token_counts` has 0.4 for code; write unique tokens, and shares",
        ),
        ({"relative_size": {"web": 1, "code": 1}}, "unknown field `relative_size`; rename it to `relative_sizes`"),
        ({"token_counts": {"web": 1, "code": 1, "law": 1}}, "`token_counts` has unknown law"),
        ({"relative_sizes": {"web": 1, "code": 0}}, "code must be a positive number, not 0"),
        ({"relative_sizes": {"web": "1", "code": 1}}, "web must be a positive number, not '1'"),
        ({"relative_sizes": {"web": float("nan"), "code": 1}}, "NaN is not a finite number"),
        ({"relative_sizes": {"web": 0.9, "code": 0.323}}, "`relative_sizes` must sum to 1, not to 1.223; write each"),
        ({"relative_sizes": {"web": 3, "code": 1}}, "must sum to 1, not to 4; .*, and tokens in `token_counts`"),
        ({"token_counts": {"web": 1, "\u200bweb ": 2}}, "`token_counts` has web twice; keep one of them"),
        ({"token_counts": {"web": 1, "\u0441ode": 2}}, r"lacks code and has unknown \u0441ode \(\\u0441ode\)"),
        ({"relative_sizes": [1, 2]}, "`relative_sizes` must be an object"),
        ({"drop_metrics": "qa"}, "`drop_metrics` must be a list"),
        ({"diverged": "r1"}, "`diverged` must be a list of runs or an object"),
        ({"diverged": ["r8"]}, "`diverged` names runs not in .*ratios.csv: r8"),
        ({"diverged": {"r7": 3}}, "`diverged` names runs not in .*ratios.csv: r7"),
        ([], "must be a JSON object"),
    ],
)
def test_invalid_meta_raises_an_error_that_names_the_field(tmp_path, meta, message):
    with pytest.raises(UserError, match=message):
        write_and_read(tmp_path, meta=meta)


def test_natural_mixture_is_normalised_or_derived_from_token_counts(tmp_path, logged):
    got = write_and_read(tmp_path, meta={"relative_sizes": {"code": 0.198, "web": 0.8}, "note": "x"})
    np.testing.assert_allclose(got.natural_M, [0.8 / 0.998, 0.198 / 0.998])
    assert got.tokens_M is None and any("fields not used: note" in line for line in logged)
    got = write_and_read(tmp_path, meta={"token_counts": {"code": 100, "web": 300}})
    np.testing.assert_allclose(got.natural_M, [0.75, 0.25])


def test_meta_is_a_path_text_or_mapping(tmp_path):
    want = write_and_read(tmp_path, meta=META)
    for meta in (META, json.dumps(META)):
        assert_same_table(SwarmTable.read(tmp_path / "ratios.csv", tmp_path / "metrics.csv", meta), want)
    with pytest.raises(UserError, match="fit.yaml: priors: `token_counts` lacks web"):
        given = {"source": "fit.yaml: priors", "token_counts": {"code": 1}}
        SwarmTable.read(tmp_path / "ratios.csv", tmp_path / "metrics.csv", given)
    with pytest.raises(
        UserError, match="`swarm.meta`: not valid JSON: .*; set it to a JSON object or to the path of a file"
    ):
        SwarmTable.read(tmp_path / "ratios.csv", tmp_path / "metrics.csv", '{"token_counts": ')

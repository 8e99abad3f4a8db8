"""Domains are read in bounded memory, and thinned to the same share."""

import json

import pytest

from olmix_jax.utils.errors import UserError
from tests.corpus.texts import prose, read_domains, texts_of


@pytest.mark.parametrize("max_bytes", [0, 10])
def test_domain_without_text_is_named(tmp_path, max_bytes):
    (tmp_path / "web.txt").write_text("text")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(UserError, match="domain empty: no text"):
        read_domains(tmp_path, max_bytes)


def test_thinning_keeps_a_subset_and_the_proportions_of_domains(tmp_path):
    for name, count in (("large", 900), ("small", 100)):
        rows = (json.dumps({"text": prose(i, 20)}) for i in range(count))
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    whole = read_domains(tmp_path)
    sizes = {name: sum(map(len, texts_of(documents))) for name, documents in whole.documents.items()}
    thin = read_domains(tmp_path, sum(sizes.values()) // 4)
    # The content hash describes the domain before thinning.
    assert thin.content == whole.content
    for name, documents in whole.documents.items():
        assert set(thin.documents[name]) < set(documents)
        assert sum(map(len, texts_of(thin.documents[name]))) == pytest.approx(sizes[name] / 4, abs=200)
    assert read_domains(tmp_path, sum(sizes.values())) == whole

"""Domain sets: a round trip through domains.json, and errors for sets that are not valid."""

import numpy as np
import pytest

from olmix_jax.swarm.domains import DomainSet
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError


def test_round_trip_keeps_the_order(tmp_path):
    domains = DomainSet(("web", "a:b:c"), (30, 10), (90, 40))
    domains.write(tmp_path / "domains.json")
    assert DomainSet.read(tmp_path / "domains.json") == domains
    np.testing.assert_allclose(domains.natural_M, [0.75, 0.25])


@pytest.mark.parametrize(
    ("names", "tokens", "message"),
    [
        ((), (), "no domains"),
        (("a", "a"), (1, 2), "repeated domain: a"),
        (("a", "b"), (1, 0), "without tokens: b"),
        (("a", "b"), (1,), "2 domains but 1 token counts"),
    ],
)
def test_invalid_domain_set_is_an_error(names, tokens, message):
    with pytest.raises(UserError, match=message):
        DomainSet(names, tokens)


def test_missing_token_count_is_an_error_not_zero(tmp_path):
    files.write_json(tmp_path / "domains.json", {"domains": [{"name": "a", "bytes": 3}]})
    with pytest.raises(UserError, match="needs name, tokens and bytes"):
        DomainSet.read(tmp_path / "domains.json")

"""New domains are matched to old ones by their token frequencies."""

import numpy as np

from olmix_jax.corpus import similarity, store
from olmix_jax.swarm.domains import DomainSet


def write(workdir, name: str, tokens: list[int]) -> None:
    store.write_store(store.store_path(workdir, name), [np.array(tokens)], 100)


def domains(*names: str) -> DomainSet:
    return DomainSet(names, (10,) * len(names))


def test_domain_with_the_same_tokens_is_the_likely_match(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    write(old, "a", [1, 2, 3, 1])
    write(old, "b", [7, 8, 9, 90])
    write(new, "x", [9, 8, 7, 90])
    write(new, "y", [1, 1, 2, 3])
    match_MO = similarity.match_probabilities(new, old, domains("a", "b"), domains("x", "y"))
    np.testing.assert_allclose(match_MO, [[0, 1], [1, 0]], atol=1e-6)


def test_probabilities_follow_from_the_affinity(tmp_path):
    write(tmp_path, "a", [1, 1, 1])
    write(tmp_path, "b", [1, 1, 2])
    match_MO = similarity.match_probabilities(tmp_path, tmp_path, domains("a", "b"), domains("a"))
    # Frequencies with the end token: a: end 1/4, 1: 3/4; b: end 1/4, 1: 2/4, 2: 1/4.
    affinity = np.sqrt(1 / 4 * 1 / 4) + np.sqrt(3 / 4 * 2 / 4)
    odds = np.exp((affinity - 1) / similarity.SCALE)
    np.testing.assert_allclose(match_MO, [[1 / (1 + odds), odds / (1 + odds)]], rtol=1e-12)


def test_domain_without_a_store_gives_none(tmp_path):
    write(tmp_path, "a", [1, 2])
    assert similarity.match_probabilities(tmp_path, tmp_path, domains("a"), domains("a", "b")) is None

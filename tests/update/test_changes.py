"""Changes of a domain set, and old mixtures on the new set (METHOD §3; PITFALLS 23, 24)."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from olmix_jax.update import changes
from olmix_jax.utils.errors import UserError

OLD = ("web", "code", "pdfs")


def test_add_affects_only_the_new_domain():
    change = changes.change(OLD, [changes.add("math")])
    assert change.new == (*OLD, "math") and change.unaffected == OLD
    assert change.affected == ("math",) and not change.lost


def test_remove_loses_the_domain_and_affects_no_other():
    change = changes.change(OLD, [changes.remove("code")])
    assert change.new == change.unaffected == ("web", "pdfs")
    assert change.lost == ("code",)


def test_revised_domain_is_affected_and_lost():
    change = changes.change(OLD, [changes.revise("pdfs")])
    assert change.new == OLD and change.affected == change.lost == ("pdfs",)
    assert change.revised == {"pdfs": "pdfs"}


def test_partition_affects_the_parts_and_loses_nothing():
    change = changes.change(OLD, [changes.partition("pdfs", "pdfs:law", "pdfs:art")])
    assert change.new == ("web", "code", "pdfs:law", "pdfs:art")
    assert change.affected == ("pdfs:law", "pdfs:art") and not change.lost


def test_renamed_domain_is_unaffected():
    change = changes.change(OLD, [changes.rename("web", "crawl")])
    assert change.new == change.unaffected == ("crawl", "code", "pdfs")
    assert change.origin["crawl"] == "web"


def test_part_of_a_part_is_a_part_of_the_whole():
    change = changes.change(OLD, [changes.partition("pdfs", "a", "b"), changes.partition("b", "b1", "b2")])
    assert change.parts == {"a": "pdfs", "b1": "pdfs", "b2": "pdfs"} and not change.lost


def test_partition_with_a_removed_part_loses_the_whole():
    change = changes.change(OLD, [changes.partition("pdfs", "a", "b"), changes.remove("a")])
    assert change.new == ("web", "code", "b") and change.affected == ("b",) and change.lost == ("pdfs",)


def test_partition_of_a_revised_domain_loses_the_whole():
    change = changes.change(OLD, [changes.revise("pdfs"), changes.partition("pdfs", "a", "b")])
    assert change.lost == ("pdfs",) and not change.parts and not change.revised


def test_renaming_keeps_the_revision():
    change = changes.change(("a", "b"), [changes.revise("a"), changes.rename("a", "c"), changes.add("a")])
    assert change.revised == {"c": "a"} and change.origin == {"b": "b"}


def test_adding_and_removing_a_domain_changes_nothing():
    change = changes.change(OLD, [changes.add("x"), changes.remove("x")])
    assert change.new == OLD and change.unaffected == OLD and len(change.updates) == 2


def test_partition_may_keep_the_name_of_the_whole():
    assert changes.change(OLD, [changes.partition("web", "web", "news")]).parts == {"web": "web", "news": "web"}


def test_old_mixtures_are_expressed_through_partition_and_renaming():
    """PITFALL 24: these changes lose no old run."""
    steps = [changes.partition("pdfs", "law", "art"), changes.rename("web", "crawl"), changes.add("math")]
    change = changes.change(OLD, steps).ordered(("math", "art", "law", "code", "crawl"))
    matrix_OM = change.mixture_matrix([5.0, 30.0, 10.0, 7.0, 9.0])
    np.testing.assert_allclose(np.array([0.5, 0.1, 0.4]) @ matrix_OM, [0, 0.3, 0.1, 0.1, 0.5])


def test_weight_of_a_revised_domain_cannot_be_expressed():
    change = changes.change(OLD, [changes.revise("code")])
    np.testing.assert_array_equal(change.mixture_matrix(np.ones(3)), np.diag([1.0, 0, 1]))


def test_ordering_by_other_domains_is_an_error():
    with pytest.raises(UserError, match="the new set has no math and also has sums; correct the update file"):
        changes.change(OLD, [changes.add("math")]).ordered((*OLD, "sums"))


@hypothesis.given(st.integers(0, 2**32 - 1))
@hypothesis.settings(deadline=None, max_examples=50)
def test_expressed_mixtures_lose_exactly_the_weight_of_lost_domains(seed):
    rng = np.random.default_rng(seed)
    names, steps, number = [f"d{j}" for j in range(5)], [], 0
    for _ in range(rng.integers(1, 6)):
        current = changes.change(names, steps).new
        name, number = str(rng.choice(current)), number + 2
        options = [changes.add(f"n{number}"), changes.revise(name), changes.rename(name, f"n{number}")]
        options += [changes.partition(name, f"n{number}", f"n{number + 1}")]
        options += [changes.remove(name)] if len(current) > 1 else []
        steps.append(options[rng.integers(len(options))])
    change = changes.change(names, steps)
    assert set(change.unaffected) | set(change.affected) == set(change.new)
    p_O = rng.dirichlet(np.ones(5))
    lost = sum(p for name, p in zip(names, p_O) if name in change.lost)
    assert (p_O @ change.mixture_matrix(rng.uniform(1, 9, len(change.new)))).sum() == pytest.approx(1 - lost)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (changes.remove("books"), "update `remove books`: there is no domain books; the domains are web, code, pdfs"),
        (changes.add("web"), "the name web already exists"),
        (changes.add("a", "a"), "the name a already exists or is given twice; use another name"),
        (changes.rename("web", "code"), "update `rename web to code`: the name code already exists"),
        (changes.partition("web", "a"), "update `partition web into a`: a partition needs two parts or more"),
        (changes.remove(*OLD), "the updates leave no domain"),
    ],
)
def test_step_that_cannot_be_applied_is_an_error(step, message):
    with pytest.raises(UserError, match=message):
        changes.change(OLD, [step])

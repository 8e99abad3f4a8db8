"""Changes of a domain set as values, and what of old evidence they leave (METHOD §3; PITFALLS 23, 24)."""

import json

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from olmix_jax.config import yaml_files
from olmix_jax.swarm.domains import DomainSet
from olmix_jax.update import changes, changes_file
from olmix_jax.utils.errors import UserError

OLD = ("web", "code", "pdfs")


def test_what_each_kind_affects():
    added = changes.change(OLD, [changes.add("math")])
    assert added.new == (*OLD, "math") and added.unaffected == OLD and added.affected == ("math",) and not added.lost
    removed = changes.change(OLD, [changes.remove("code")])
    assert removed.new == ("web", "pdfs") == removed.unaffected and removed.lost == ("code",)
    revised = changes.change(OLD, [changes.revise("pdfs")])
    assert revised.new == OLD and revised.affected == ("pdfs",) == revised.lost
    split = changes.change(OLD, [changes.partition("pdfs", "pdfs:law", "pdfs:art")])
    assert split.new == ("web", "code", "pdfs:law", "pdfs:art")
    assert split.affected == ("pdfs:law", "pdfs:art") and not split.lost
    renamed = changes.change(OLD, [changes.rename("web", "crawl")])
    assert renamed.new == ("crawl", "code", "pdfs") == renamed.unaffected and renamed.origin["crawl"] == "web"


def test_updates_compose():
    """A part of a part is a part; a revised whole has no parts that anything is known of."""
    deep = changes.change(OLD, [changes.partition("pdfs", "a", "b"), changes.partition("b", "b1", "b2")])
    assert deep.parts == {"a": "pdfs", "b1": "pdfs", "b2": "pdfs"} and not deep.lost
    torn = changes.change(OLD, [changes.partition("pdfs", "a", "b"), changes.remove("a")])
    assert torn.new == ("web", "code", "b") and torn.affected == ("b",) and torn.lost == ("pdfs",)
    assert changes.change(OLD, [changes.revise("pdfs"), changes.partition("pdfs", "a", "b")]).lost == ("pdfs",)
    back = changes.change(OLD, [changes.add("x"), changes.remove("x")])
    assert back.new == OLD and back.unaffected == OLD and len(back.updates) == 2


def test_old_mixtures_on_the_new_set():
    """PITFALL 24: a repartition or a new name strands no evidence."""
    steps = [changes.partition("pdfs", "law", "art"), changes.rename("web", "crawl"), changes.add("math")]
    change = changes.change(OLD, steps).ordered(("math", "art", "law", "code", "crawl"))
    matrix_OM = change.expressed([5.0, 30.0, 10.0, 7.0, 9.0])
    np.testing.assert_allclose(np.array([0.5, 0.1, 0.4]) @ matrix_OM, [0, 0.3, 0.1, 0.1, 0.5])
    lost = changes.change(OLD, [changes.revise("code")])
    np.testing.assert_array_equal(lost.expressed(np.ones(3)), np.diag([1.0, 0, 1]))
    with pytest.raises(UserError, match="has no math.*has also sums"):
        changes.change(OLD, [changes.add("math")]).ordered((*OLD, "sums"))


@hypothesis.given(st.integers(0, 2**32 - 1))
@hypothesis.settings(deadline=None, max_examples=50)
def test_expressed_mixtures_keep_all_weight_but_that_of_lost_domains(seed):
    rng = np.random.default_rng(seed)
    names, steps, number = [f"d{j}" for j in range(5)], [], 0
    for _ in range(rng.integers(1, 6)):
        now = changes.change([f"d{j}" for j in range(5)], steps).new
        name, number = str(rng.choice(now)), number + 2
        kinds = [changes.add(f"n{number}"), changes.revise(name), changes.rename(name, f"n{number}")]
        kinds += [changes.partition(name, f"n{number}", f"n{number + 1}")]
        kinds += [changes.remove(name)] if len(now) > 1 else []
        steps.append(kinds[rng.integers(len(kinds))])
    change = changes.change(names, steps)
    assert set(change.unaffected) | set(change.affected) == set(change.new)
    p_O = rng.dirichlet(np.ones(5))
    lost = sum(p for name, p in zip(names, p_O) if name in change.lost)
    assert (p_O @ change.expressed(rng.uniform(1, 9, len(change.new)))).sum() == pytest.approx(1 - lost)


@pytest.mark.parametrize(
    "step, message",
    [
        (changes.remove("books"), "no domain books; there are web, code, pdfs"),
        (changes.add("web"), "web is there already"),
        (changes.add("a", "a"), "a is there already, or twice"),
        (changes.rename("web", "code"), "code is there already"),
        (changes.partition("web", "a"), "two parts or more"),
        (changes.remove(*OLD), "leave no domain"),
    ],
)
def test_impossible_updates_are_named(step, message):
    with pytest.raises(UserError, match=message):
        changes.change(OLD, [step])


def test_a_partition_may_keep_the_name():
    assert changes.change(OLD, [changes.partition("web", "web", "news")]).parts == {"web": "web", "news": "web"}


def domains(**content):
    return DomainSet(tuple(content), (10,) * len(content), (30,) * len(content), tuple(content.values()))


def test_updates_are_found_by_content():
    old = domains(web="0a", code="0b", pdfs="0f", wiki="01")
    new = domains(crawl="0a", code="0c", **{"pdfs:law": "0d", "pdfs:art": "02"}, math="05")
    found = changes.infer(old, new)
    assert found == [
        changes.remove("wiki"),
        changes.rename("web", "crawl"),
        changes.partition("pdfs", "pdfs:law", "pdfs:art"),
        changes.revise("code"),
        changes.add("math"),
    ]
    assert set(changes.change(old.names, found).new) == set(new.names)
    # Hashes that add up to more than the modulus are still those of the parts.
    most = f"{changes.CONTENT_MODULUS - 1:032x}"
    assert changes.infer(domains(a="04"), domains(b="05", c=most)) == [changes.partition("a", "b", "c")]
    assert changes.infer(old, old) == []
    # Without content, names are all there is.
    assert changes.infer(domains(a="", b=""), domains(b="", c="")) == [changes.remove("a"), changes.add("c")]


@pytest.mark.parametrize(
    ("old", "new", "steps"),
    [
        # Two domains that change names.
        (domains(a="01", b="02", c="03"), domains(a="02", b="01", c="03"), 3),
        # A round of three, and one that takes the name of what is removed.
        (domains(a="01", b="02", c="03"), domains(a="02", b="03", c="01"), 4),
        (domains(a="01", b="02"), domains(a="02"), 2),
        # One of the parts keeps the name; parts beside other new domains, named anyhow.
        (domains(a="09", b="02"), domains(a="05", x="04", b="02"), 1),
        (domains(a="09", b="20"), domains(b="20", x="02", y="0e", z="07"), 2),
    ],
)
def test_content_goes_before_names(old, new, steps):
    found = changes.infer(old, new)
    assert len(found) == steps
    change = changes.change(old.names, found).ordered(new.names)
    changes.check_content(change, old, new)
    content = dict(zip(old.names, old.content))
    assert all(content[of] == dict(zip(new.names, new.content))[name] for name, of in change.origin.items())
    known = {*change.origin, *change.parts}
    assert change.revised == {} and len(known) >= len(set(old.content) & set(new.content))


def test_domains_that_were_merged_are_removed_and_their_union_added():
    found = changes.infer(domains(a="01", b="02"), domains(c="03"))
    assert found == [changes.remove("a", "b"), changes.add("c")]


def test_a_revised_domain_is_known_under_its_new_name(caplog):
    change = changes.change(("a", "b"), [changes.revise("a"), changes.rename("a", "c"), changes.add("a")])
    assert (change.revised, change.origin) == ({"c": "a"}, {"b": "b"})
    old, new = domains(a="01", b="02"), domains(c="01", b="02", a="07")
    changes.check_content(change, old, new)
    assert "c is to be revised, and its text is what it was" in caplog.text


def test_content_that_denies_the_update():
    old = domains(web="0a", pdfs="0f")
    with pytest.raises(UserError, match=r"web is not what it was.*revise: \[web\]"):
        changes.check_content(changes.change(old.names, []), old, domains(web="0b", pdfs="0f"))
    split = changes.change(old.names, [changes.partition("pdfs", "law", "art")])
    changes.check_content(split, old, domains(web="0a", law="0e", art="01"))
    with pytest.raises(UserError, match="law, art do not hold the text of pdfs"):
        changes.check_content(split, old, domains(web="0a", law="0e", art="02"))


STEPS = [
    changes.add("a", "b"),
    changes.remove("web"),
    changes.revise("code"),
    changes.partition("pdfs", "x", "y"),
    changes.rename("a", "c"),
]


@pytest.mark.parametrize("name", ["u.json", "u.yaml"])
def test_update_files(tmp_path, name):
    path = tmp_path / name
    path.write_text(json.dumps({"updates": [step.plain() for step in STEPS]}))
    assert changes_file.parse(path, yaml_files.read(path)) == STEPS
    changes.change(OLD, STEPS)


@pytest.mark.parametrize(
    "text, message",
    [
        ("updates: [", "not valid YAML"),
        ("- add: [a]", "needs a list `updates`"),
        ("updates: [{grow: [a]}]", r"updates\[0\]: must be one of add, remove, revise, partition, rename"),
        ("updates: [{add: []}]", "must be a list of domain names"),
        ("updates: [{partition: [a]}]", r"partition must be \{domain: \[parts\]\}"),
        ("updates: [{add: a}]\nsteps: 3", "unknown field `steps`"),
        (None, "cannot be read"),
    ],
)
def test_bad_update_files_are_named(tmp_path, text, message):
    path = tmp_path / "update.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=f"update.yaml.*{message}"):
        changes_file.parse(path, yaml_files.read(path))

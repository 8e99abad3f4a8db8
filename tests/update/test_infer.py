"""Steps inferred from the names and content of two domain sets, and checks of given steps (METHOD §3, PITFALL 23)."""

import pytest

from olmix_jax.swarm.domains import CONTENT_MODULUS, DomainSet
from olmix_jax.update import changes
from olmix_jax.update.infer import check_content, infer
from olmix_jax.utils.errors import UserError


def domains(**content):
    """Domains with these content hashes; "" for an unknown one."""
    return DomainSet(tuple(content), (10,) * len(content), (30,) * len(content), tuple(content.values()))


def test_every_kind_of_step_is_inferred():
    old = domains(web="0a", code="0b", pdfs="0f", wiki="01")
    new = domains(crawl="0a", code="0c", **{"pdfs:law": "0d", "pdfs:art": "02"}, math="05")
    steps = infer(old, new)
    assert steps == [
        changes.remove("wiki"),
        changes.rename("web", "crawl"),
        changes.partition("pdfs", "pdfs:law", "pdfs:art"),
        changes.revise("code"),
        changes.add("math"),
    ]
    assert set(changes.change(old.names, steps).new) == set(new.names)


def test_equal_sets_need_no_step():
    old = domains(web="0a", code="0b")
    assert infer(old, old) == []


def test_parts_are_found_when_their_hashes_exceed_the_modulus():
    largest = f"{CONTENT_MODULUS - 1:032x}"
    assert infer(domains(a="04"), domains(b="05", c=largest)) == [changes.partition("a", "b", "c")]


def test_names_alone_decide_when_content_is_unknown():
    assert infer(domains(a="", b=""), domains(b="", c="")) == [changes.remove("a"), changes.add("c")]


def test_merged_domains_are_removed_and_their_union_is_added():
    assert infer(domains(a="01", b="02"), domains(c="03")) == [changes.remove("a", "b"), changes.add("c")]


@pytest.mark.parametrize(
    ("old", "new", "steps"),
    [
        pytest.param(domains(a="01", b="02", c="03"), domains(a="02", b="01", c="03"), 3, id="two swap names"),
        pytest.param(domains(a="01", b="02", c="03"), domains(a="02", b="03", c="01"), 4, id="three swap names"),
        pytest.param(domains(a="01", b="02"), domains(a="02"), 2, id="name of a removed domain"),
        pytest.param(domains(a="09", b="02"), domains(a="05", x="04", b="02"), 1, id="part keeps the name"),
        pytest.param(domains(a="09", b="20"), domains(b="20", x="02", y="0e", z="07"), 2, id="parts of any name"),
    ],
)
def test_content_counts_before_names(old, new, steps):
    inferred = infer(old, new)
    assert len(inferred) == steps
    change = changes.change(old.names, inferred).ordered(new.names)
    check_content(change, old, new)
    content_old, content_new = (dict(zip(d.names, d.content)) for d in (old, new))
    assert all(content_old[before] == content_new[name] for name, before in change.origin.items())
    # All content that is in both sets is recognised, and nothing counts as revised.
    assert set(content_old.values()) & set(content_new.values()) <= {content_new[name] for name in change.origin}
    assert change.revised == {}


def test_revised_domain_with_unchanged_text_is_a_warning(caplog):
    change = changes.change(("a", "b"), [changes.revise("a"), changes.rename("a", "c"), changes.add("a")])
    check_content(change, domains(a="01", b="02"), domains(c="01", b="02", a="07"))
    assert "c is marked as revised, but its text is unchanged" in caplog.text


def test_unaffected_domain_with_changed_text_is_an_error():
    old = domains(web="0a", pdfs="0f")
    with pytest.raises(UserError, match=r"the text of web changed .* add `revise: \[web\]` to the update file"):
        check_content(changes.change(old.names, []), old, domains(web="0b", pdfs="0f"))


def test_parts_that_do_not_add_up_to_the_whole_are_an_error():
    old = domains(web="0a", pdfs="0f")
    split = changes.change(old.names, [changes.partition("pdfs", "law", "art")])
    check_content(split, old, domains(web="0a", law="0e", art="01"))
    with pytest.raises(UserError, match=r"the texts of law, art do not add up to the text of pdfs; use `remove: "):
        check_content(split, old, domains(web="0a", law="0e", art="02"))

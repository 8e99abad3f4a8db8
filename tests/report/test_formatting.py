"""Numbers and lists of names as text."""

import re

from olmix_jax.report import formatting


def test_percent_of_a_share_below_one_is_never_100():
    expected = {0.9123: "91 %", 0.0123: "1.2 %", 0.9996: "99.9 %", 1.0: "100 %", 0.0: "0 %", 0.0996: "10 %"}
    assert [formatting.percent(share) for share in expected] == list(expected.values())


def test_quantity_has_a_unit():
    expected = {0: "0", 950: "950", 1234: "1.23k", 999_600: "1M", 5.3e12: "5.3T", 1.5: "1.5", None: "–"}
    assert [formatting.quantity(value) for value in expected] == list(expected.values())
    assert re.fullmatch(r"9,?999T", formatting.quantity(9.999e15))


def test_number_uses_a_minus_sign_and_a_dash():
    assert formatting.number(-0.01234) == "−0.0123"
    assert formatting.number(0.914, ".0%") == "91 %"
    assert formatting.number(None) == "–" == formatting.weight_percent(None)
    assert formatting.weight_percent(0.12345) == "12.35"


def test_first_names_counts_the_rest():
    assert formatting.first_names(["a", "b"]) == "a, b"
    assert formatting.first_names(list("abcd"), 2) == "a, b and 2 more"


def test_capitalised_keeps_other_letters():
    assert formatting.capitalised("the BPB") == "The BPB"


def test_capitalised_keeps_names_of_code():
    for text in ("propose.guard=0 makes no task worse", "warped_gp has no floor", "lr=1 is too large"):
        assert formatting.capitalised(text) == text
    assert formatting.capitalised("so. Then") == "So. Then"

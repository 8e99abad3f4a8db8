"""names.py: the form in which names are compared, and how errors show them."""

import unicodedata

import pytest

from olmix_jax.utils import names


@pytest.mark.parametrize("written", [unicodedata.normalize("NFD", "café"), " café", "ca\u200bfé", "\ufeffcafé\u00a0"])
def test_names_that_look_alike_are_the_same(written):
    assert names.normal(written) == "café"


def test_names_of_other_letters_stay_different_and_are_shown_apart():
    assert names.normal("\u0441ode") != "code"
    assert names.shown("\u0441ode") == "\u0441ode (\\u0441ode)" and names.shown("code") == "code"


def test_names_in_nested_values_become_normal():
    decomposed = unicodedata.normalize("NFD", "café")
    value = {decomposed: [decomposed, 1, None], 1: {"a": f" {decomposed}"}}
    assert names.with_normal_names(value) == {"café": ["café", 1, None], 1: {"a": "café"}}


def test_long_lists_are_cut():
    assert names.listed("abc", most=2) == "a, b and 1 more" and names.listed(["a"]) == "a"

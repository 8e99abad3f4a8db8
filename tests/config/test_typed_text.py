"""typed_text.py: lists and mappings in the forms in which people type them."""

import pytest

from olmix_jax.config import typed_text
from olmix_jax.utils.errors import UserError


@pytest.mark.parametrize(
    "text",
    ["t1,t2", "t1, t2", "[t1,t2]", '["t1","t2"]', "('t1','t2')", "('t1', 't2',)", " [ 't1' , t2 ] ", '"t1","t2"'],
)
def test_lists_are_read_in_all_forms(text):
    assert typed_text.read_list(text) == ("t1", "t2")


@pytest.mark.parametrize(
    "text, items",
    [
        ("", ()),
        ("[]", ()),
        ("t1", ("t1",)),
        ("('t1',)", ("t1",)),
        ('["a,b"]', ("a,b",)),
        ("mmlu:rc::olmes,it's", ("mmlu:rc::olmes", "it's")),
        ("1.10,2", ("1.10", "2")),
        ("a[0],b", ("a[0]", "b")),
        ('["caf\\u00e9"]', ("café",)),
    ],
)
def test_items_keep_their_text(text, items):
    assert typed_text.read_list(text) == items


@pytest.mark.parametrize(
    "text", ['{"t1": 1, "t2": .5}', "{t1:1,t2:0.5}", "{'t1': 1, 't2': 0.5,}", "t1=1,t2=0.5", "t1:1, t2:.5"]
)
def test_mappings_are_read_in_all_forms(text):
    assert typed_text.read_mapping(text, "") == {"t1": 1, "t2": 0.5}


def test_values_are_nested_and_the_last_colon_ends_a_name():
    text = "{stack-edu:*: [0, null], 'a,b': (None, .5), c: {web: 2}, d: [x, 'y z']}"
    want = {"stack-edu:*": [0, None], "a,b": [None, 0.5], "c": {"web": 2}, "d": ["x", "y z"]}
    assert typed_text.read_mapping(text, "") == want
    assert typed_text.read_mapping("arc:rc::olmes:1", "") == {"arc:rc::olmes": 1}


@pytest.mark.parametrize("text", ["{t1: 1", "t1", "{'t1: 1}", "[1, 2]"])
def test_other_text_is_no_mapping(text):
    with pytest.raises(ValueError):
        typed_text.read_mapping(text, "")


def test_repeated_key_is_an_error():
    with pytest.raises(UserError, match="propose.bounds: the key web appears twice"):
        typed_text.read_mapping("{web: 1, web: 2}", "propose.bounds")


def test_paths_are_no_mappings():
    assert typed_text.is_mapping("t1=1,t2:2") and typed_text.is_mapping("t1=1,t1=2")
    assert not any(typed_text.is_mapping(path) for path in ("weights.json", "runs/k=4/weights.json", "C:/a.json", ""))

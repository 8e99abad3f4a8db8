import json
import re
import unicodedata

import pytest

from olmix_jax import config
from olmix_jax.config import json_fields
from olmix_jax.utils.errors import UserError


def test_text_and_file_give_the_same_object(tmp_path):
    path = tmp_path / "bounds.json"
    path.write_text('{"web": [0, null]}')
    for spec in (str(path), '{"web": [0, null]}'):
        assert json_fields.read_mapping(spec, "propose.bounds") == {"web": [0, None]}


@pytest.mark.parametrize("spec", ["", "  "])
def test_empty_field_is_none(spec):
    assert json_fields.read_mapping(spec, "propose.bounds") is None


def test_missing_file_is_an_error_that_names_the_field():
    example = re.escape("""for example propose.bounds='{"web": [0, 0.5]}', or to the path of a file""")
    message = f"config field `propose.bounds`: absent: no such file; set it to a JSON object, {example}"
    with pytest.raises(UserError, match=message):
        json_fields.read_mapping("absent", "propose.bounds")


def test_malformed_json_is_an_error_that_names_the_field(tmp_path):
    with pytest.raises(UserError, match="config field `propose.anchor`: not valid JSON"):
        json_fields.read_mapping("{web: 1}", "propose.anchor")
    broken = tmp_path / "anchor.json"
    broken.write_text("{")
    with pytest.raises(UserError, match="config field `propose.anchor`: .*anchor.json: not valid JSON") as error:
        json_fields.read_mapping(str(broken), "propose.anchor")
    assert "stage" not in str(error.value), "no stage wrote this file"


def test_repeated_key_is_an_error(tmp_path):
    """JSON would silently keep the last value."""
    twice = '{"web": [0, 0.1], "math": 0.2, "web": [0, 0.9]}'
    (tmp_path / "bounds.json").write_text(twice)
    for spec in (twice, str(tmp_path / "bounds.json")):
        with pytest.raises(UserError, match="the key web appears twice"):
            json_fields.read_mapping(spec, "propose.bounds")


def test_anchor_can_be_the_file_of_a_proposal(tmp_path):
    path = tmp_path / "proposal.json"
    path.write_text(json.dumps({"kl": 0.3, "weights": {"web": 0.5, "code": 0.5}}))
    for anchor in (str(path), '{"web": 0.5, "code": 0.5}'):
        options = json_fields.propose_options(config.from_dict({"propose": {"anchor": anchor}}))
        assert options["anchor"] == {"web": 0.5, "code": 0.5}


def test_families_are_read_from_the_config():
    families = {"mine": ["task_a", "qa_*"]}
    assert json_fields.families(config.from_dict({"fit": {"families": json.dumps(families)}})) == families
    assert json_fields.families(config.from_dict({})) is None


@pytest.mark.parametrize("text", ["{t1: 1, t2: 0.5}", "{'t1': 1, 't2': 0.5}", "t1=1,t2=0.5", '{"t1": 1, "t2": 0.5}'])
def test_mappings_may_be_typed_in_other_forms(text):
    read = config.from_dict({"propose": {"task_weights": text}})
    assert json.loads(read.propose.task_weights) == {"t1": 1, "t2": 0.5}
    assert json_fields.propose_options(read)["task_weights"] == {"t1": 1, "t2": 0.5}


@pytest.mark.parametrize("text", ["{t1: 1", "{t1}", "{'t1: 1}"])
def test_text_that_is_no_mapping_is_an_error_with_an_example(text):
    with pytest.raises(
        UserError, match="`propose.task_weights`: not valid JSON: .*, for example propose.task_weights="
    ):
        config.from_dict({"propose": {"task_weights": text}})


def test_names_are_compared_in_their_normal_form():
    decomposed = unicodedata.normalize("NFD", "café")
    assert json_fields.read_mapping(json.dumps({decomposed: [0, 1]}), "propose.bounds") == {"café": [0, 1]}

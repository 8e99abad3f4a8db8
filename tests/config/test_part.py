"""part.py: parsing of `swarm.part`, and the number of parts in a workdir."""

import pytest

from olmix_jax.config import part
from olmix_jax.utils.errors import UserError


def test_part_is_parsed_and_named():
    third = part.parse("3/16")
    assert third == part.Part(3, 16) and str(third) == "3/16" and third.name == "0003-of-0016"
    assert part.parse("") is None


@pytest.mark.parametrize("text", ["3", "0/4", "5/4", "a/4", "1/2/3", "-1/4"])
def test_invalid_part_is_an_error(text):
    with pytest.raises(UserError, match="`swarm.part` must look like 3/16"):
        part.parse(text)


def test_number_of_parts_is_read_from_results_and_checkpoints(tmp_path):
    assert part.count_parts(tmp_path) is None
    (tmp_path / "0002-of-0003").mkdir()
    assert part.count_parts(tmp_path) == 3
    path = part.result_path(tmp_path, part.Part(1, 3))
    path.parent.mkdir(parents=True)
    path.touch()
    assert part.count_parts(tmp_path) == 3
    part.result_path(tmp_path, part.Part(1, 4)).touch()
    with pytest.raises(UserError, match="divided into 3 and into 4 parts; delete the files of one"):
        part.count_parts(tmp_path)

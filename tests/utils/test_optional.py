"""Optional outputs that fail."""

import pytest

from olmix_jax.utils.errors import UserError
from olmix_jax.utils.optional import LeftOut


def test_failed_output_is_named_with_its_reason_and_the_next_one_runs(caplog):
    left_out, done = LeftOut(), []
    with left_out.unless_fails("propose", "next runs"):
        raise UserError("lower swarm.min_distance")
    with left_out.unless_fails("propose", "error bars"):
        raise ValueError("bad\nshape")
    with left_out.unless_fails("propose", "files for trainers"):
        done.append("files")
    assert done == ["files"]
    assert left_out.reasons[0] == "next runs are left out: lower swarm.min_distance"
    assert left_out.reasons[1].startswith("error bars are left out: ValueError in test_optional.py:")
    assert left_out.reasons[1].endswith(": bad shape")
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2


def test_interrupt_is_not_caught():
    with pytest.raises(KeyboardInterrupt), LeftOut().unless_fails("propose", "next runs"):
        raise KeyboardInterrupt

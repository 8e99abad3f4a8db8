"""proxy/checkpoint.py: whole checkpoints come back, torn ones do not."""

import shutil
import types

import grain
import jax.numpy as jnp
import numpy as np
import pytest

from olmix_jax.proxy import checkpoint
from olmix_jax.proxy.checkpoint import Checkpoints
from olmix_jax.utils.errors import UserError


def positions():
    return iter(grain.MapDataset.range(100).to_iter_dataset())


@pytest.fixture
def saved(tmp_path):
    """Checkpoints at steps 4 and 8: arrays full of the step, data read that far."""
    data, checkpoints = positions(), Checkpoints(tmp_path)
    for step in (4, 8):
        while data.get_state()["next_index"] < step:
            next(data)
        checkpoints.save(step, {"w": jnp.arange(1000.0) + step, "loss": np.full(3, step, np.float32)}, data)
    checkpoints.close()
    return tmp_path


def restore(folder):
    data = positions()
    found = Checkpoints(folder).restore({"w": jnp.zeros(1000), "loss": np.zeros(3, np.float32)}, data)
    return found, next(data)


def test_arrays_and_data_position_come_back(saved):
    (step, arrays), position = restore(saved)
    assert step == 8 and position == 8
    np.testing.assert_array_equal(arrays["w"], np.arange(1000.0) + 8)
    np.testing.assert_array_equal(arrays["loss"], np.full(3, 8))


@pytest.mark.parametrize("damage", ["truncate", "flip", "position", "remove", "empty"])
def test_a_torn_checkpoint_falls_back_to_the_one_before(saved, caplog, damage):
    file = saved / "8" / checkpoint.ITEM / checkpoint.FILE
    content = file.read_bytes()
    middle = len(content) // 2
    if damage == "truncate":
        file.write_bytes(content[:middle])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "remove":
        shutil.rmtree(file.parent)
    else:
        at = middle if damage == "flip" else content.index(b"next_index")
        file.write_bytes(content[:at] + bytes(b ^ 255 for b in content[at : at + 8]) + content[at + 8 :])
    with caplog.at_level("WARNING", logger="olmix_jax"):
        (step, arrays), position = restore(saved)
    assert "checkpoint 8 is damaged" in caplog.text
    assert step == 4 and position == 4
    np.testing.assert_array_equal(arrays["w"], np.arange(1000.0) + 4)


def test_no_whole_checkpoint_means_from_the_beginning(saved, caplog):
    for step in ("4", "8"):
        shutil.rmtree(saved / step / checkpoint.ITEM)
    with caplog.at_level("WARNING", logger="olmix_jax"):
        found, position = restore(saved)
    assert found is None and position == 0 and "from the beginning" in caplog.text


@pytest.mark.parametrize("w", [np.zeros(1000), np.zeros(999, np.float32)])
def test_arrays_of_another_shape_or_type_are_not_taken_for_it(saved, w):
    with pytest.raises(checkpoint.Damaged, match=r"w is float32 \(1000,\), not"):
        Checkpoints(saved).read(8, {"w": w, "loss": np.zeros(3, np.float32)}, positions())


def test_a_checkpoint_of_another_swarm_is_refused(saved):
    with pytest.raises(UserError, match="holds checkpoints of another swarm; delete that folder"):
        Checkpoints(saved, of="another").restore({"w": jnp.zeros(1000), "loss": np.zeros(3, np.float32)}, positions())


@pytest.mark.parametrize("error", [MemoryError(), PermissionError(13, "Denied"), OSError(24, "Too many open files")])
def test_what_the_machine_lacks_is_no_damage(saved, monkeypatch, error):
    def load(*_, **__):
        raise error

    with (
        monkeypatch.context() as m,
        pytest.raises(UserError, match="checkpoint 8 in .* cannot be read now .*mend that"),
    ):
        m.setattr(np, "load", load)
        restore(saved)
    assert restore(saved)[0][0] == 8


def test_an_unfinished_checkpoint_is_not_there(saved):
    shutil.copytree(saved / "8", saved / "12.orbax-checkpoint-tmp-1")
    (step, _), _ = restore(saved)
    assert step == 8


def test_a_disk_without_room_is_found_before_anything_is_written(saved, monkeypatch, capfd):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: types.SimpleNamespace(free=3999))
    checkpoints = Checkpoints(saved)
    with pytest.raises(UserError, match="checkpoint 12 cannot be written in .*No space left.*and 0.0 free; free space"):
        checkpoints.save(12, {"w": np.zeros(1000, np.float32)}, positions())
    assert sorted(path.name for path in saved.iterdir()) == ["4", "8"] and capfd.readouterr().err == ""
    monkeypatch.setattr(shutil, "disk_usage", lambda place: types.SimpleNamespace(free=4000))
    checkpoints.save(12, {"w": np.zeros(1000, np.float32)}, positions())
    assert sorted(path.name for path in saved.iterdir()) == ["12", "8"]

"""proxy/checkpoint.py: intact checkpoints are restored, damaged ones are moved aside."""

import shutil
import threading
import types

import jax.numpy as jnp
import numpy as np
import pytest

from olmix_jax.proxy import checkpoint
from olmix_jax.proxy.checkpoint import Checkpoints
from olmix_jax.utils.errors import UserError


@pytest.fixture
def saved(tmp_path):
    """A folder with checkpoints at steps 4 and 8. Arrays depend on the step."""
    checkpoints = Checkpoints(tmp_path)
    for step in (4, 8):
        checkpoints.save(step, {"w": jnp.arange(1000.0) + step, "loss": np.full(3, step, np.float32)})
    checkpoints.close()
    return tmp_path


def restore(folder):
    """Return the restored checkpoint."""
    return Checkpoints(folder).restore({"w": jnp.zeros(1000), "loss": np.zeros(3, np.float32)})


def test_restore_returns_newest_step_and_arrays(saved):
    step, arrays = restore(saved)
    assert step == 8
    np.testing.assert_array_equal(arrays["w"], np.arange(1000.0) + 8)
    np.testing.assert_array_equal(arrays["loss"], np.full(3, 8))


@pytest.mark.parametrize("damage", ["truncate", "flip", "metadata", "renamed", "remove", "empty"])
def test_damaged_checkpoint_falls_back_to_the_previous_one(saved, caplog, damage):
    file = saved / "8" / checkpoint.ITEM / checkpoint.FILE
    content = file.read_bytes()
    middle = len(content) // 2
    if damage == "truncate":
        file.write_bytes(content[:middle])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "remove":
        shutil.rmtree(file.parent)
    elif damage == "renamed":
        shutil.copy(saved / "4" / checkpoint.ITEM / checkpoint.FILE, file)
    else:
        at = middle if damage == "flip" else content.index(b'"step"')
        file.write_bytes(content[:at] + bytes(b ^ 255 for b in content[at : at + 8]) + content[at + 8 :])
    with caplog.at_level("WARNING", logger="olmix_jax"):
        step, arrays = restore(saved)
    assert "checkpoint 8 is damaged" in caplog.text
    assert step == 4
    np.testing.assert_array_equal(arrays["w"], np.arange(1000.0) + 4)


def test_run_starts_from_the_beginning_if_all_checkpoints_are_damaged(saved, caplog):
    for step in ("4", "8"):
        shutil.rmtree(saved / step / checkpoint.ITEM)
    with caplog.at_level("WARNING", logger="olmix_jax"):
        restored = restore(saved)
    assert restored is None and "from the beginning" in caplog.text


@pytest.mark.parametrize("w", [np.zeros(1000), np.zeros(999, np.float32)])
def test_arrays_of_another_shape_or_type_count_as_damage(saved, w):
    with pytest.raises(checkpoint.DamagedCheckpoint, match=r"w is float32 \(1000,\), not"):
        Checkpoints(saved).read(8, {"w": w, "loss": np.zeros(3, np.float32)})


def test_checkpoint_of_another_swarm_is_refused(saved):
    with pytest.raises(UserError, match=r"holds checkpoints of another swarm\. Delete that folder"):
        Checkpoints(saved, "another").restore({"w": jnp.zeros(1000), "loss": np.zeros(3, np.float32)})


@pytest.mark.parametrize("error", [MemoryError(), PermissionError(13, "Denied"), OSError(24, "Too many open files")])
def test_checkpoint_is_kept_if_the_machine_cannot_read_it_now(saved, monkeypatch, error):
    def load(*_, **__):
        raise error

    with (
        monkeypatch.context() as m,
        pytest.raises(UserError, match=r"cannot read checkpoint 8 in .* now .*\. Fix the cause"),
    ):
        m.setattr(np, "load", load)
        restore(saved)
    assert restore(saved).step == 8


def test_unfinished_checkpoint_is_ignored(saved):
    shutil.copytree(saved / "8", saved / "12.orbax-checkpoint-tmp-1")
    assert restore(saved).step == 8


def test_full_disk_raises_before_anything_is_written(saved, monkeypatch, capfd):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=3999))
    checkpoints = Checkpoints(saved)
    with pytest.raises(UserError, match=r"cannot write checkpoint 12 .*No space left.* 0.0 MB free; free disk space"):
        checkpoints.save(12, {"w": np.zeros(1000, np.float32)})
        checkpoints.wait()
    assert sorted(path.name for path in saved.iterdir()) == ["4", "8"] and capfd.readouterr().err == ""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=4000))
    checkpoints.save(12, {"w": np.zeros(1000, np.float32)})
    checkpoints.close()
    assert sorted(path.name for path in saved.iterdir()) == ["12", "8"]


def test_checkpoint_is_written_while_training_continues(tmp_path, monkeypatch):
    begun, may_end = threading.Event(), threading.Event()

    def slow_savez(*arguments, savez=np.savez, **arrays):
        begun.set()
        assert may_end.wait(20)
        savez(*arguments, **arrays)

    monkeypatch.setattr(np, "savez", slow_savez)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(4, {"w": np.arange(3.0)})
    assert begun.wait(20) and checkpoints.busy and not (tmp_path / "4").exists()
    may_end.set()
    checkpoints.wait()
    assert not checkpoints.busy and checkpoints.write_seconds > 0
    np.testing.assert_array_equal(checkpoints.restore({"w": np.zeros(3)}).arrays["w"], np.arange(3.0))
    checkpoints.close()

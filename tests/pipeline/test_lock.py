"""The lock on a workdir: which runs may share it, and when it is released."""

import dataclasses
import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

import olmix_jax
from olmix_jax.config.schema import Config, Swarm
from olmix_jax.pipeline import lock
from olmix_jax.utils.errors import UserError

WHOLE = Config()


def part(text):
    return dataclasses.replace(WHOLE, swarm=Swarm(part=text))


def test_second_run_in_one_workdir_is_refused(tmp_path):
    with lock.locked(WHOLE, tmp_path):
        with pytest.raises(UserError, match=rf"in use by process {os.getpid()} on .* since .*another --workdir"):
            with lock.locked(WHOLE, tmp_path):
                pass
    with lock.locked(WHOLE, tmp_path):
        pass


def test_jobs_of_an_array_share_a_workdir_but_not_a_part(tmp_path):
    with lock.locked(part("1/2"), tmp_path), lock.locked(part("2/2"), tmp_path):
        with pytest.raises(UserError, match="in use by"), lock.locked(part("1/2"), tmp_path):
            pass
        with pytest.raises(UserError, match="in use by"), lock.locked(WHOLE, tmp_path):
            pass
    with lock.locked(WHOLE, tmp_path):
        with pytest.raises(UserError, match="in use by"), lock.locked(part("1/2"), tmp_path):
            pass


def test_lock_is_released_when_its_process_is_killed(tmp_path):
    code = (
        "import pathlib, sys, time\n"
        "from olmix_jax.config.schema import Config\n"
        "from olmix_jax.pipeline import lock\n"
        "with lock.locked(Config(), pathlib.Path(sys.argv[1])):\n"
        "    print('locked', flush=True)\n"
        "    time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "locked\n"
    with pytest.raises(UserError, match=f"process {holder.pid}"), lock.locked(WHOLE, tmp_path):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    with lock.locked(WHOLE, tmp_path):
        pass


def test_file_system_without_locks_gives_a_warning(tmp_path, monkeypatch, caplog):
    def unsupported(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    monkeypatch.setattr(lock.log, "propagate", True)
    with lock.locked(WHOLE, tmp_path):
        pass
    assert "cannot be locked" in caplog.text


def test_library_run_locks_the_workdir(tmp_path):
    with lock.locked(WHOLE, tmp_path), pytest.raises(UserError, match="in use by"):
        olmix_jax.run(WHOLE, tmp_path, ["prepare"])

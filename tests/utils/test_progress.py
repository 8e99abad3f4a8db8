"""Log files, lines of progress, and counts with their nouns."""

import sys

import pytest

from olmix_jax.utils import progress
from olmix_jax.utils.errors import UserError


@pytest.fixture(autouse=True)
def restored_log():
    """The log as it was before the test."""
    level, propagate, handlers = progress.log.level, progress.log.propagate, list(progress.log.handlers)
    yield
    for handler in progress.log.handlers:
        handler.close()
    progress.log.handlers[:], progress.log.propagate = handlers, propagate
    progress.log.setLevel(level)


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves: ``clock[0]`` is the time in seconds."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 members"), (1, "1 member"), (2, "2 members"), (1200, "1,200 members")]
)
def test_counted_chooses_singular_or_plural(number, text):
    assert progress.counted(number, "member") == text


@pytest.mark.parametrize(("process", "name"), [(0, "log.txt"), (3, "log-0003.txt")])
def test_log_lines_go_to_terminal_and_to_the_file_of_the_process(tmp_path, capsys, process, name):
    progress.start_log(tmp_path / "new", process)
    progress.log.info("%d domains", 8)
    assert capsys.readouterr().err == "8 domains\n"
    assert (tmp_path / "new" / name).read_text().endswith(" 8 domains\n")


def test_starting_the_log_twice_writes_every_line_once(tmp_path, capsys):
    progress.start_log(tmp_path)
    progress.start_log(tmp_path)
    progress.log.info("once")
    assert capsys.readouterr().err == "once\n"
    assert (tmp_path / "log.txt").read_text().count("once") == 1


def test_workdir_that_is_a_file_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--workdir=.*file is not writable: .*file is a file, not a folder; remove it"):
        progress.start_log(tmp_path / "file")


def test_log_file_is_dropped_after_a_failed_write(tmp_path, capsys, monkeypatch):
    progress.start_log(tmp_path)

    def full(*_):
        raise OSError("No space left on device")

    file = progress.log.handlers[-1]
    monkeypatch.setattr(file, "format", full)
    progress.log.info("first")
    progress.log.info("second")
    assert capsys.readouterr().err == "first\nsecond\n"
    assert file not in progress.log.handlers


def test_lines_before_the_log_starts_are_held(tmp_path, capsys):
    progress.hold_log()
    progress.log.info("early")
    assert capsys.readouterr().err == ""
    progress.start_log(tmp_path)
    progress.log.info("late")
    assert capsys.readouterr().err == "early\nlate\n"
    assert [line.split()[-1] for line in (tmp_path / "log.txt").read_text().splitlines()] == ["early", "late"]


def test_warnings_only_hides_information_and_restores_the_level(tmp_path, capsys):
    progress.start_log(None)
    with progress.warnings_only():
        progress.log.info("hidden")
        progress.log.warning("shown")
    progress.log.info("after")
    assert capsys.readouterr().err == "shown\nafter\n"


def test_progress_logs_rate_and_time_left_every_ten_seconds(capsys, clock):
    progress.start_log(None)
    with progress.Progress("train", 1000, "steps", done=200) as shown:
        clock[0] += 5
        shown.advance(100)
        assert capsys.readouterr().err == ""
        clock[0] += 15
        shown.advance(300, note="loss 2.1")
        assert capsys.readouterr().err == "train: 600 of 1,000 steps, 20 steps/s, 20 s left, loss 2.1\n"
        shown.advance(400)
    assert capsys.readouterr().err == "train: 1,000 steps in 20.0 s\n"


def test_progress_logs_no_summary_after_an_error(capsys):
    progress.start_log(None)
    with pytest.raises(ZeroDivisionError), progress.Progress("train", 10, "steps"):
        raise ZeroDivisionError
    assert capsys.readouterr().err == ""


def test_progress_shows_a_bar_on_a_terminal(capsys, monkeypatch):
    progress.start_log(None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress.Progress("train", 10, "steps") as shown:
        shown.advance(10, note="loss 2.1")
    assert "train: 100%" in capsys.readouterr().err


def test_tracked_yields_the_items_and_counts_them(capsys):
    progress.start_log(None)
    assert list(progress.tracked({"a": 1, "b": 2}.items(), "read", "domains")) == [("a", 1), ("b", 2)]
    assert "read: 2 domains in" in capsys.readouterr().err

"""Print the test files for ``make check``: the tests of changed modules, and a fixed quick set."""

import pathlib
import subprocess

ROOT = pathlib.Path(__file__).parents[1]
QUICK = ("tests/test_layers.py", "tests/test_docs.py", "tests/utils", "tests/swarm/test_table.py")
# Tests of whole runs take minutes: `make test` runs them.
LONG = ("tests/pipeline/test_runner.py", "tests/pipeline/test_processes.py", "tests/proxy/test_devices.py")


def changed() -> list[str]:
    """Return the files that differ from the last commit, and new files."""
    commands = (["git", "diff", "--name-only", "HEAD"], ["git", "ls-files", "--others", "--exclude-standard"])
    listed = [subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout for command in commands]
    return "".join(listed).split()


def tests_of(files: list[str]) -> list[str]:
    """Return the test files of changed modules (``tests/x/test_y.py`` for ``olmix_jax/x/y.py``), and changed tests."""
    tests = []
    for file in map(pathlib.PurePosixPath, files):
        if file.parts[0] == "olmix_jax" and file.suffix == ".py":
            tests.append(str(pathlib.PurePosixPath("tests", *file.parts[1:-1], f"test_{file.name}")))
        elif file.parts[0] == "tests" and file.name.startswith("test_"):
            tests.append(str(file))
    return [name for name in tests if name not in LONG and (ROOT / name).is_file()]


if __name__ == "__main__":
    print(*dict.fromkeys([*QUICK, *tests_of(changed())]))

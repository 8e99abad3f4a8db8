"""Print the test files for ``make check``: the tests of changed modules, and a fixed quick set."""

import pathlib
import subprocess

ROOT = pathlib.Path(__file__).parents[1]
QUICK = ("tests/test_layers.py", "tests/test_docs.py", "tests/utils", "tests/swarm/test_table.py")
# Tests of whole runs take minutes: `make test` runs them.
LONG = ("tests/pipeline/test_runner.py", "tests/pipeline/test_processes.py", "tests/proxy/test_devices.py")
# Modules whose tests have another name than tests/x/test_y.py for olmix_jax/x/y.py.
COVERED_BY = {
    "__init__.py": "tests/test_api.py",
    "config/olmix_proposer.py": "tests/config/test_olmix_yaml.py",
    "config/schema_decision.py": "tests/config/test_schema.py",
    "cli.py": "tests/pipeline/test_runner.py",
    "corpus/collect.py": "tests/corpus/test_repeated.py",
    "laws/cheap_result.py": "tests/laws/test_cheap_runs.py",
    "laws/cpu.py": "tests/laws/test_law.py",
    "laws/curves.py": "tests/laws/test_exposure.py",
    "laws/gp_learning.py": "tests/laws/test_exposure.py",
    "laws/gp_posterior.py": "tests/laws/test_warped_gp.py",
    "laws/inputs.py": "tests/laws/test_law.py",
    "laws/per_task.py": "tests/laws/test_warped_gp.py",
    "laws/regression.py": "tests/laws/test_log_linear.py",
    "laws/warped_kernel.py": "tests/laws/test_warped_gp.py",
    "pipeline/fit.py": "tests/update/test_decide.py",
    "pipeline/jobs.py": "tests/pipeline/test_runner.py",
    "pipeline/merge_stage.py": "tests/pipeline/test_merge.py",
    "pipeline/prepare.py": "tests/pipeline/test_runner.py",
    "pipeline/sample.py": "tests/pipeline/test_runner.py",
    "pipeline/stages.py": "tests/pipeline/test_stage.py",
    "pipeline/train.py": "tests/pipeline/test_runner.py",
    "pipeline/trunk_stage.py": "tests/pipeline/test_trunk.py",
    "pipeline/update.py": "tests/update/test_decide.py",
    "propose/covariances.py": "tests/propose/test_next_runs.py",
    "propose/guard_rounds.py": "tests/propose/test_guards.py",
    "propose/proposal_parts.py": "tests/propose/test_proposal.py",
    "solver/status.py": "tests/solver/test_solution.py",
    "swarm/mixtures.py": "tests/swarm/test_table.py",
    "utils/errors.py": "tests/solver/test_feasibility.py",
}


def changed() -> list[str]:
    """Return the files that differ from the main branch, or on it from the last commit, and new files."""
    branch = _git("rev-parse", "--abbrev-ref", "HEAD")
    base = ["HEAD"] if branch == ["main"] else _git("merge-base", "HEAD", "main") or ["HEAD"]
    return [*_git("diff", "--name-only", *base), *_git("ls-files", "--others", "--exclude-standard")]


def _git(*arguments: str) -> list[str]:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.split()


def test_file(module: str) -> str:
    """Return the test file of a module, such as ``laws/gp.py``."""
    path = pathlib.PurePosixPath(module)
    return COVERED_BY.get(module) or str(pathlib.PurePosixPath("tests", path.parent, f"test_{path.name}"))


def tests_of(files: list[str]) -> list[str]:
    """Return the test files of changed modules, and changed test files."""
    tests = []
    for file in map(pathlib.PurePosixPath, files):
        if file.parts[0] == "olmix_jax" and file.suffix == ".py":
            tests.append(test_file(str(file.relative_to("olmix_jax"))))
        elif file.parts[0] == "tests" and file.name.startswith("test_"):
            tests.append(str(file))
    return [name for name in tests if name not in LONG and (ROOT / name).is_file()]


if __name__ == "__main__":
    print(*dict.fromkeys([*QUICK, *tests_of(changed())]))

"""The structure of the package: modules import no later layer, and files and functions are small."""

import ast
import fnmatch
import functools
import pathlib
import subprocess
import sys

import pytest

from tests import affected

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "olmix_jax"
# A module imports only from its own layer and from those before it.
LAYERS = "utils swarm config corpus proxy laws solver propose update report pipeline cli".split()
# These work on any swarm's table.
DECIDING = ("laws", "solver", "propose", "update")
FILES = sorted(PACKAGE.rglob("*.py"))
LONGEST_FILE, LONGEST_FUNCTION = 300, 60
# Heavy libraries, and the only files that import them. Fitting and proposing load none of them.
HEAVY = {"flax": ["proxy/model.py"], "orbax": ["proxy/checkpoint.py"], "grain": ["proxy/*"]}
# Parts of JAX that change without notice, and the only files that use them: in functions, with a fallback or an error
# that says which version to install.
UNSTABLE_JAX = {
    "jax._src": ["proxy/attention_kernels.py", "proxy/coordination.py"],
    "jax.experimental": ["proxy/aot.py", "proxy/attention_kernels.py"],
    "jax.extend": [],
    "jax.interpreters": [],
}
HEAVY |= {"ml_collections": ["cli.py", "config/flags.py"], "yaml": ["config/yaml_files.py"]}


@functools.cache
def parsed(path: pathlib.Path) -> list[ast.AST]:
    """All nodes of a file."""
    return list(ast.walk(ast.parse(path.read_text())))


def imported(path: pathlib.Path) -> list[str]:
    """Return the modules that a file imports, at the top or in functions."""
    names = []
    for node in parsed(path):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            raise AssertionError(f"{path}: use absolute imports")
        elif isinstance(node, ast.ImportFrom) and node.module == "olmix_jax":
            names += [f"olmix_jax.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
    return names


def layer_of(path: pathlib.Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def wrong_imports(layer: str, modules: list[str]) -> list[str]:
    """Return imports from later layers, or from no layer."""
    inside = [module.split(".")[1] for module in modules if module.startswith("olmix_jax.")]
    return [name for name in inside if name not in LAYERS[: LAYERS.index(layer) + 1]]


@pytest.mark.parametrize("path", [p for p in FILES if p.parent != PACKAGE or p.name == "cli.py"], ids=str)
def test_modules_import_no_later_layer(path):
    assert wrong_imports(layer_of(path), imported(path)) == []


def test_import_from_a_later_layer_is_detected():
    assert wrong_imports("solver", ["olmix_jax.propose.blocks", "olmix_jax.laws", "jax"]) == ["propose"]


def test_the_package_has_at_most_thirteen_entries():
    entries = [p.name for p in PACKAGE.iterdir() if p.name not in ("__pycache__", "py.typed")]
    assert sorted(entries) == sorted(["__init__.py", "cli.py", *LAYERS[:-1]])


def test_heavy_libraries_are_imported_only_where_allowed():
    for library, allowed in HEAVY.items():
        files = [str(p.relative_to(PACKAGE)) for p in FILES if library in {m.split(".")[0] for m in imported(p)}]
        assert files and all(any(fnmatch.fnmatch(file, pattern) for pattern in allowed) for file in files), library


@pytest.mark.parametrize("name", UNSTABLE_JAX)
def test_unstable_parts_of_jax_are_used_only_where_allowed(name):
    scripts = [p for folder in ("benchmarks", "experiments", "configs") for p in (ROOT / folder).rglob("*.py")]
    using = [path for path in (*FILES, *scripts, ROOT / "run.py") if name in path.read_text()]
    assert using == [PACKAGE / file for file in UNSTABLE_JAX[name]]
    for path in using:
        at_top = [n for n in ast.parse(path.read_text()).body if isinstance(n, (ast.Import, ast.ImportFrom))]
        assert not [n for n in at_top if name in ast.unparse(n)], path


def test_importing_the_package_loads_no_slow_library():
    program = "import sys, olmix_jax; print(*sorted({'jax', 'scipy.stats', 'scipy.optimize'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_fit_and_proposal_load_no_training_library(tmp_path):
    """The public functions that fit and propose load no library for training or configs."""
    program = f"""
import sys
import numpy as np
import olmix_jax
draw = np.random.default_rng(0)
ratios_KM = draw.dirichlet(np.ones(3), 12)
runs, bpb_KN = tuple(map(str, range(12))), ratios_KM @ np.ones((3, 1))
swarm = olmix_jax.SwarmTable(runs, ("a", "b", "c"), ("t",), ratios_KM, bpb_KN, np.full(3, 1 / 3), None, ())
fitted = olmix_jax.fit_law(swarm, law="log_linear", samples=0, starts=2)
olmix_jax.propose_mixture(fitted, swarm, kl_weight=0.1, explore=False)
print(*sorted(set(sys.modules) & {set(HEAVY)!r}))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


@pytest.mark.parametrize("path", FILES, ids=str)
def test_files_and_functions_are_small(path):
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST_FILE
    for node in parsed(path):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno - node.lineno + 1 <= LONGEST_FUNCTION, node.name


@pytest.mark.parametrize("path", [p for p in FILES if p.name != "__init__.py"], ids=str)
def test_every_module_has_a_test_file(path):
    assert (ROOT / affected.test_file(str(path.relative_to(PACKAGE)))).is_file()

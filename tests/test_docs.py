"""README and docs/ refer only to tests, files, settings and sections that exist."""

import ast
import pathlib
import re

import pytest

from olmix_jax import config

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SOURCES = [p for part in ("olmix_jax", "tests", "configs", "benchmarks") for p in (ROOT / part).rglob("*.py")]
SUFFIXES = ("py", "json", "jsonl", "csv", "npz", "npy", "html", "md", "txt", "bin")


def pitfalls() -> dict[int, str]:
    """Return {number: row} of the table in docs/pitfalls.md."""
    rows = re.findall(r"^\| (\d+) \|(.*)\|$", (ROOT / "docs/pitfalls.md").read_text(), re.MULTILINE)
    assert len(rows) == len({n for n, _ in rows})
    return {int(n): row for n, row in rows}


def named_tests(text: str) -> list[tuple[str, str]]:
    return re.findall(r"(tests/[\w/]+\.py)::(\w+)", text)


def functions(path: pathlib.Path) -> set[str]:
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("number", range(1, 25))
def test_every_pitfall_names_a_test(number):
    tests = named_tests(pitfalls()[number])
    assert tests, f"row {number} of docs/pitfalls.md names no test"


def test_pitfalls_has_24_rows():
    assert sorted(pitfalls()) == list(range(1, 25))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_named_tests_exist(page):
    for path, name in named_tests(page.read_text()):
        assert (ROOT / path).is_file() and name in functions(ROOT / path), f"{page.name}: no {path}::{name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_relative_links_point_to_files(page):
    text = page.read_text()
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    for link in links:
        if not re.match(r"[a-z]+:|#", link):
            assert (page.parent / link.partition("#")[0]).exists(), f"{page.name}: no {link}"


def fields_named(text: str) -> set[str]:
    """Return the settings in a text: `section.field`, with or without a value, and --config.section.field=."""
    sections = {name.partition(".")[0] for name in config.field_names() if "." in name}
    named = re.findall(r"`([a-z]+\.\w+)(?:=[^`]*)?`", text)
    named = {n for n in named if n.split(".")[0] in sections and n.split(".")[1] not in SUFFIXES}
    return named | set(re.findall(r"--config\.([a-z]+(?:\.\w+)?)=", text))


def test_settings_in_a_text_are_recognised():
    text = (
        "`train.steps` `train.lr=0.1` `swarm.py` `jax.jit` --config.swarm.siz=3 --config.‹section›.‹field›=1 `fit.json`"
    )
    assert fields_named(text) == {"train.steps", "train.lr", "swarm.siz"}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_named_settings_exist(page):
    assert sorted(fields_named(page.read_text()) - set(config.field_names())) == []


def test_cited_sections_exist():
    headings = set(re.findall(r"^## §(\d)", (ROOT / "docs/method.md").read_text(), re.MULTILINE))
    assert headings == set("123456")
    for path in SOURCES:
        assert set(re.findall(r"METHOD §(\d)", path.read_text())) <= headings, path

"""The built-in corpus assigns every file of an installation to at most one domain."""

import collections

import pytest

from olmix_jax.corpus import builtin
from olmix_jax.corpus.readers import Document
from tests.corpus.texts import prose, texts_of


@pytest.fixture
def installation(tmp_path) -> builtin.Installation:
    """A small installation with files of every domain, and files of every kind that is left out."""
    topics = {
        "a": f"Title A\n*******\n\n{prose(3)}\n\n{prose(19)}\n\nSub\n===\n\n{prose(4)}\n",
        "b": f"B\n***\n\n{prose(3)}\n\n{prose(5)}",
    }
    files = {
        "lib/one.py": f'"""Module docstring of the standard library, long enough."""\n# {prose(1)}\n',
        "lib/test/test_one.py": f"# {prose(2)}\n",
        "lib/data.py": f"X = '{'a' * 2000}'\n",
        "lib/latin.py": "# größer\n".encode("latin-1") * 20,
        "lib/pydoc_data/topics.py": f"topics = {topics!r}",
        "lib/site-packages/skipped.py": prose(6),
        "pkg/numpy/core.py": f"# {prose(7)}\n",
        "pkg/numpy/tests/test_core.py": f"# {prose(8)}\n",
        "pkg/numpy/core.pyi": f"# {prose(9)}\n",
        "pkg/numpy/core.h": f"// {prose(10)}\n",
        "pkg/other/mod.py": f'"""{prose(11)}"""\ndef f():\n    r"""{prose(12)}"""\n    return "\\d"\n',
        "pkg/other/broken.py": f"def ({prose(13)}",
        "pkg/other/_vendor/copy.py": f'"""{prose(14)}"""',
        "pkg/other/README.md": prose(15),
        "pkg/other-1.dist-info/METADATA": f"Name: other\nVersion: 1\n\n{prose(16)}",
        "pkg/other-1.dist-info/licenses/LICENSE": prose(17),
        "inc/Python.h": f"/* {prose(18)} */\n",
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return builtin.Installation(tmp_path / "lib", (tmp_path / "pkg",), tmp_path / "inc")


def test_every_file_is_in_the_right_domain(installation):
    domains = builtin.builtin_domains(0, installation)
    assert tuple(domains) == builtin.NAMES
    assert {name: sorted(d.source for d in documents) for name, documents in domains.items()} == {
        "code:library": ["one.py"],
        "code:tests": ["numpy/tests/test_core.py"],
        "code:numerics": ["numpy/core.py"],
        "code:stubs": ["numpy/core.pyi"],
        "code:headers": ["Python.h", "numpy/core.h"],
        "text:docstrings": ["other/mod.py"],
        "text:reference": [f"pydoc_data/topics.py:{t}" for t in ("a:1", "a:2", "b:1")],
        "text:packages": ["other-1.dist-info/METADATA", "other-1.dist-info/licenses/LICENSE", "other/README.md"],
    }


def test_docstrings_and_descriptions_are_extracted(installation):
    domains = builtin.builtin_domains(0, installation)
    assert texts_of(domains["text:docstrings"]) == [f"{prose(11)}\n\n{prose(12)}"]
    assert prose(16) in texts_of(domains["text:packages"])


def test_paragraph_of_two_topics_is_kept_once(installation):
    domains = builtin.builtin_domains(0, installation)
    assert sum(prose(3) in text for text in texts_of(domains["text:reference"])) == 1


def test_files_left_out_are_logged_with_the_reason(installation, caplog):
    caplog.set_level("INFO", logger="olmix_jax")
    builtin.builtin_domains(0, installation)
    assert "1 data rather than code, 1 not UTF-8, 1 not parsed" in caplog.text


@pytest.fixture(scope="module")
def real() -> dict[str, list[Document]]:
    """The corpus of the Python that runs the tests, thinned to 1.5 MB."""
    return builtin.builtin_domains(1_500_000)


def test_real_installation_has_text_in_every_domain(real):
    sizes = {name: sum(len(d.text.encode()) for d in documents) for name, documents in real.items()}
    assert sum(sizes.values()) == pytest.approx(1_500_000, rel=0.4)  # files are not cut
    assert min(sizes.values()) > 0 and max(sizes.values()) > 5 * min(sizes.values())


def test_no_file_of_the_real_installation_is_in_two_domains(real):
    # A module and a package may have the same name, so the text is compared as well.
    counts = collections.Counter((d.source, d.text) for documents in real.values() for d in documents)
    assert max(counts.values()) == 1


def test_real_installation_gives_the_same_corpus_twice(real):
    assert builtin.builtin_domains(1_500_000) == real

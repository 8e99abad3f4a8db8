"""The corpus of source distributions: archives, the index, domains, held-out documents, tasks and stages."""

import contextlib
import dataclasses
import gzip
import hashlib
import http.server
import io
import itertools
import json
import pathlib
import subprocess
import sys
import tarfile
import threading

import numpy as np
import pytest

from configs import packages as packages_config
from experiments.corpus import __main__ as program
from experiments.corpus import archives, domains, fetch, heldout, index, packages, page, signal_to_noise, stages, tasks
from experiments.corpus.packages import Package
from olmix_jax.corpus import olmes
from olmix_jax.corpus.domain_folder import text_files
from olmix_jax.swarm.task_groups import MMLU
from olmix_jax.utils.errors import UserError
from tests.corpus.texts import prose

ROOT = pathlib.Path(__file__).parents[2]
TABLE = packages.read_table()


def archive(*members) -> bytes:
    """Return a .tar.gz with files (name, content), or with the given members."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(f"one-1.0/{member[0]}")
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return gzip.compress(target.getvalue(), mtime=0)


def package(content: bytes, **changes) -> Package:
    values = {
        "name": "one",
        "file": "one-1.0.tar.gz",
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": len(content),
        "unpacked": 11,
        "licence": "MIT",
        "subject": "web",
    }
    return Package(**values | changes)


def member(kind: bytes, name: str = "one-1.0/x", target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


GOOD = archive(("a.py", b"x = 1\n"), ("docs/b.rst", b"text\n"))


def read(folder, content, **changes):
    path = folder / "one-1.0.tar.gz"
    path.write_bytes(content)
    return list(archives.read(path, package(content, **changes)))


def test_files_are_read_in_order_below_their_folder(tmp_path):
    assert [(str(f.path), f.content) for f in read(tmp_path, GOOD)] == [("a.py", b"x = 1\n"), ("docs/b.rst", b"text\n")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (archive(member(tarfile.SYMTYPE, target="/etc/passwd")), "has the link 'one-1.0/x' to '/etc/passwd'"),
        (archive(member(tarfile.LNKTYPE, target="one-1.0/y")), "has the link"),
        (archive(member(tarfile.REGTYPE, "../x")), r"has the path '../x', which leaves its folder"),
        (archive(member(tarfile.REGTYPE, "one-1.0/a/../../../x")), "leaves its folder"),
        (archive(member(tarfile.REGTYPE, "/tmp/x")), "leaves its folder"),
        (archive(member(tarfile.FIFOTYPE)), "neither a file nor a folder"),
        (archive(member(tarfile.CHRTYPE)), "neither a file nor a folder"),
        (archive(("a.py", bytes(12))), "unpacks to more than the 11 bytes that are stated"),
        (archive(*[(f"{n}.py", bytes(3)) for n in range(4)]), "unpacks to more"),
        (archive(("a.py", bytes(5))), "is damaged .it has 5 bytes of files, not 11"),
        (archive(("a" * (20 << 20), bytes(5))), "unpacks to more"),
        (GOOD[: len(GOOD) // 2], "one-1.0.tar.gz is damaged .*remove it, and run `make corpus` again"),
        (gzip.compress(b"no archive" * 200, mtime=0), "is damaged"),
        (b"no archive", "is damaged"),
    ],
    ids=itertools.count(),
)
def test_bad_archives_are_refused_with_the_name_of_the_package(tmp_path, content, message):
    with pytest.raises(UserError, match=f"one: .*{message}"):
        read(tmp_path, content)


@pytest.mark.parametrize(
    "content", [GOOD, archive(*[(f"{n}/{'x' * 90}.py", bytes([n])) for n in range(11)])], ids=["two", "eleven"]
)
def test_every_cut_and_every_change_of_an_archive_is_found(tmp_path, content):
    files = read(tmp_path, content)
    assert sum(len(file.content) for file in files) == 11
    for place in range(12, len(content)):  # after the header of gzip
        with pytest.raises(UserError, match="one: .*one-1.0.tar.gz"):
            read(tmp_path, content[:place])
        try:
            # A few bits between the parts of the format mean nothing.
            assert read(tmp_path, content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]) == files
        except UserError as e:
            assert "one-1.0.tar.gz" in str(e)


def test_an_archive_that_cannot_be_read_is_no_traceback(tmp_path):
    with pytest.raises(UserError, match="one: .*one.tar.gz cannot be read: "):
        list(archives.read(tmp_path / "one.tar.gz", package(GOOD)))


def test_a_file_of_enormous_declared_size_is_not_read(tmp_path):
    info = member(tarfile.REGTYPE)
    info.size = 1 << 50
    with pytest.raises(UserError, match="unpacks to more"):
        read(tmp_path, gzip.compress(info.tobuf()))


class Index:
    """A package index on loopback. ``files`` are its archives; ``kind`` is the type of its pages."""

    def __init__(self):
        self.files, self.kind, self.requests, self.login, self.moved = {}, "json", [], "", ""

    def answer(self, handler):
        self.requests.append(handler.path)
        name = handler.path.rstrip("/").rpartition("/")[2]
        if self.login and handler.headers.get("Authorization") != self.login:
            handler.send_error(401)
        elif handler.path.startswith("/simple/") and any(f.startswith(f"{name}-") for f in self.files):
            links = {file: f"../../files/{file}#sha256=0" for file in self.files if file.startswith(f"{name}-")}
            if self.kind == "json":
                page = json.dumps({"files": [{"filename": f, "url": url} for f, url in links.items()]})
            else:
                page = "".join(f'<a href="{url}">{f}</a>\n' for f, url in links.items())
            self.send(
                handler, page.encode(), {"json": "application/vnd.pypi.simple.v1+json"}.get(self.kind, "text/html")
            )
        elif name in self.files and self.moved:
            handler.send_response(302)
            handler.send_header("Location", self.moved)
            handler.end_headers()
        elif name in self.files:
            self.send(handler, self.files[name], "application/gzip")
        else:
            handler.send_error(404)

    @staticmethod
    def send(handler, content, kind):
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        with contextlib.suppress(ConnectionError):  # the other side may stop reading
            handler.wfile.write(content)


@pytest.fixture(autouse=True)
def no_settings_are_remembered():
    index._settings.cache_clear()
    yield
    index._settings.cache_clear()


def use(monkeypatch, url):
    """Let pip be set to use an index."""
    monkeypatch.setenv("PIP_INDEX_URL", url)
    index._settings.cache_clear()


@pytest.fixture
def served(monkeypatch):
    result = Index()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            result.answer(self)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        result.url = f"http://127.0.0.1:{server.server_port}/simple"
        use(monkeypatch, result.url)
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "file:///nowhere/simple")
        try:
            yield result
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("kind", ["json", "html"])
def test_archives_are_fetched_once(tmp_path, served, kind):
    served.kind, served.files = kind, {"one-1.0.tar.gz": GOOD, "one-0.9.tar.gz": b"old"}
    for _ in range(2):
        fetch.fetch([package(GOOD)], tmp_path / "archives")
    assert (tmp_path / "archives/one-1.0.tar.gz").read_bytes() == GOOD
    assert served.requests == ["/simple/one/", "/files/one-1.0.tar.gz"]


def test_a_login_in_the_address_is_sent(tmp_path, served, monkeypatch):
    served.login, served.files = "Basic bWU6cEBzcw==", {"one-1.0.tar.gz": GOOD}
    use(monkeypatch, served.url.replace("://", "://me:p%40ss@"))
    fetch.fetch([package(GOOD)], tmp_path)
    use(monkeypatch, served.url)
    with pytest.raises(UserError, match="one: the package index cannot be read .*401"):
        fetch.fetch([package(GOOD, file="one-2.0.tar.gz")], tmp_path)


def test_another_archive_than_the_pinned_one_is_not_kept(tmp_path, served):
    served.files = {"one-1.0.tar.gz": GOOD[:-1] + b"?"}
    with pytest.raises(UserError, match=r"one: one-1.0.tar.gz .* has \d+ bytes and SHA-256 \w{64}, not the pinned"):
        fetch.fetch([package(GOOD)], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_changed_or_truncated_archive_is_fetched_again(tmp_path, served, caplog):
    served.files = {"one-1.0.tar.gz": GOOD}
    (tmp_path / "one-1.0.tar.gz").write_bytes(GOOD[:-5])
    fetch.fetch([package(GOOD)], tmp_path)
    assert "one: " in caplog.text and "was changed or cut short; it is fetched again" in caplog.text
    assert (tmp_path / "one-1.0.tar.gz").read_bytes() == GOOD


def test_a_missing_archive_names_its_package(tmp_path, served):
    with pytest.raises(UserError, match="one: no package index has one-1.0.tar.gz.*pin another release"):
        fetch.fetch([package(GOOD)], tmp_path)
    other = package(GOOD, name="two", file="two-1.0.tar.gz")
    with pytest.raises(UserError, match="two: no package index has two-1.0.tar.gz"):
        fetch.fetch([other], tmp_path)


def test_without_a_network_it_says_what_is_missing_and_goes_on_later(tmp_path, served, monkeypatch):
    served.files = {"one-1.0.tar.gz": GOOD}
    several = [package(GOOD), package(GOOD, name="two", file="two-1.0.tar.gz")]
    fetch.fetch(several[:1], tmp_path)
    use(monkeypatch, "http://127.0.0.1:1/simple")
    with pytest.raises(UserError, match=r"two: the package index cannot be read .*; 1 of 2 archives are missing") as e:
        fetch.fetch(several, tmp_path)
    assert "run `make corpus` again, which fetches the rest. `make quickstart` works without them" in str(e.value)
    assert [path.name for path in tmp_path.iterdir()] == ["one-1.0.tar.gz"]


def test_a_broken_transfer_is_no_traceback(tmp_path, served, monkeypatch):
    served.files = {"one-1.0.tar.gz": GOOD}
    monkeypatch.setattr(Index, "send", staticmethod(lambda handler, content, kind: handler.wfile.write(b"garbage\n")))
    with pytest.raises(UserError, match="one: the package index"):
        fetch.fetch([package(GOOD)], tmp_path)


def test_pip_settings_name_the_indexes(monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    extra = "extra-index-url = https://b.test/s\n    file:///c\n    https://c.test/s"
    for content, names in (
        (f"[global]\nindex-url = https://a.test/simple\n{extra}\n", "abc"),
        (f"[global]\nindex-url = https://a.test/simple\n{extra}\n[download]\nindex-url = https://d.test\n", "dbc"),
    ):
        (tmp_path / "pip.conf").write_text(content)
        index._settings.cache_clear()
        assert [url[len("https://")] for url in index.urls()] == list(names)
    (tmp_path / "pip.conf").write_text("[global]\nextra-index-url = file:///c\n")
    index._settings.cache_clear()
    assert len(index.urls()) == 1  # pip's own default


def test_a_login_is_not_sent_to_another_host_and_is_in_no_error(tmp_path, served, monkeypatch):
    received = []

    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            received.append(self.headers.get("Authorization"))
            served.send(self, GOOD, "application/gzip")

        def log_message(self, *_):
            pass

    served.files = {"one-1.0.tar.gz": GOOD}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Other) as other:
        threading.Thread(target=other.serve_forever).start()
        served.moved = f"http://127.0.0.1:{other.server_port}/x"
        use(monkeypatch, served.url.replace("://", "://me:secret@"))
        fetch.fetch([package(GOOD)], tmp_path)
        other.shutdown()
    assert received == [None] and len(served.requests) == 2
    use(monkeypatch, "http://me:secret/word@127.0.0.1/simple")
    with pytest.raises(UserError, match="its address or its page is not valid") as e:
        fetch.fetch([package(GOOD, file="one-2.tar.gz")], tmp_path)
    assert "secret" not in str(e.value)


@pytest.mark.parametrize(
    ("page", "kind"),
    [
        (b"no JSON", "application/vnd.pypi.simple.v1+json"),
        (b"[1]", "application/json"),
        (b'{"meta": {}}', "application/json"),
        (b'<a href="http://[/x">one-1.0.tar.gz</a>', "text/html"),
    ],
)
def test_a_page_that_is_not_valid_is_no_traceback(tmp_path, served, monkeypatch, page, kind):
    served.files, send = {"one-1.0.tar.gz": GOOD}, Index.send
    monkeypatch.setattr(Index, "send", staticmethod(lambda handler, *_: send(handler, page, kind)))
    with pytest.raises(UserError, match="one: the package index cannot be read .its address or its page is not valid"):
        fetch.fetch([package(GOOD)], tmp_path)


def test_more_bytes_than_those_of_the_archive_are_not_read(tmp_path, served, monkeypatch):
    served.files = {"one-1.0.tar.gz": bytes(50 << 20)}
    with pytest.raises(UserError, match="has [1-9],[0-9]{3},[0-9]{3} bytes and SHA-256"):
        fetch.fetch([package(GOOD)], tmp_path)


def test_settings_that_reach_no_index_are_named(tmp_path, served, monkeypatch):
    use(monkeypatch, "file:///nowhere/simple")
    with pytest.raises(UserError, match="one: pip is set to no index that is read by HTTP"):
        fetch.fetch([package(GOOD)], tmp_path)
    monkeypatch.setenv("PIP_CERT", str(tmp_path / "missing.pem"))
    use(monkeypatch, served.url)
    with pytest.raises(UserError, match="one: the package index cannot be read .*No such file"):
        fetch.fetch([package(GOOD)], tmp_path)


def one(subject="web", **changes):
    return package(GOOD, subject=subject, **changes)


@pytest.mark.parametrize(
    ("path", "domain"),
    [
        ("src/one/views.py", "python:web"),
        ("tests/test_views.py", "python:tests"),
        ("one/conftest.py", "python:tests"),
        ("one/contest.py", "python:web"),
        ("one/types.pyi", "python:stubs"),
        ("docs/guide.rst", "docs:web"),
        ("docs/guide.txt", "docs:web"),
        ("data/words.txt", None),
        ("README.md", "docs:web"),
        ("CHANGES.rst", "text:changelogs"),
        ("docs/releases/1.0.txt", "text:changelogs"),
        ("docs/changes_of_basis.rst", "docs:web"),
        ("LICENSE.rst", None),
        ("one/_vendor/other.py", None),
        ("third_party/other.c", None),
        ("one/static/jquery.min.js", None),
        ("one/static/app.js", "code:javascript"),
        ("src/solver.F90", "code:fortran"),
        ("src/solver.hpp", "code:c++"),
        ("src/solver.h", "code:c"),
        ("kernels/add.cuh", "code:cuda"),
        ("one/locale/de/LC_MESSAGES/django.po", "text:translations"),
        ("data.csv", "data:tables"),
        ("examples/a.ipynb", "text:notebooks"),
        ("image.png", None),
    ],
)
def test_domain_of_a_path(path, domain):
    assert domains.domain_of(one(), pathlib.PurePosixPath(path)) == domain


def test_subjects_without_documentation_have_code_only():
    assert domains.domain_of(one("quantum"), pathlib.PurePosixPath("docs/a.rst")) is None
    assert domains.domain_of(one("quantum"), pathlib.PurePosixPath("a.py")) == "python:quantum"
    assert domains.domain_of(one("systems"), pathlib.PurePosixPath("a.py")) is None
    assert domains.domain_of(one("systems"), pathlib.PurePosixPath("a.rs")) == "code:rust"


def test_an_older_release_gives_documentation_only():
    for path, domain in (("docs/a.rst", "docs:web"), ("a.py", None), ("docs/releases/1.txt", None)):
        assert domains.domain_of(one(older=True), pathlib.PurePosixPath(path)) == domain


def texts(path, content, domain):
    return list(domains.texts_of(archives.File(pathlib.PurePosixPath(path), content), domain))


LONG = b"def function(argument):\n    return argument + 1\n" * 3


@pytest.mark.parametrize(
    "content",
    [
        b"short",
        LONG + b"\0",
        LONG + b"\xff",
        b"# @generated by a program\n" + LONG,
        b"# COMPANY CONFIDENTIAL\n" + LONG,
        b"x" * 1001 + b"\n" + LONG,
        LONG * 10_000,
    ],
    ids=["short", "binary", "not UTF-8", "generated", "confidential", "long line", "large"],
)
def test_what_is_no_text_is_left_out(content):
    assert texts("a.f", content, "code:fortran") == []
    assert texts("a.f", LONG, "code:fortran") == [("code:fortran", LONG.decode())]


def test_line_ends_and_byte_order_marks_are_normalised():
    assert texts("a.py", b"\xef\xbb\xbf" + LONG.replace(b"\n", b"\r\n"), "x") == [("x", LONG.decode())]


@pytest.mark.parametrize(
    ("path", "language"),
    [
        ("locale/de/LC_MESSAGES/django.po", "de"),
        ("locale/pt_BR/LC_MESSAGES/x.po", "pt"),
        ("i18n/fr.po", "fr"),
        ("po/one-sv.po", "sv"),
        ("locale/sr@latin/LC_MESSAGES/x.po", "sr"),
    ],
)
def test_a_catalogue_has_its_translations_and_language(path, language):
    catalogue = (
        'msgid ""\nmsgstr "Project-Id-Version: 1\\n"\n\n#: a.py:1\nmsgid "house"\nmsgstr ""\n"Das Haus, das am "\n'
        '"Rand der Stadt steht.\\n"\n\nmsgid "tree"\nmsgid_plural "trees"\nmsgstr[0] "Baum, einer von \\"vielen\\""\n'
        'msgstr[1] "Bäume"\nmsgid "untranslated"\nmsgstr ""\n'
    )
    (found,) = texts(path, catalogue.encode(), "text:translations")
    assert found[0] == f"text:translations/{language}"
    assert found[1] == 'Das Haus, das am Rand der Stadt steht.\n\nBaum, einer von "vielen"\n\nBäume'


def test_a_notebook_has_its_cells_without_outputs():
    cells = [{"cell_type": "markdown", "source": ["# Title\n", prose(1, 60)]}, {"source": "print(1)", "outputs": ["9"]}]
    ((_, text),) = texts("a.ipynb", json.dumps({"cells": cells}).encode(), "text:notebooks")
    assert text == f"# Title\n{prose(1, 60)}\n\nprint(1)"
    assert texts("a.ipynb", json.dumps({"cells": 3, "x": "y" * 80}).encode(), "text:notebooks") == []


def test_the_table_is_pinned_and_complete():
    assert len({p.file for p in TABLE}) == len(TABLE) >= 70
    for p in TABLE:
        assert len(bytes.fromhex(p.sha256)) == 32 and 0 < p.size < p.unpacked and p.licence
        assert p.file.endswith(".tar.gz")
    assert [p.name for p in TABLE if p.older] == ["django"]
    assert set(domains.SUBJECTS) <= {p.subject for p in TABLE}
    assert (len(domains.TOPICS), len(domains.LANGUAGES), len(domains.SOURCES)) == (24, 15, 6)


# Files of every language and further source: ending, and what is before and after the text.
OTHERS = {
    **{f"src/{{}}.{endings[0]}": "{}" for endings in domains.LANGUAGES.values()},
    "data/{}.csv": "{}",
    "src/{}.pyi": "{}",
    "tests/test_{}.py": "{}",
    "changes/{}.rst": "{}",
    "locale/de/LC_MESSAGES/{}.po": 'msgid "x"\nmsgstr "{}"',
    "notes/{}.ipynb": '{{"cells": [{{"source": "{}"}}]}}',
}


@pytest.fixture
def table(monkeypatch, served):
    """The table of small packages, one for each subject, which an index on loopback has."""
    monkeypatch.setattr(heldout, "LEAST", 3000)
    rows = []
    for number, subject in enumerate(domains.SUBJECTS):
        texts = [prose(100 * number + n, 40).replace("\n", " ") for n in range(30)]
        code = [prose(3000 + 100 * number + n, 40).replace("\n", " ") for n in range(30)]
        files = [(f"docs/{n}.rst", f"Title\n\n{text}\n\n{text[::-1]}\n") for n, text in enumerate(texts)]
        files += [(f"{n}.py", f"x = {n}\n\n# {text[50:]}\n\n# {text[::-1]}\n") for n, text in enumerate(code)]
        if subject == "web":
            others = enumerate(OTHERS.items())
            files += [
                (path.format(n), around.format(prose(5000 + 100 * k + n, 40).replace("\n", " ")))
                for k, (path, around) in others
                for n in range(60)
            ]
        content = archive(*[(name, text.encode()) for name, text in files])
        size = sum(len(text.encode()) for _, text in files)
        rows.append(package(content, name=subject, file=f"{subject}-1.tar.gz", subject=subject, unpacked=size))
        served.files[rows[-1].file] = content
    revised = [(f"docs/{n}.rst", prose(9000 + n, 40).encode()) for n in range(5)]
    older, size = archive(*revised), sum(len(text) for _, text in revised)
    served.files["web-0.tar.gz"] = older
    rows.append(package(older, name="web", file="web-0.tar.gz", unpacked=size, older=True))
    monkeypatch.setattr(packages, "read_table", lambda: tuple(rows))
    return rows


def rows_of(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def run(monkeypatch, folder):
    monkeypatch.setattr(sys, "argv", ["corpus", f"--folder={folder}"])
    program.main()


def test_the_corpus_is_fetched_and_written_once(tmp_path, table, served, monkeypatch, capsys):
    run(monkeypatch, tmp_path / "a")
    names = {*domains.TOPICS, *(f"code:{name}" for name in domains.LANGUAGES), *domains.SOURCES}
    record = json.loads((tmp_path / "a/corpus.json").read_text())
    assert set(record["domains"]) == set(text_files(tmp_path / "a/packages")) == names
    assert {p.name for p in (tmp_path / "a").iterdir()} == {"archives", "corpus.json", ".corpus", *program.PARTS}
    assert len(list((tmp_path / "a/tasks").iterdir())) >= 45
    fetched, before = len(served.requests), (tmp_path / "a/corpus.json").stat().st_mtime_ns
    run(monkeypatch, tmp_path / "a")
    assert len(served.requests) == fetched and (tmp_path / "a/corpus.json").stat().st_mtime_ns == before
    assert "is up to date; remove" in capsys.readouterr().err
    run(monkeypatch, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_refused_archive_leaves_the_earlier_corpus(tmp_path, table, served, monkeypatch):
    run(monkeypatch, tmp_path)
    before = contents(tmp_path)
    bad = archive(("a.py", b"x = 1\n"), member(tarfile.SYMTYPE, target="/etc"))
    table[3] = dataclasses.replace(table[3], sha256=hashlib.sha256(bad).hexdigest(), file=f"{table[3].name}-2.tar.gz")
    served.files[table[3].file] = bad
    monkeypatch.setattr(program, "is_current", lambda *_: False)
    with pytest.raises(UserError, match=f"{table[3].name}: {table[3].file} has the link"):
        run(monkeypatch, tmp_path)
    assert contents(tmp_path) == before | {f"archives/{table[3].file}": bad}


@pytest.mark.parametrize("make", ["folder", "link"])
def test_folders_of_other_origin_are_not_replaced(tmp_path, table, monkeypatch, make):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/a.txt").write_text("mine")
    if make == "folder":
        (tmp_path / "thesis").rename(tmp_path / "tasks")
    else:
        (tmp_path / "tasks").symlink_to(tmp_path / "thesis")
    with pytest.raises(UserError, match="tasks was not written by `make corpus`, which would replace it; move it away"):
        run(monkeypatch, tmp_path)
    assert (tmp_path / "tasks/a.txt").read_text() == "mine"


def test_a_damaged_record_or_a_removed_domain_is_no_corpus(tmp_path, table, monkeypatch):
    run(monkeypatch, tmp_path)
    assert program.is_current(tmp_path)
    (tmp_path / "packages/code:rust").rename(tmp_path / "elsewhere")
    assert not program.is_current(tmp_path)
    (tmp_path / "elsewhere").rename(tmp_path / "packages/code:rust")
    (tmp_path / "corpus.json").write_text("{")
    assert not program.is_current(tmp_path)
    with program.ours(tmp_path), pytest.raises(UserError, match="is in use by another `make corpus`"):
        run(monkeypatch, tmp_path)
    run(monkeypatch, tmp_path)
    assert program.is_current(tmp_path)


def test_an_empty_folder_name_is_refused(monkeypatch):
    with pytest.raises(UserError, match="--folder is empty"):
        run(monkeypatch, "")


def test_an_interrupted_run_starts_again(tmp_path, table, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(heldout, "drop_repeats", stop)
        run(patch, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".corpus", "archives"]
    run(monkeypatch, tmp_path)
    assert (tmp_path / "corpus.json").is_file()


def test_documents_are_held_out_and_repeats_dropped(tmp_path, monkeypatch):
    monkeypatch.setattr(heldout, "LEAST", 4000)
    folder = tmp_path / "packages"
    written = {"one": [prose(n, 40) for n in range(100)], "two": [prose(n + 500, 40) for n in range(50)]}
    written["two"] += [written["one"][n] + " more" for n in range(10)]
    for domain, rows in written.items():
        for part in range(2):
            (folder / domain).mkdir(parents=True, exist_ok=True)
            lines = [json.dumps({"text": text, "path": str(n)}) + "\n" for n, text in enumerate(rows) if n % 2 == part]
            (folder / domain / f"{part}.jsonl").write_text("".join(lines))
    held = heldout.hold_out(folder)
    for domain, rows in held.items():
        assert 0 < len(rows) < 20 and set(rows) <= set(written[domain])
    heldout.drop_repeats(folder, held)
    left = {d: [row["text"] for p in sorted((folder / d).iterdir()) for row in rows_of(p)] for d in written}
    for domain, rows in left.items():
        assert not set(rows) & set(held[domain]), domain
        assert len(rows) > 30
    starts = {text.removesuffix(" more") for rows in held.values() for text in rows}
    assert not [text for rows in left.values() for text in rows if text.removesuffix(" more") in starts]
    assert not [text for text in left["two"] if text.endswith(" more") and text.removesuffix(" more") in left["one"]]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["packages"]


def test_tasks_of_domains_and_of_code(tmp_path):
    code = 'def area(width, height):\n    """Return the area."""\n    total = width * height\n    return total\n'
    held = {
        "python:web": [f"{code}\n\n# {prose(n, 30)}\n" for n in range(12)],
        "docs:web": [f"{prose(n, 60)}\n\n{prose(n + 50, 60)}" for n in range(14)],
    }
    # Models that train on the answers of the first two documents could repeat them.
    (tmp_path / "text/docs:web").mkdir(parents=True)
    rows = [{"text": f"before\n{held['docs:web'][n]}\nafter"} for n in range(2)]
    (tmp_path / "text/docs:web/a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tasks.write(tmp_path / "tasks", held, [tmp_path / "text"])
    names = {path.name for path in (tmp_path / "tasks").iterdir()}
    assert {"continue%3Adocs%3Aweb.jsonl", "continue%3Apython%3Aweb.jsonl"} <= names
    assert "types%3Astub_signature.jsonl" not in names
    found = rows_of(tmp_path / "tasks/continue%3Adocs%3Aweb.jsonl")
    assert 8 <= len(found) <= 12 and all(row["prompt"] and row["answer"] for row in found)
    assert not any(row["answer"].split("\n")[0] in text["text"] for row in found for text in rows)
    assert set(tasks.DOMAINS) == set(tasks.TASKS)


def test_stages_mirror_the_papers_updates(tmp_path):
    names = [*domains.TOPICS, *(f"code:{name}" for name in domains.LANGUAGES), *domains.SOURCES]
    for name in names:
        files = ["a.jsonl", "django.jsonl"]
        if name == stages.PARTITIONED:
            files = [f"a.{language}.jsonl" for language in (*stages.LANGUAGES, "xx", "yy")]
        for file in files:
            path = tmp_path / "packages" / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"text": f"{name} {file}"}) + "\n")
    (tmp_path / "revised/docs:web").mkdir(parents=True)
    (tmp_path / "revised/docs:web/django.jsonl").write_text('{"text": "older"}\n')
    stages.write(tmp_path / "stages", tmp_path / "packages", tmp_path / "revised")
    (tmp_path / "moved").mkdir()
    for name in ("packages", "revised", "stages"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    found = [text_files(tmp_path / "moved/stages" / str(n)) for n in range(6)]
    assert [len(stage) for stage in found] == [24, 39, 45, 45, 44, 64]
    assert sorted(found[2]) == sorted(names)
    assert [p.read_text() for p in found[3]["docs:web"]] == ['{"text": "docs:web a.jsonl"}\n', '{"text": "older"}\n']
    parts = sorted(set(found[5]) - set(found[4]))
    assert len(parts) == 21 and "text:translations:other" in parts and len(found[5]["text:translations:other"]) == 2
    updates = [json.loads((tmp_path / f"moved/stages/{n}.json").read_text())["updates"][0] for n in range(1, 6)]
    assert [next(iter(u)) for u in updates] == ["add", "add", "revise", "remove", "partition"]
    assert sorted(updates[4]["partition"]["text:translations"]) == parts


def digest(folder):
    """Return a hash of the names and contents of all files below a folder."""
    result = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        result.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return result.hexdigest()


# Of `make corpus` with Python 3.11 and 3.12.
DIGESTS = {
    "packages": "a548246d1d3efe345df04cb9c93265ade20f8cc1678b5af36585c803f71115b3",
    "revised": "4a3565d6577a4952ed647b090b868a7f6ba9ab7763c405cba8bd860022e34405",
    "tasks": "ff16991b94d74b960f5a71f955428ad49f22e22d887fdfbe113edba1081c7bd9",
}
# Of the token stores; another version of the tokenizers library may give others.
STORES = "c4e9c3f98cbdd9a2d78a72b3d3cf12caa52373021d012f10a9c9d4180a3038ed"
needs_corpus = pytest.mark.skipif(not program.is_current(ROOT / "data"), reason="needs `make corpus`")


@needs_corpus
@pytest.mark.parametrize("part", DIGESTS)
def test_text_is_the_same_on_every_machine(part):
    assert digest(ROOT / "data" / part) == DIGESTS[part]


@needs_corpus
@pytest.mark.slow
def test_token_stores_are_the_same_on_every_machine(tmp_path):
    command = [sys.executable, "run.py", "--config=configs/packages.py", "--stages=prepare", f"--workdir={tmp_path}"]
    subprocess.run(command, cwd=ROOT, check=True)
    assert digest(tmp_path / "corpus/train") == STORES


@pytest.mark.slow
def test_signal_to_noise_and_page_run_at_smoke_scale(tmp_path, table, monkeypatch):
    run(monkeypatch, tmp_path / "data")
    names = ["corpus", "--scale=smoke", f"--workdir={tmp_path / 'signal'}", f"--corpus={tmp_path / 'data'}"]
    monkeypatch.setattr(sys, "argv", names)
    signal_to_noise.main()
    rows = json.loads((tmp_path / "signal/results.json").read_text())["tasks"]
    assert len(rows) >= 45 and all(row["ratio"] == pytest.approx(row["signal"] / row["noise"]) for row in rows.values())
    text = page.signal_text(json.loads((tmp_path / "signal/results.json").read_text()))
    assert f"of {len(rows)} pass" in text and "The paper's 52 tasks" not in text


def test_the_papers_tasks_are_averaged_as_the_paper_does():
    bpb = {column: np.array([float(n), n + 1]) for n, column in enumerate(olmes.REQUESTS)}
    bpb |= {f"mmlu_{s}:rc::olmes": np.ones(2) * n for sizes in MMLU.values() for n, s in enumerate(sizes)}
    tasks52 = signal_to_noise.paper_tasks(bpb)
    assert len(tasks52) == 52 and not set(tasks52) & set(signal_to_noise.LEFT_OUT)
    sizes = MMLU["stem"]
    expected = sum(n * size for n, size in enumerate(sizes.values())) / sum(sizes.values())
    assert tasks52["mmlu_stem:rc::olmes"] == pytest.approx([expected] * 2)
    skills = [bpb_S for task, bpb_S in bpb.items() if task.startswith("basic_skills_")]
    np.testing.assert_allclose(tasks52[signal_to_noise.SKILLS], np.mean(skills, axis=0))


def test_the_stages_are_configs():
    assert packages_config.get_config("stage0").corpus.path == "data/stages/0"
    c = packages_config.get_config("stage5")
    assert (c.update.file, c.update.parent) == ("data/stages/5.json", "runs/packages/stage4")
    with pytest.raises(ValueError, match="no variant 'stage6'"):
        packages_config.get_config("stage6")

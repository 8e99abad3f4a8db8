"""Several processes encode like one, and their failures are errors."""

import numpy as np
import pytest

from olmix_jax.corpus import encoding, tokenizer
from olmix_jax.utils import devices
from olmix_jax.utils.errors import UserError
from tests.corpus.test_tokenizer import BPE
from tests.corpus.texts import prose


@pytest.fixture
def two_processes(monkeypatch):
    """Encode with two processes, in small chunks."""
    monkeypatch.setattr(devices, "count_cpus", lambda: 2)
    monkeypatch.setattr(tokenizer, "_CHUNK", 2000)


def test_ids_and_their_order_are_those_of_one_process_until_one_ends(two_processes):
    texts = [prose(i, 10 + i) for i in range(50)]
    with encoding.Encoder(BPE, encoding.SMALLEST) as encoder:
        # The processes serve one domain after another.
        for part in (texts[:1], texts, []):
            expected = [BPE.encode(text) for text in part]
            ids = list(encoder.encode(part))
            assert len(ids) == len(part) and all(np.array_equal(a, b) for a, b in zip(ids, expected))
        processes = encoder._processes
        assert len(processes) == 2
        stream = encoder.encode(prose(i, 600) for i in range(50))
        next(stream)
        for process in processes:
            process.kill()
        with pytest.raises(UserError, match="process that encodes text ended with status -9.*run the same command"):
            list(stream)
    assert all(process.returncode is not None for process in processes)


def test_small_text_starts_no_process(two_processes):
    with encoding.Encoder(BPE, 1000) as encoder:
        assert len(list(encoder.encode(["a", "b"]))) == 2 and not encoder._processes

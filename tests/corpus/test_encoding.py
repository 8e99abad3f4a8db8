"""Several processes encode like one, and their end is an error."""

import numpy as np
import pytest

from olmix_jax.corpus import tokenizer, workers
from olmix_jax.corpus.encoding import encode
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
    with workers.for_size(workers.SMALLEST) as several:
        # The processes serve one domain after another.
        for part in (texts[:1], texts, []):
            expected = [BPE.encode(text) for text in part]
            ids = list(encode(BPE, part, several))
            assert len(ids) == len(part) and all(np.array_equal(a, b) for a, b in zip(ids, expected))
        assert len(several.processes) == 2
        stream = encode(BPE, (prose(i, 600) for i in range(50)), several)
        next(stream)
        for process in several.processes:
            process.kill()
        with pytest.raises(UserError, match="process that encodes text ended with status -9.*run the same command"):
            list(stream)
        with pytest.raises(UserError, match="process that compares text ended with status -9"):
            list(several.map("fingerprint", [["a text"]]))
    assert all(process.returncode is not None for process in several.processes)

"""Tokens of another tokenizer are refused, and those of the tokenizer itself never."""

import logging

import numpy as np
import pytest

from olmix_jax.corpus import token_agreement, token_files, tokenizer
from olmix_jax.utils.errors import UserError
from tests.corpus.test_token_formats import put
from tests.corpus.test_tokenizer import BPE, FOREIGN, TEXTS
from tests.corpus.texts import prose

DOCUMENTS = [*TEXTS, *(prose(i) for i in range(60)), "日本語のテキスト 🙂 ünï\n" * 40]


def encoded(bpe: tokenizer.Tokenizer, documents=DOCUMENTS) -> np.ndarray:
    return np.concatenate([np.append(bpe.encode(text), bpe.end) for text in documents])


def check(tmp_path, ids: np.ndarray, bpe: tokenizer.Tokenizer, name="olmo_core.npy") -> None:
    shards = token_files.read([put(tmp_path, name, ids)], bpe, "web").shards
    token_agreement.check(shards, bpe, "web")


@pytest.mark.parametrize("bpe", [BPE, FOREIGN])
@pytest.mark.parametrize("first, size", [(0, None), (7, 300), (11, 5000), (1, 40)])
def test_tokens_of_the_tokenizer_agree_wherever_the_file_is_cut(tmp_path, bpe, first, size):
    check(tmp_path, encoded(bpe)[first:][:size], bpe)


def test_documents_cut_at_a_length_agree(tmp_path):
    ids = np.concatenate([np.append(BPE.encode(text)[:150], BPE.end) for text in DOCUMENTS])
    check(tmp_path, ids, BPE)


OTHERS = {
    "another size": lambda: tokenizer.train(TEXTS, 320),
    "another text": lambda: tokenizer.train([prose(i) for i in range(100)], 300),
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("swapped", [False, True])
def test_tokens_of_another_tokenizer_are_refused(tmp_path, other, swapped):
    one, two = (BPE, OTHERS[other]()) if swapped else (OTHERS[other](), BPE)
    with pytest.raises(
        UserError, match=r"olmo_core.npy: (not written with .* only [\d.]+% of|token ids|its .* bytes are)"
    ):
        check(tmp_path, encoded(one), two)


def test_one_file_of_many_is_named(tmp_path):
    other = tokenizer.train([prose(i) for i in range(100)], 300)
    paths = [put(tmp_path / str(i), "olmo_core.npy", encoded(other if i == 7 else BPE)) for i in range(9)]
    shards = token_files.read(paths, BPE, "web").shards
    with pytest.raises(UserError, match=r"/7/olmo_core.npy: not written with corpus.tokenizer"):
        token_agreement.check(shards, BPE, "web")


def test_file_that_ends_within_a_document_gives_a_warning_if_others_do_not(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("olmix_jax"), "propagate", True)
    paths = [put(tmp_path / str(i), "olmo_core.npy", encoded(BPE)[: -3 if i == 1 else None]) for i in range(3)]
    token_agreement.warn_of_cut_documents(token_files.read(paths, BPE, "web").shards, BPE)
    assert "1 token file does not end" in caplog.text and "may be cut short, such as " + paths[1] in caplog.text
    caplog.clear()
    token_agreement.check(token_files.read(paths[:1] * 3, BPE, "web").shards, BPE, "web")
    token_agreement.check(token_files.read(paths[1:2] * 3, BPE, "web").shards, BPE, "web")
    assert not caplog.text

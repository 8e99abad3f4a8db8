"""Files are read in blocks of bounded size, and cut without loss."""

import gzip

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix_jax.corpus import text_streams
from olmix_jax.utils.errors import UserError

BLOCKS = st.lists(st.text("a é\n🙂", max_size=8).map(str.encode), max_size=12)


@settings(deadline=None, max_examples=100)
@given(BLOCKS)
def test_lines_and_pieces_do_not_depend_on_blocks(blocks):
    whole = b"".join(blocks)
    assert list(text_streams.lines(blocks)) == whole.split(b"\n")
    pieces = list(text_streams.pieces(blocks, 7))
    assert b"".join(pieces) == whole and all(0 < len(piece) <= 7 and piece.decode() for piece in pieces)
    assert pieces == list(text_streams.pieces([whole] if whole else [], 7))


def test_long_line_is_none(monkeypatch):
    monkeypatch.setattr(text_streams, "LONGEST_LINE", 4)
    assert list(text_streams.lines([b"ab\nabc", b"de", b"f\nab", b"cd\nabcde\nx"])) == [
        b"ab",
        None,
        b"abcd",
        None,
        b"x",
    ]
    assert list(text_streams.lines([b"abcde", b"f"])) == [None]


def test_blocks_of_a_repetitive_compressed_file_are_bounded(tmp_path):
    content = b"0" * 50_000_000
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(content, 1))
    sizes = [len(block) for block in text_streams.blocks(tmp_path / "a.txt.gz")]
    assert sum(sizes) == len(content) and max(sizes) < 40_000_000


@pytest.mark.parametrize("name", ["a.gz", "a.zst"])
def test_empty_compressed_file_is_an_error(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(UserError, match=f"{name}: empty, which no"):
        list(text_streams.blocks(tmp_path / name))


def test_frames_with_large_windows_are_read(tmp_path):
    parameters = zstandard.ZstdCompressionParameters(window_log=28)
    (tmp_path / "a.zst").write_bytes(zstandard.ZstdCompressor(compression_params=parameters).compress(b"text"))
    assert b"".join(text_streams.blocks(tmp_path / "a.zst")) == b"text"

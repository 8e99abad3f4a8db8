"""Vocabularies without all bytes and texts that change are found."""

import pytest
from tokenizers import pre_tokenizers

from olmix_jax.corpus import tokenizer_checks


def test_alphabet_is_that_of_the_library():
    assert sorted(tokenizer_checks.alphabet()) == sorted(pre_tokenizers.ByteLevel.alphabet())
    assert tokenizer_checks.alphabet()[0x41] == "A" and tokenizer_checks.alphabet()[0x20] == "Ġ"


@pytest.mark.parametrize("byte", [0x00, 0x20, 0xD0, 0xFF])
def test_vocabulary_without_a_byte_is_an_error(byte):
    full = tokenizer_checks.alphabet()
    tokenizer_checks.check_bytes(full)
    with pytest.raises(ValueError, match=f"lacks 1 of the 256 bytes \\(0x{byte:02X}\\)"):
        tokenizer_checks.check_bytes([char for i, char in enumerate(full) if i != byte])


CHANGES = {
    "lower case": str.lower,
    "strip": str.strip,
    "runs of blanks": lambda text: text.replace("  ", " "),
    "control characters": lambda text: text.replace("\x01", ""),
    "line ends": lambda text: text.replace("\r\n", "\n"),
    "emoji": lambda text: text.replace("🙂", ""),
    "a byte of UTF-8": lambda text: text.replace("\u07ff", "?"),
    "prefix space": lambda text: f" {text}",
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_text_is_an_error(change):
    tokenizer_checks.check_probes(str.encode)
    with pytest.raises(ValueError, match=r"changes text \(.*\): \d+ bytes become \d+; "):
        tokenizer_checks.check_probes(lambda text: CHANGES[change](text).encode())


def test_change_is_described_with_an_example():
    assert tokenizer_checks.describe_change("a ж b", "a ж b".encode()) == ""
    assert tokenizer_checks.describe_change("a ж b", b"a  b") == "6 bytes become 4; 'a ж b' becomes 'a  b'"

"""Checks that a tokenizer returns every text exactly: all 256 bytes are in its vocabulary, and texts come back."""

import itertools
from collections.abc import Callable, Container, Iterable

# Texts with what vocabularies, pre-tokenisers and normalisers lose or change. The last one has every byte that UTF-8
# text can have.
PROBES = {
    "words": " A  b\n\n\tç\r\n'll it's 12345 3.14 _-- ab  \t \n x=y; https://a.b/c?d=e#f \\alpha {}[]<|x|> ",
    "Latin and Cyrillic": "Straße ÀÉÎÕÜ e\u0301 ﬁ ½ ² İı Привет, мир! Ёлка Αθήνα",
    "Chinese, Arabic and Hindi": "日本語 中文，。 한국어 العربية हिन्दी ไทย",
    "emoji": "🙂 👩‍👩‍👧 🇩🇪 ❤️ \U0001f9d1\U0001f3fd",
    "white space": "".join(f"a{' ' * n}a{chr(10) * n}\t" for n in range(20)) + "\xa0\u2003\u3000\u2028\x85\ufeff",
    "control characters": "".join(map(chr, range(32))) + "\x7f\x80\x9f\u200b\u200d\ufffd",
    "all bytes of UTF-8": "".join(map(chr, itertools.chain(range(0x800), range(0x800, 0xD800, 0x400))))
    + "".join(map(chr, [*range(0xE000, 0x10000, 0x400), *range(0x10000, 0x110000, 0x8000), 0x10FFFF])),
}


def alphabet() -> list[str]:
    """Return the character that stands for each byte in GPT-2's byte-level BPE.

    A visible character stands for itself; each other byte has the next free character from U+0100 on.
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [b for b in range(256) if b not in visible]
    return [chr(b) if b in visible else chr(0x100 + hidden.index(b)) for b in range(256)]


def check_bytes(vocabulary: Container[str]) -> None:
    """Raise a ValueError if a vocabulary lacks any of the 256 bytes."""
    missing = [byte for byte, char in enumerate(alphabet()) if char not in vocabulary]
    if missing:
        shown = ", ".join(f"0x{byte:02X}" for byte in missing[:4]) + (", …" if len(missing) > 4 else "")
        raise ValueError(
            f"its vocabulary lacks {len(missing)} of the 256 bytes ({shown}), so text "
            "with them would lose them; train it with initial_alphabet=ByteLevel.alphabet()"
        )


def check_probes(round_trip: Callable[[str], bytes]) -> None:
    """Raise a ValueError if a text does not come back exactly.

    Args:
      round_trip: encodes a text and returns the bytes of its tokens.
    """
    for name, text in PROBES.items():
        change = describe_change(text, round_trip(text))
        if change:
            raise ValueError(f"encoding and decoding changes text ({name}): {change}")


def describe_change(text: str, returned: bytes) -> str:
    """Return how a text differs from what came back, with an example; empty if it does not."""
    data = text.encode()
    if returned == data:
        return ""
    start = next((i for i, (a, b) in enumerate(zip(data, returned)) if a != b), min(len(data), len(returned)))
    original, changed = (part[max(0, start - 4) : start + 12].decode("utf-8", "replace") for part in (data, returned))
    return f"{len(data)} bytes become {len(returned)}; {original!r} becomes {changed!r}"


def normalisers(content: dict) -> list[str]:
    """Return the types of the normalisers in a ``tokenizer.json``, and "dropout" if its BPE has some."""
    outer = content.get("normalizer") or {}
    steps: Iterable[dict] = outer.get("normalizers", [outer] if outer else [])
    return [str(step.get("type")) for step in steps] + (["dropout"] if content["model"].get("dropout") else [])

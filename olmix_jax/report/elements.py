"""What the page is made of: sections, and the figures in them."""

import base64
import dataclasses
import struct

from olmix_jax.report.style import DPI
from olmix_jax.report.tables import Table


@dataclasses.dataclass(frozen=True)
class Picture:
    """A PNG as a data URI, and its size in CSS pixels."""

    uri: str
    width: int
    height: int

    @classmethod
    def of(cls, png: bytes) -> "Picture":
        # Width and height are the first two fields of the first chunk, IHDR.
        width, height = struct.unpack(">II", png[16:24])
        uri = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        return cls(uri, round(width * 96 / DPI), round(height * 96 / DPI))


@dataclasses.dataclass(frozen=True)
class Figure:
    """One figure: a picture for wide windows, one for narrow ones, and its texts."""

    name: str
    wide: Picture
    narrow: Picture
    alt: str
    caption: str


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading with figures, tables, or a note that says why they are not there."""

    title: str
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    note: str = ""

"""Elements of the page: sections, figures and tables."""

import base64
import dataclasses
import pathlib
import struct
from typing import Protocol

from olmix_jax.report import style
from olmix_jax.utils import files
from olmix_jax.utils.optional import reason_of
from olmix_jax.utils.progress import log


@dataclasses.dataclass(frozen=True)
class Picture:
    """A PNG as a data URI, with its size in CSS pixels."""

    uri: str
    width: int
    height: int

    @classmethod
    def from_png(cls, png: bytes) -> "Picture":
        """Return the picture; its size is read from the PNG's header."""
        # Width and height are the first two fields of the first chunk, IHDR.
        width, height = struct.unpack(">II", png[16:24])
        uri = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        return cls(uri, round(width * 96 / style.DPI), round(height * 96 / style.DPI))


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure of the page.

    Attributes:
      name: the element's id, and the name of its PNG file.
      wide, narrow: pictures for wide and for narrow windows; None if the figure could not be drawn.
      alt: alternative text.
      caption: text below the figure.
      scroll: whether a narrow window scrolls the figure sideways instead of shrinking it.
    """

    name: str
    wide: Picture | None
    narrow: Picture | None
    alt: str
    caption: str
    scroll: bool = False


class MakeFigure(Protocol):
    """Turns a drawing function and its texts into a figure of the page."""

    def __call__(self, draw: style.Draw, name: str, alt: str, caption: str, scroll: bool = False) -> Figure: ...


@dataclasses.dataclass(frozen=True)
class FigureWriter:
    """Draws figures and also writes each as a PNG into a folder. One that cannot be drawn is left out of the page."""

    folder: pathlib.Path

    def __call__(self, draw: style.Draw, name: str, alt: str, caption: str, scroll: bool = False) -> Figure:
        try:
            wide, narrow = style.render(draw)
        except Exception as e:  # the page is complete without this figure
            log.warning("report: the figure %s is left out: %s", name, reason_of(e))
            return Figure(name, None, None, alt, f"This figure is left out: {reason_of(e)}. {caption}")
        with files.atomic_write(self.folder / f"{name}.png", "wb") as f:
            f.write(wide)
        return Figure(name, Picture.from_png(wide), Picture.from_png(narrow), alt, caption, scroll)


@dataclasses.dataclass(frozen=True)
class Row:
    """Cells of a table row. The first cell names the row; a marked row is shaded."""

    cells: tuple[str, ...]
    mark: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of the page.

    Attributes:
      caption: text above the table; its first sentence is the table's label.
      head: names of the columns; empty for a table of name–value pairs.
      rows: the rows.
      collapsed: whether the table is hidden until the reader opens it.
      text: whether cells hold text, aligned left, instead of numbers.
      name: name of the CSV file beside the page that has all rows, if the page shows only the first; empty: the page
        shows all.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[Row, ...]
    collapsed: bool = False
    text: bool = False
    name: str = ""


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading with figures and tables, or with a note that explains why they are missing."""

    title: str
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    note: str = ""

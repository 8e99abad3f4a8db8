"""Style of all figures: widths, colours, labels, and rendering to PNG."""

import functools
import io
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

# Draws a figure of a given width in inches.
Draw = Callable[[float], Figure]
# Keyword arguments of an artist.
Style = dict[str, Any]

# Widths in inches, at 96 CSS pixels each. Every figure is drawn twice: for the page's column and for a window of
# 360 px, in which a scaled-down wide figure would have illegible text.
WIDE, NARROW = 9.0, 3.4
FONT_SIZES = {WIDE: 9.0, NARROW: 7.5}
DPI = 192
NATURAL, PROPOSED, BINDING, UNIFORM, BAD = "#8a8f98", "#1f6fb4", "#d97a1c", "#3d8c57", "#b5382f"
PURPLE, TEAL, BROWN = "#7b5ea7", "#2a9d9d", "#a0722a"
GREY_TEXT = "#5f646c"
MIXTURE_COLOURS = {"natural": NATURAL, "proposed": PROPOSED, "uniform": UNIFORM}
# Colours of domains in line and stacked-bar figures.
DOMAIN_COLOURS = (PROPOSED, BINDING, UNIFORM, BAD, PURPLE, TEAL, BROWN)
DASHES = (0, (4, 3))
# Most rows of a figure with one row per task, and most domains of a figure with one row or column per domain.
MAX_ROWS = 120
MAX_DOMAINS = 64

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.linewidth": 0.7,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    # Dollar signs in names of domains and tasks must not start TeX.
    "text.parse_math": False,
}


def render(draw: Draw) -> tuple[bytes, bytes]:
    """Return the figure as PNG bytes at :data:`WIDE` and at :data:`NARROW`. No pyplot state is touched."""
    wide, narrow = (_png(draw, width) for width in (WIDE, NARROW))
    return wide, narrow


def _png(draw: Draw, width: float) -> bytes:
    size = FONT_SIZES[width]
    with mpl.rc_context(_STYLE | {"font.size": size, "axes.titlesize": size}):
        figure = draw(width)
        figure.set_dpi(DPI)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        # savefig would encode a large PNG, which takes as long as the drawing.
        pixels = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    # A palette of 256 colours halves the page; figures have few colours.
    picture = pixels.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    small = io.BytesIO()
    picture.save(small, "png")
    return small.getvalue()


@functools.cache
def _font_characters() -> frozenset[int]:
    return frozenset(font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap())


def label(name: str, most: int = 30, tail: float = 0.4) -> str:
    """Return ``name`` on one line in at most ``most`` characters.

    A longer name keeps its start and its end; ``tail`` is the share of characters taken from the end. Characters that
    the font lacks become boxes.
    """
    name = "".join(c if ord(c) in _font_characters() and c.isprintable() else "\u25a1" for c in str(name))
    if len(name) <= most:
        return name
    end = int((most - 1) * tail)
    return f"{name[: most - 1 - end]}…{name[len(name) - end :]}"


def labels(names: Sequence[str], most: int) -> list[str]:
    """Return labels of at most ``most`` characters that keep the names distinct where possible.

    A suffix after ``::`` is dropped if the names stay distinct without it. Long names are cut in the middle, at the
    position that leaves most labels distinct.
    """
    without_suffix = [str(n).split("::")[0] for n in names]
    if len(set(without_suffix)) == len(set(names)):
        names = without_suffix
    attempts = [[label(n, most, tail) for n in names] for tail in (0.4, 0.7, 0.2, 0.9, 0.0)]
    return max(attempts, key=lambda attempt: len(set(attempt)))


def label_length(width: float) -> int:
    """Return how many characters a tick label may have in a figure of this width."""
    return 30 if width >= WIDE else 19

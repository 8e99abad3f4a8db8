"""What all figures share: two widths, colours, names that fit, numbers that read."""

import functools
import io
from collections.abc import Callable, Sequence

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.figure import Figure

# Inches, at 96 CSS pixels each: one drawing for the page's column, one for a 360 px window, where scaling the first
# down would leave its text illegible.
WIDE, NARROW = 9.0, 3.4
DPI = 192
NATURAL, PROPOSED, BINDING, UNIFORM, BAD = "#8a8f98", "#1f6fb4", "#d97a1c", "#3d8c57", "#b5382f"
# More rows than these make a page nobody scrolls through.
ROWS = 120
COLOURS = {"natural": NATURAL, "proposed": PROPOSED, "uniform": UNIFORM}

_STYLE = {
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
    # Names of domains and tasks are text, whatever dollar signs they hold.
    "text.parse_math": False,
}


def render(draw: Callable[..., Figure], *args) -> tuple[bytes, bytes]:
    """PNG bytes of ``draw(*args, width)`` at both widths, with no pyplot state."""
    pictures = []
    for width, size in ((WIDE, 9.0), (NARROW, 7.5)):
        with mpl.rc_context(_STYLE | {"font.size": size, "axes.titlesize": size}):
            buffer = io.BytesIO()
            draw(*args, width).savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
            pictures.append(buffer.getvalue())
    return pictures[0], pictures[1]


@functools.cache
def _glyphs() -> frozenset[int]:
    return frozenset(font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap())


def label(name: str, most: int = 30, tail: float = 0.4) -> str:
    """``name`` on one line in at most ``most`` characters, ``tail`` of them from its end.

    A box stands for what the font cannot draw.
    """
    name = "".join(c if ord(c) in _glyphs() and c.isprintable() else "\u25a1" for c in str(name))
    if len(name) <= most:
        return name
    end = int((most - 1) * tail)
    return f"{name[: most - 1 - end]}…{name[len(name) - end :]}"


def labels(names: Sequence[str], most: int) -> list[str]:
    """Labels of ``names``, cut where they differ least: after ``::`` if that tells nobody apart, else in the middle."""
    bare = [str(n).split("::")[0] for n in names]
    if len(set(bare)) == len(set(names)):
        names = bare
    attempts = [[label(n, most, tail) for n in names] for tail in (0.4, 0.7, 0.2, 0.9, 0.0)]
    return max(attempts, key=lambda attempt: len(set(attempt)))


def room(width: float) -> int:
    """Characters that a name beside a plot may take."""
    return 30 if width >= WIDE else 19


def quantity(value: float | None) -> str:
    """1234567 as 1.23M."""
    if value is None:
        return "–"
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= 0.9995 * size:
            return f"{value / size:.3g}{unit}" if abs(value) < 999.5 * size else f"{value / size:,.0f}{unit}"
    return f"{value:.3g}" if value != int(value) else f"{int(value)}"


def few(names: Sequence, most: int = 8) -> str:
    """The first names in a row, and how many more there are."""
    shown = ", ".join(str(n) for n in list(names)[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def number(value: float | None, form: str = ".4f") -> str:
    """``value`` formatted, with a dash for what is not known."""
    return "–" if value is None else format(value, form).replace("-", "−").replace("%", " %")

"""Numbers and lists of names as text for people."""

import re
from collections.abc import Sequence

# A setting or an identifier at the start of a text, such as `propose.guard=0` or `warped_gp`.
_CODE = re.compile(r"\w+[._=]\w")


def number(value: float | None, form: str = ".4f") -> str:
    """Return ``value`` in the format ``form``, or a dash for None."""
    return "–" if value is None else format(value, form).replace("-", "−").replace("%", " %")


def percent(share: float) -> str:
    """Return 0.9123 as "91 %" and 0.0123 as "1.2 %". Shares below 1 never show as "100 %"."""
    value = 100 * share
    if 99 < value < 100:
        return f"{min(value, 99.9):.1f} %"
    return f"{value:.0f} %" if value >= 9.95 or value == 0 else f"{value:.1f} %"


def weight_percent(weight: float | None, digits: int = 2) -> str:
    """Return a weight in percent without the unit, or a dash for None."""
    return number(None if weight is None else 100 * weight, f".{digits}f")


def quantity(value: float | None) -> str:
    """Return 1234567 as "1.23M", or a dash for None."""
    if value is None:
        return "–"
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= 0.9995 * size:
            return f"{value / size:.3g}{unit}" if abs(value) < 999.5 * size else f"{value / size:,.0f}{unit}"
    return f"{value:.3g}" if value != int(value) else f"{int(value)}"


def first_names(names: Sequence[str], most: int = 8) -> str:
    """Return the first ``most`` names separated by commas, then the number of remaining names."""
    shown = ", ".join(names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def capitalised(text: str) -> str:
    """Return ``text`` with its first letter in upper case and the others unchanged; a name of code stays as it is."""
    return text if _CODE.match(text) else text[:1].upper() + text[1:]

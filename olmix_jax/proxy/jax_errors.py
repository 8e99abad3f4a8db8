"""What JAX's runtime errors mean. They all have one type, and their texts are matched in this file only."""

import math
import re


def is_out_of_memory(error: Exception) -> bool:
    """Return whether a device ran out of memory, while compiling or running."""
    return "RESOURCE_EXHAUSTED" in str(error)


def requested_memory(error: Exception) -> float:
    """Return the memory that a compiler's out-of-memory error asks for [bytes], infinite if it names none."""
    match = re.search(r"required for HLO temporaries \(([\d.]+)([KMGT]?)\)", str(error))
    return float(match[1]) * 1024 ** " KMGT".index(match[2] or " ") if match else math.inf


def is_timeout(error: Exception) -> bool:
    """Return whether the key-value store had no value within the given time."""
    return "DEADLINE_EXCEEDED" in str(error)


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, or the name of its type if it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]

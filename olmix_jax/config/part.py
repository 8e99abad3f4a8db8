"""``swarm.part``: the share of the models that one job of an array, or one of several processes, trains.

A stage that trains keeps everything of a part in its folder, ``train`` or ``validate``: checkpoints in ``‹part›`` and
results in ``parts/‹part›.npz``.
"""

import dataclasses
import pathlib
import re

from olmix_jax.utils.errors import UserError

# Folder of the results of parts, in the folder of the stage.
RESULTS = "parts"


@dataclasses.dataclass(frozen=True)
class Part:
    """Part ``number`` of ``count``, counted from 1. It holds the members k with k mod ``count`` = ``number`` − 1."""

    number: int
    count: int

    @property
    def name(self) -> str:
        """Return the name for files and folders, such as ``0003-of-0016``; names sort in the order of the parts."""
        return f"{self.number:04d}-of-{self.count:04d}"

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def parse(text: str) -> Part | None:
    """Parse a part such as ``3/16``; None for empty text.

    Raises:
      UserError: the text is not a part.
    """
    if not text:
        return None
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise UserError(f"config field `swarm.part` must look like 3/16, part 3 of 16, not {text!r}")
    return Part(int(number), int(count))


def result_path(folder: pathlib.Path, part: Part) -> pathlib.Path:
    """Return the path of a part's results, in the folder of a stage."""
    return folder / RESULTS / f"{part.name}.npz"


def count_parts(folder: pathlib.Path) -> int | None:
    """Return the number of parts that the models in a stage's folder are divided into, or None if they are not divided.

    Raises:
      UserError: the folder holds parts of different divisions.
    """
    paths = [*(folder / RESULTS).glob("*-of-*.npz"), *folder.glob("*-of-*")]
    matches = (re.fullmatch(r"\d+-of-(\d+)", path.stem) for path in paths)
    counts = sorted({int(match[1]) for match in matches if match})
    if len(counts) > 1:
        raise UserError(
            f"{folder}: the models are divided into {' and into '.join(map(str, counts))} parts; delete the files of "
            f"one division, here and in {RESULTS}/"
        )
    return counts[0] if counts else None

"""A share of a swarm's members, as one job of an array or one process of several trains it (``swarm.part``)."""

import dataclasses
import pathlib
import re

from olmix_jax.utils.errors import UserError

FOLDER = "swarm/parts"


@dataclasses.dataclass(frozen=True)
class Part:
    """The ``number``-th of ``of`` parts, counted from 1; every ``of``-th member is its."""

    number: int
    of: int

    @property
    def name(self) -> str:
        """As file and folder names have it; in order."""
        return f"{self.number:04d}-of-{self.of:04d}"

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def parse(text: str) -> Part | None:
    """``3/16`` as a part; None for no text.

    Raises:
      UserError: it is none.
    """
    if not text:
        return None
    number, slash, of = text.partition("/")
    if not (slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise UserError(f"config field `swarm.part` must be as 3/16, from 1/16 to 16/16, not {text!r}")
    return Part(int(number), int(of))


def path_of(workdir: pathlib.Path, part: Part) -> pathlib.Path:
    """Where a part's results are."""
    return workdir / FOLDER / f"{part.name}.npz"


def divided(workdir: pathlib.Path) -> int | None:
    """Into how many parts the workdir's swarm was divided; None where it was not.

    Raises:
      UserError: into several numbers of them.
    """
    folders = [*(workdir / FOLDER).glob("*-of-*.npz"), *(workdir / "train").glob("*-of-*")]
    known = (re.fullmatch(r"\d+-of-(\d+)", path.stem) for path in folders)
    numbers = sorted({int(match[1]) for match in known if match})
    if len(numbers) > 1:
        raise UserError(
            f"{workdir / FOLDER}: parts of several divisions, of {' and of '.join(map(str, numbers))}; delete one of "
            "them, there and in train/"
        )
    return numbers[0] if numbers else None

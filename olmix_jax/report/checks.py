"""Whether a proposal is what the page can show: a field that is not is an error that names it, never a stack trace."""

import dataclasses
import math
import pathlib
from collections.abc import Iterable

from olmix_jax.errors import UserError

# Numbers by domain, and by task, that a proposal may hold; where one is not known, null.
BY_DOMAIN = "repeats shadow_prices repeat_prices weights_std weights_low weights_high lower anchor caps".split()
BY_TASK = ("task_weights", "predicted_low", "predicted_high")
NUMBERS = "objective objective_natural kl kl_weight max_repeats target_tokens".split()


@dataclasses.dataclass(frozen=True)
class Field:
    """A value of a file, and its name there, as ``path.weights``."""

    file: pathlib.Path
    name: str
    value: object

    def fail(self, must: str):
        shown = "null" if self.value is None else type(self.value).__name__
        shown = str(self.value) if isinstance(self.value, (bool, int, float)) else shown
        raise UserError(
            f"{self.file}: {self.name} must be {must}, not {shown}; delete the file and run --stages=propose again"
        )

    def at(self, key) -> "Field":
        """The field of an object, or null."""
        if not isinstance(self.value, dict):
            self.fail("an object")
        return Field(self.file, f"{self.name}.{key}" if self.name else str(key), self.value.get(key))

    def has(self, key: str) -> bool:
        return self.at(key).value is not None

    def items(self, length: int | None = None, what: str = "entries") -> list["Field"]:
        """The entries of a list."""
        if not isinstance(self.value, list) or (length is not None and len(self.value) != length):
            self.fail("a list" if length is None else f"a list of {length} {what}")
        return [Field(self.file, f"{self.name}[{i}]", v) for i, v in enumerate(self.value)]

    def number(self, *, null: bool = False, positive: bool = False) -> None:
        if null and self.value is None:
            return
        numeric = isinstance(self.value, (int, float)) and not isinstance(self.value, bool)
        if not numeric or not math.isfinite(self.value) or (positive and self.value <= 0):
            self.fail("a positive number" if positive else "a finite number")

    def numbers(self, names: Iterable[str] | None = None, *, null: bool = False) -> None:
        """An object of numbers that has all of ``names``."""
        if not isinstance(self.value, dict):
            self.fail("an object")
        missing = [n for n in names or () if n not in self.value]
        if missing:
            self.fail(f"a number for each name, {missing[0]!r} too")
        for key in self.value:
            self.at(key).number(null=null)

    def texts(self) -> list[str]:
        """A list of names."""
        for entry in self.items():
            if not isinstance(entry.value, str):
                entry.fail("text")
        return self.value

    def text(self) -> None:
        if not isinstance(self.value, str):
            self.fail("text")

    def boolean(self) -> None:
        if not isinstance(self.value, bool):
            self.fail("true or false")


def proposal(file: pathlib.Path, content: dict) -> None:
    """Checks all that the page reads of a proposal; what is not there, or null, is not checked.

    Raises:
      UserError: a field is not what it should be; the message has the file and the field.
    """
    root = Field(file, "", content)
    root.at("weights").numbers()
    root.at("natural").numbers(content["weights"])
    root.at("predicted").numbers()
    root.at("predicted_natural").numbers(content["predicted"])
    for name in (*BY_DOMAIN, *BY_TASK):
        if name == "caps" or root.has(name):
            root.at(name).numbers(null=True)
    for name in NUMBERS:
        root.at(name).number(null=True)
    for name in ("worse_tasks", "warnings"):
        if root.has(name):
            root.at(name).texts()
    if root.has("gain"):
        root.at("gain").numbers(null=True)
    if root.has("worst"):
        root.at("worst").boolean()
    for name, check in (
        *(("groups", _groups), ("guard", _guard), ("tail", _tail), ("path", _path)),
        *(("choice", _choice), ("pareto", _pareto), ("counts", _counts), ("handover", _handover)),
    ):
        # An empty object is what a stage leaves that had nothing to say.
        if content.get(name) not in (None, {}, []):
            check(root.at(name), content["weights"])


def _groups(field: Field, _) -> None:
    for group in field.items():
        group.at("name").text()
        group.at("domains").texts()
        for key in ("low", "high", "multiplier"):
            group.at(key).number(null=True)
        group.at("weight").number()


def _guard(field: Field, _) -> None:
    field.at("slack").number()
    field.at("worst").number(null=True)
    for key in ("names", "binding"):
        field.at(key).texts()
    if field.has("by"):
        field.at("by").text()
    if field.has("multipliers"):
        field.at("multipliers").numbers(null=True)


def _tail(field: Field, _) -> None:
    for key in ("share", "value"):
        field.at(key).number()
    for key in ("natural", "samples"):
        field.at(key).number(null=True)


def _path(field: Field, weights: dict) -> None:
    rows = field.at("kl_weight").items()
    for entry in rows:
        entry.number()
    columns = field.at("max_repeats").items()
    for entry in columns:
        if entry.value is not None or len(columns) > 1:
            entry.number(positive=True)
    for key in ("weights", "predicted"):
        for row in field.at(key).items(len(rows), "rows, one per λ"):
            for cell in row.items(len(columns), "entries, one per k"):
                _cell(cell, len(weights) if key == "weights" else None)
    field.at("predicted_natural").number(null=True)
    if field.has("chosen"):
        field.at("chosen").numbers(null=True)


def _cell(cell: Field, domains: int | None) -> None:
    if cell.value is None:
        return
    if domains is None:
        cell.number()
        return
    for weight in cell.items(domains, "weights, one per domain"):
        weight.number()


def _choice(field: Field, _) -> None:
    lambdas = field.at("kl_weight").items()
    for entry in lambdas:
        entry.number()
    for entry in field.at("gain").items(len(lambdas), "entries, one per λ"):
        entry.number()
    if field.has("gain_error"):
        for entry in field.at("gain_error").items(len(lambdas), "entries, one per λ"):
            entry.number(null=True)
    field.at("best").number()
    field.at("splits").number(null=True)
    if field.has("used"):
        field.at("used").boolean()


def _pareto(field: Field, _) -> None:
    families = field.at("families").texts()
    for point in field.at("points").items():
        point.at("predicted").numbers(families)
        point.at("family_weights").numbers(families)
    for key in ("natural", "proposed"):
        field.at(key).numbers(families)


def _counts(field: Field, weights: dict) -> None:
    if not field.has("sequences") and not field.has("tokens"):
        field.fail("an object with sequences or tokens")
    field.at("sequences" if field.has("sequences") else "tokens").numbers(weights)
    for key in ("length", "total"):
        field.at(key).number(null=True, positive=True)


def _handover(field: Field, _) -> None:
    for name in field.value if isinstance(field.value, dict) else field.fail("an object"):
        field.at(name).at("file").text()
        field.at(name).at("largest_error").number()
        if field.at(name).has("realised"):
            field.at(name).at("realised").numbers()

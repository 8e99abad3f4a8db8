"""Whether a proposal, or the plan of an update, is what the page can show: a field that is not is an error by name."""

import dataclasses
import math
import pathlib
from collections.abc import Iterable

from olmix_jax.update import changes, changes_file
from olmix_jax.utils.errors import UserError

# Numbers by domain, and by task, that a proposal may hold; where one is not known, null.
BY_DOMAIN = "repeats shadow_prices repeat_prices weights_std weights_low weights_high lower anchor caps".split()
BY_TASK = ("task_weights", "predicted_low", "predicted_high")
NUMBERS = "objective objective_natural kl kl_weight max_repeats target_tokens".split()
# A mean and the ends of its interval.
SPREAD = ("mean", "low", "high")


@dataclasses.dataclass(frozen=True)
class Field:
    """A value of a file, and its name there, as ``path.weights``."""

    file: pathlib.Path
    name: str
    value: object
    # The stage that writes the file.
    stage: str = "propose"

    def fail(self, must: str):
        shown = "null" if self.value is None else type(self.value).__name__
        shown = str(self.value) if isinstance(self.value, (bool, int, float)) else shown
        raise UserError(
            f"{self.file}: {self.name} must be {must}, not {shown}; delete the file and run --stages={self.stage} again"
        )

    def at(self, key) -> "Field":
        """The field of an object, or null."""
        if not isinstance(self.value, dict):
            self.fail("an object")
        return self._inside(f"{self.name}.{key}" if self.name else str(key), self.value.get(key))

    def has(self, key: str) -> bool:
        return self.at(key).value is not None

    def items(self, length: int | None = None, what: str = "entries") -> list["Field"]:
        """The entries of a list."""
        if not isinstance(self.value, list) or (length is not None and len(self.value) != length):
            self.fail("a list" if length is None else f"a list of {length} {what}")
        return [self._inside(f"{self.name}[{i}]", v) for i, v in enumerate(self.value)]

    def _inside(self, name: str, value) -> "Field":
        return dataclasses.replace(self, name=name, value=value)

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
    for name in ("worse_tasks", "warnings", "explored_without"):
        if root.has(name):
            root.at(name).texts()
    for name in content.get("capped_by") or ():
        if root.at("capped_by").has(name):
            root.at("capped_by").at(name).text()
    if root.has("no_weight_intervals"):
        root.at("no_weight_intervals").text()
    if root.has("gain"):
        root.at("gain").numbers(null=True)
    if root.has("worst"):
        root.at("worst").boolean()
    for name, check in (
        *(("groups", _groups), ("guard", _guard), ("tail", _tail), ("path", _path)),
        *(("choice", _choice), ("pareto", _pareto), ("counts", _counts), ("handover", _handover), ("reuse", _reuse)),
    ):
        # An empty object is what a stage leaves that had nothing to say.
        if content.get(name) not in (None, {}, []):
            check(root.at(name), content["weights"])


def plan(file: pathlib.Path, content: dict) -> None:
    """Checks all that the page reads of an update's plan; candidates and old runs may be missing.

    Raises:
      UserError: a field is not what it should be; the message has the file and the field.
    """
    root = Field(file, "", content, "update")
    for name in ("strategy", "parent", "why"):
        root.at(name).text()
    for name in ("proxies", "proxies_full"):
        root.at(name).number()
    old, new = (root.at(name).texts() for name in ("old", "new"))
    root.at("predicted_loss").numbers(SPREAD)
    root.at("predicted_gain").numbers(("gain", "low", "high"))
    _known(root.at("recomputed"), root.at("recomputed").texts(), new)
    blocks = root.at("kept")
    for name in blocks.value if isinstance(blocks.value, dict) else blocks.fail("an object"):
        blocks.at(name).numbers()
        _known(blocks.at(name), blocks.at(name).value, new)
        for domain in blocks.at(name).value:
            blocks.at(name).at(domain).number(positive=True)
    for row in root.at("old_runs").items() if root.has("old_runs") else ():
        row.numbers(("age", "runs"))
    for row in root.at("candidates").items() if root.has("candidates") else ():
        row.at("recomputed").texts()
        row.at("proxies").number()
        row.at("loss").numbers(SPREAD)
    history = root.at("history").items()
    for row in history or root.at("history").fail("a list of one entry or more"):
        _past(row)
    history[-1].at("weights").numbers(old)
    steps = _steps(root.at("updates"))
    try:
        changes.change(old, steps).ordered(new)
    except UserError as e:
        raise UserError(f"{file}: {e}; delete the file and run --stages=update again") from e


def _known(field: Field, names: Iterable[str], new: list[str]) -> None:
    unknown = [name for name in names if name not in new]
    if unknown:
        field.fail(f"of domains that `new` has, and {unknown[0]!r} is none")


def _steps(field: Field) -> list[changes.Update]:
    found = []
    for row in field.items():
        try:
            found += changes_file.step(row.name, row.value)
        except UserError as e:
            raise UserError(f"{row.file}: {e}; delete the file and run --stages=update again") from e
    return found


def _past(row: Field) -> None:
    row.at("strategy").text()
    row.at("validated").boolean()
    for name in ("proxies", "proxies_full", "natural", "proposed"):
        row.at(name).number(positive=name == "natural")
    row.at("weights").numbers()
    _steps(row.at("updates"))


def informed(file: pathlib.Path, fit: dict) -> None:
    """Checks what a fit says of old runs; nothing where it says nothing.

    Raises:
      UserError: a field is not what it should be; the message has the file and the field.
    """
    root = Field(file, "", fit, "fit")
    root.at("trust").number(null=True)
    if root.has("over"):
        root.at("over").text()


def _reuse(field: Field, weights: dict) -> None:
    field.at("loss").number(null=True)
    if field.has("free"):
        field.at("free").numbers(weights)


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

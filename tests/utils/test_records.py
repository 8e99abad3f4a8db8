"""Records survive a round trip through JSON. A file that does not fit is an error that names the field."""

import dataclasses
import enum
import json
from typing import Any

import pytest

from olmix_jax.utils import records
from olmix_jax.utils.errors import UserError


class Colour(enum.Enum):
    RED = "red"
    DARK_BLUE = "dark blue"


@dataclasses.dataclass(frozen=True)
class Point:
    x: float
    label: str | None = None


@dataclasses.dataclass(frozen=True)
class Drawing:
    SCHEMA = 2

    name: str
    count: int
    closed: bool
    colour: Colour
    points: tuple[Point, ...]
    weights: dict[str, float]
    centre: Point | None = None
    tags: tuple[str, ...] = ()
    notes: dict[str, Any] = dataclasses.field(default_factory=dict)

    def check(self):
        if self.count < 0:
            raise ValueError(f"count must not be negative, not {self.count}")


SMALL = Drawing("house", 3, True, Colour.RED, (Point(1.0), Point(0.1, "door")), {"web": 0.25, "code": 0.75})
FULL = dataclasses.replace(SMALL, centre=Point(0.5), tags=("a", "b"), notes={"free": [1, None]})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "drawing.json"


@pytest.mark.parametrize("record", [SMALL, FULL])
def test_round_trip_returns_an_equal_record(path, record):
    records.write(path, record)
    assert records.read(path, Drawing, "draw") == record


def test_written_file_has_the_schema_and_leaves_out_defaults(path):
    records.write(path, SMALL)
    assert json.loads(path.read_text()) == {
        "schema": 2,
        "name": "house",
        "count": 3,
        "closed": True,
        "colour": "red",
        "points": [{"x": 1.0}, {"x": 0.1, "label": "door"}],
        "weights": {"web": 0.25, "code": 0.75},
    }


def test_schema_defaults_to_one_for_class_and_file(path):
    records.write(path, Point(1.0))
    assert json.loads(path.read_text()) == {"schema": 1, "x": 1.0}
    path.write_text('{"x": 1.0}')
    assert records.read(path, Point, "draw") == Point(1.0)


def test_unknown_keys_are_ignored_and_whole_numbers_become_floats(path):
    path.write_text('{"x": 1, "comment": "by hand"}')
    point = records.read(path, Point, "draw")
    assert point == Point(1.0) and isinstance(point.x, float)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_write_refuses_a_number_that_is_not_finite(path, value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        records.write(path, Point(value))
    assert not path.exists()


def change(content: dict, field: str, value: Any) -> None:
    """Set the field at the path ``field``, as ``points.1.x``."""
    *parents, last = (int(key) if key.isdigit() else key for key in field.split("."))
    for key in parents:
        content = content[key]
    content[last] = value


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", 3, "name must be text, not 3"),
        ("name", None, "name must be text, not null"),
        ("count", 1.5, "count must be a whole number, not 1.5"),
        ("count", True, "count must be a whole number, not True"),
        ("closed", 1, "closed must be true or false, not 1"),
        ("colour", "green", "colour must be one of red, dark blue, not text"),
        ("points", {}, "points must be a list, not an object"),
        ("points", "ab", "points must be a list, not text"),
        ("points.1", 4, r"points\[1\] must be an object, not 4"),
        ("points.1.x", "1", r"points\[1\]\.x must be a finite number, not text"),
        ("points.1.x", True, r"points\[1\]\.x must be a finite number, not True"),
        ("points.0.label", 7, r"points\[0\]\.label must be text, not 7"),
        ("weights", [], "weights must be an object, not a list"),
        ("weights.web", None, r"weights\.web must be a finite number, not null"),
        ("centre", "here", "centre must be an object, not text"),
        ("count", -1, "count must not be negative, not -1"),
    ],
)
def test_field_of_wrong_type_or_value_is_named(path, field, value, message):
    records.write(path, FULL)
    content = json.loads(path.read_text())
    change(content, field, value)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"drawing\.json: {message}; delete the file and rerun --stages=draw"):
        records.read(path, Drawing, "draw")


def test_number_that_is_not_finite_is_an_error(path):
    records.write(path, FULL)
    content = json.loads(path.read_text())
    change(content, "weights.web", float("inf"))
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"drawing\.json: Infinity is not a finite number"):
        records.read(path, Drawing, "draw")
    with pytest.raises(ValueError, match=r"weights\.web must be a finite number, not inf"):
        records.from_plain(Drawing, content)


def test_unknown_fields_are_named_in_a_warning(path, caplog):
    records.write(path, FULL)
    content = json.loads(path.read_text())
    content["wieghts"], content["points"][1]["z"] = {}, 3
    path.write_text(json.dumps(content))
    assert records.read(path, Drawing, "draw") == FULL
    assert "drawing.json: unknown fields are ignored: points[1].z, wieghts" in caplog.text


@pytest.mark.parametrize("field", ["name", "count", "closed", "colour", "points", "weights"])
def test_missing_field_is_named(path, field):
    records.write(path, FULL)
    content = json.loads(path.read_text())
    del content[field]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"drawing\.json: {field} is missing; .*--stages=draw"):
        records.read(path, Drawing, "draw")


def test_missing_field_of_an_inner_record_is_named_by_its_path(path):
    records.write(path, FULL)
    content = json.loads(path.read_text())
    del content["points"][1]["x"]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"points\[1\]\.x is missing"):
        records.read(path, Drawing, "draw")


@pytest.mark.parametrize("schema", [1, 3, "2"])
def test_other_schema_is_named_with_the_expected_one(path, schema):
    records.write(path, FULL)
    content = json.loads(path.read_text()) | {"schema": schema}
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"drawing.json: has schema {schema!r}, but this version .* reads 2; .*draw"):
        records.read(path, Drawing, "draw")


def test_missing_file_and_broken_json_are_named(path):
    with pytest.raises(UserError, match="drawing.json: no such file"):
        records.read(path, Drawing, "draw")
    path.write_text('{"name"')
    with pytest.raises(UserError, match="drawing.json: not valid JSON"):
        records.read(path, Drawing, "draw")
    path.write_text("[]")
    with pytest.raises(UserError, match="drawing.json: must be a JSON object, not list"):
        records.read(path, Drawing, "draw")


def test_plain_and_from_plain_are_inverse():
    assert records.from_plain(Drawing, records.plain(FULL)) == FULL
    with pytest.raises(ValueError, match="the content must be an object, not 3"):
        records.from_plain(Drawing, 3)

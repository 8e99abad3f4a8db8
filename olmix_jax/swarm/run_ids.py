"""Which columns identify the runs of two tables, and how their ids are compared."""

import re

from olmix_jax.swarm import bookkeeping
from olmix_jax.swarm.bookkeeping import CALLED, KEYS
from olmix_jax.swarm.csv_lines import Lines
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.names import listed, normal, shown

# How messages describe the columns that are accepted.
ACCEPTED = "`run` (or `run_id`, `id`), `name` or `index`"


def labelled(content: Lines) -> list[str]:
    """Return the header with the columns of ids renamed to KEYS, each at most once.

    ``id`` is ``run`` if there is no run and no name, unless it has fractions: weights or scores of Indonesian. A first
    column without a name is ``index`` if the table has no other id. An ``index`` of names, not numbers, is ``run``.
    Without any such column, a first column of different texts is ``run``.
    """
    header = list(content.header)
    for key in KEYS:
        found = [at for name in CALLED[key] for at, c in enumerate(header) if c == name]
        found += [at for name in CALLED[key] for at, c in enumerate(header) if c.casefold() == name]
        if found:
            header[found[0]] = key
    if not {"run", "name"} & set(header):
        header = [
            "run" if c.casefold() == "id" and not bookkeeping.has_fractions(content.column(at)) else c
            for at, c in enumerate(header)
        ]
    first = content.column(0)
    unnamed = bookkeeping.is_row_number(content.header[0])
    if unnamed:
        plain = re.fullmatch(r"(Unnamed: \d+)?", header[0])
        header[0] = "index" if not set(KEYS) & set(header) else "" if plain else header[0]
    elif not set(KEYS) & set(header) and bookkeeping.is_text(first) and len(set(first)) == len(first):
        header[0] = "run"
    if "index" in header and "run" not in header:
        cells = content.column(header.index("index"))
        if bookkeeping.is_text(cells):
            header[header.index("index")] = "run"
    return header


def ids(content: Lines, at: int) -> list[str]:
    """Return the ids in a column, in normal form. Whole numbers as pandas writes floats (``1.0``) become ``1``."""
    cells = [normal(cell) for cell in content.column(at)]
    if all(re.fullmatch(r"\d+(\.0+)?", cell) for cell in cells):
        return [cell.partition(".")[0] for cell in cells]
    return cells


def only(content: Lines) -> str:
    """Return the key column of a single table.

    Raises:
      UserError: no column identifies the runs.
    """
    found = [key for key in KEYS if key in labelled(content)]
    if not found:
        raise UserError(_no_ids(content))
    return found[0]


def choose(one: Lines, other: Lines) -> tuple[str, str]:
    """Return the key columns by which two tables are joined.

    ``run`` if both have it; else the two columns of ``run`` and ``name`` that share most ids; else ``index``.

    Raises:
      UserError: a table has no id, is transposed, or the tables share no id.
    """
    labels = labelled(one), labelled(other)
    texts = [(a, b) for a, b in (("run", "run"), ("name", "name"), ("run", "name"), ("name", "run"))]
    texts = [pair for pair in texts if pair[0] in labels[0] and pair[1] in labels[1]]
    common = {pair: _common(one, labels[0], pair[0], other, labels[1], pair[1]) for pair in texts}
    if ("run", "run") in common:
        if not common["run", "run"]:
            _refuse_transposed(one, labels[0], other, labels[1])
        return "run", "run"
    if common and max(common.values()) > 0:
        return max(common, key=lambda pair: common[pair])
    if "index" in labels[0] and "index" in labels[1]:
        if _common(one, labels[0], "index", other, labels[1], "index"):
            return "index", "index"
    _refuse_transposed(one, labels[0], other, labels[1])
    for content, label in ((one, labels[0]), (other, labels[1])):
        if not set(KEYS) & set(label):
            raise UserError(_no_ids(content))
    for key in KEYS:
        if key in labels[0] and key in labels[1]:
            return key, key
    mine, their = (next(key for key in KEYS if key in label) for label in labels)
    at_fault, right = (one, other) if mine == "index" else (other, one)
    raise UserError(
        f"{at_fault.path}: line 1: no column to join by: its rows are only numbered, and those of {right.path} have "
        f"{their if at_fault is one else mine}; add that column to {at_fault.path}"
    )


def _common(one: Lines, label: list[str], key: str, other: Lines, other_label: list[str], other_key: str) -> int:
    """Return the number of ids that two columns share; 0 if a column repeats an id, so that it identifies no run."""
    mine, their = ids(one, label.index(key)), ids(other, other_label.index(other_key))
    if key != "run" and len(set(mine)) < len(mine) or other_key != "run" and len(set(their)) < len(their):
        return 0
    return len((set(mine) & set(their)) - {"", "nan"})


def _no_ids(content: Lines) -> str:
    return (
        f"{content.path}: line 1: no column to join by: it needs a column {ACCEPTED} with the ids of the runs; the "
        f"header is {', '.join(content.header)[:80]}"
    )


def _refuse_transposed(one: Lines, label: list[str], other: Lines, other_label: list[str]) -> None:
    """Raise a UserError if the columns of a table are the runs of the other, or the two tables share their columns."""
    for table, right, keys in ((one, other, other_label), (other, one, label)):
        for at in [0, *(keys.index(key) for key in KEYS if key in keys)]:
            runs = set(ids(right, at))
            named = {normal(c) for c in table.header[1:]} & runs
            if len(named) >= max(2, len(runs) / 2):
                raise UserError(
                    f"{table.path}: line 1: the table is transposed: its columns are runs of {right.path} "
                    f"({listed(sorted(named), 4)}); write one row per run (in pandas: df.T)"
                )
    shared = set(one.header[1:]) & set(other.header[1:]) - set(KEYS)
    if len(shared) >= max(2, (len(one.header) - 1) / 2):
        raise UserError(
            f"{one.path} and {other.path}: both tables are transposed: they share the columns "
            f"{listed(sorted(shared), 4)}; write one row per run and one column per domain or task (in pandas: df.T)"
        )


def refuse_alike(
    one: str, other: str, alone: list[str], other_alone: list[str], ids: list[str], other_ids: list[str]
) -> None:
    """Raise a UserError if runs that only one table has are written differently, or counted from another number.

    Args:
      one, other: names of the tables.
      alone, other_alone: the runs that only this table has.
      ids, other_ids: all runs of the tables.
    """
    alike = {_plain(run): run for run in alone}
    pairs = [(alike[_plain(run)], run) for run in other_alone if _plain(run) in alike]
    if pairs:
        raise UserError(
            f"{one} has the run {shown(pairs[0][0])}, and {other} has {shown(pairs[0][1])}, which may be the same "
            f"({len(pairs)} such pairs); write run ids alike in both"
        )
    if alone and len(ids) == len(other_ids) and all(run.isdecimal() for run in ids + other_ids):
        shift = {int(b) - int(a) for a, b in zip(sorted(ids, key=int), sorted(other_ids, key=int))}
        if len(shift) == 1:
            raise UserError(
                f"{one} has runs {min(ids, key=int)} to {max(ids, key=int)}, and {other} has {min(other_ids, key=int)} "
                f"to {max(other_ids, key=int)}: they may be counted from another number; write run ids alike in both"
            )


def _plain(run: str) -> str:
    """Return an id without case, separators, leading zeros and a decimal ``.0``."""
    text = re.sub(r"\.0+$", "", run.casefold())
    return re.sub(r"(?<!\d)0+(?=\d)", "", re.sub(r"[\s_.-]+", "", text))

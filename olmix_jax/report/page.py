"""Entry points of the report: the page as one HTML file, and the summary for the terminal."""

import csv
import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Iterator

import jinja2
from markupsafe import Markup

from olmix_jax.report import (
    caveats,
    fact_tables,
    law_sections,
    proposal_sections,
    rounds_sections,
    sentences,
    settings_sections,
    tables,
    training_sections,
    update_sections,
)
from olmix_jax.report.elements import FigureWriter, MakeFigure, Section, Table
from olmix_jax.report.formatting import capitalised
from olmix_jax.report.results import Results, read
from olmix_jax.utils import files
from olmix_jax.utils.optional import reason_of
from olmix_jax.utils.progress import log

# Most rows of a table on the page.
MAX_TABLE = 200


def build(workdir: str | pathlib.Path) -> pathlib.Path:
    """Write ``report/index.html`` and return its path.

    The page contains all figures; each is also written as a PNG beside it. A section whose data are missing has a note
    that names the stage to run.

    Raises:
      UserError: the workdir has no results, a file in it is damaged, or the report cannot be written.
    """
    results = read(workdir)
    folder = results.workdir / "report"
    # Files of an earlier page.
    for path in (*folder.glob("*.png"), *folder.glob("*.csv")):
        path.unlink()
    files.write_text(folder / "index.html", html(results, FigureWriter(folder), folder))
    return folder / "index.html"


def summary(workdir: str | pathlib.Path) -> list[str]:
    """Return the result as lines of text: BPB of the proposal, binding caps, the law, and the last round and update.

    Raises:
      UserError: the workdir has no results, or a file in it is damaged.
    """
    results = read(workdir)
    banner = f"{sentences.WORST} " if results.worst else ""
    lines = [banner + sentences.bpb_line(results), sentences.caps_line(results), sentences.law_line(results)]
    if results.rounds:
        lines.append(f"round {len(results.rounds)}: {results.rounds[-1].outcome}")
    return lines if results.update is None else [*lines, update_sections.update_line(results.update)]


def html(results: Results, make_figure: MakeFigure, folder: pathlib.Path | None = None) -> str:
    """Return the page as HTML, with figures made by ``make_figure``. Long tables are written to ``folder`` as CSV."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja").render(
        lead=_lead(results),
        cards=sentences.cards(results),
        warnings=caveats.warnings(results),
        sections=[_shortened(section, folder) for section in _sections(results, make_figure)],
    )


def _shortened(section: Section, folder: pathlib.Path | None) -> Section:
    """Return the section with at most :data:`MAX_TABLE` rows per table, and write longer tables to CSV files."""
    return dataclasses.replace(section, tables=tuple(_short_table(table, folder) for table in section.tables))


def _short_table(table: Table, folder: pathlib.Path | None) -> Table:
    total = len(table.rows)
    if not table.name or total <= MAX_TABLE:
        return table
    if folder is not None:
        with files.atomic_write(folder / f"{table.name}.csv") as f:
            csv.writer(f).writerows([table.head, *(row.cells for row in table.rows)])
    caption = f"{table.caption} The first {MAX_TABLE} of {total} rows; all are in {table.name}.csv beside this page."
    return dataclasses.replace(table, rows=table.rows[:MAX_TABLE], caption=caption)


def _lead(results: Results) -> str:
    """Return the first sentences, below a banner if the mixture is the worst one."""
    text = sentences.lead(results)
    if results.update is not None:
        text = f"{text} {capitalised(update_sections.update_line(results.update))}."
    if not results.worst:
        return text
    style = "display:block;background:#b5382f;color:#fff;font-size:1.3rem;padding:14px 16px;margin:0 0 .6em"
    return Markup('<strong role="alert" style="{}">{}</strong>{}').format(style, sentences.WORST, text)


def _sections(results: Results, make_figure: MakeFigure) -> Iterator[Section]:
    """Yield all sections. A part that fails is replaced by a note with the reason."""
    for title, part in PARTS.items():
        try:
            sections = list(part(results, make_figure))
        except Exception as e:  # the other parts of the page do not depend on this one
            log.warning("report: the part %s is left out: %s", title, reason_of(e))
            sections = [Section(title, note=f"This part is left out: {reason_of(e)}.")]
        yield from sections


def _all_tasks(results: Results) -> list[Section]:
    if results.fit is None and results.validation is None:
        return []
    return [Section("All tasks", tables=(tables.task_table(results),))]


# {title of a note if the part fails: what makes its sections}, in the order of the page.
PARTS: dict[str, Callable[[Results, MakeFigure], Iterable[Section]]] = {
    "Natural and proposed mixture": lambda results, draw: [proposal_sections.mixture_section(results, draw)],
    "Validation": lambda results, draw: [training_sections.validation_section(results, draw)],
    "Rounds": rounds_sections.sections,
    "Update": update_sections.sections,
    "Proposal": proposal_sections.sections,
    "Settings": settings_sections.sections,
    "Files for trainers": lambda results, draw: proposal_sections.export_section(results),
    "Law": law_sections.sections,
    "Training curves of the swarm": lambda results, draw: [training_sections.swarm_section(results, draw)],
    "All tasks": lambda results, draw: _all_tasks(results),
    "Facts about the run": lambda results, draw: [
        Section("Facts about the run", tables=fact_tables.fact_tables(results))
    ],
}

"""Entry points of the report: the page as one HTML file, and the summary for the terminal."""

import pathlib
from collections.abc import Iterator

import jinja2
from markupsafe import Markup

from olmix_jax.report import (
    caveats,
    fact_tables,
    law_sections,
    proposal_sections,
    sentences,
    settings_sections,
    tables,
    training_sections,
    update_sections,
)
from olmix_jax.report.elements import FigureWriter, MakeFigure, Section
from olmix_jax.report.formatting import capitalised
from olmix_jax.report.results import Results, read
from olmix_jax.utils import files


def build(workdir: str | pathlib.Path) -> pathlib.Path:
    """Write ``report/index.html`` and return its path.

    The page contains all figures; each is also written as a PNG beside it. A section whose data are missing has a note
    that names the stage to run.

    Raises:
      UserError: the workdir has no results, a file in it is damaged, or the report cannot be written.
    """
    results = read(workdir)
    folder = results.workdir / "report"
    files.write_text(folder / "index.html", html(results, FigureWriter(folder)))
    return folder / "index.html"


def summary(workdir: str | pathlib.Path) -> list[str]:
    """Return the result as lines of text: BPB of the proposal, binding caps, quality of the law, and the update if any.

    Raises:
      UserError: the workdir has no results, or a file in it is damaged.
    """
    results = read(workdir)
    banner = f"{sentences.WORST} " if results.worst else ""
    lines = [banner + sentences.bpb_line(results), sentences.caps_line(results), sentences.law_line(results)]
    return lines if results.update is None else [*lines, update_sections.update_line(results.update)]


def html(results: Results, make_figure: MakeFigure) -> str:
    """Return the page as HTML, with figures made by ``make_figure``."""
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
        sections=list(_sections(results, make_figure)),
    )


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
    yield proposal_sections.mixture_section(results, make_figure)
    yield training_sections.validation_section(results, make_figure)
    yield from update_sections.sections(results, make_figure)
    yield from proposal_sections.sections(results, make_figure)
    yield from settings_sections.sections(results, make_figure)
    yield from proposal_sections.export_section(results)
    yield from law_sections.sections(results, make_figure)
    yield training_sections.swarm_section(results, make_figure)
    if results.fit is not None or results.validation is not None:
        yield Section("All tasks", tables=(tables.task_table(results),))
    yield Section("Facts about the run", tables=fact_tables.fact_tables(results))

"""The section about rounds: the gain that each proposal promised beside the gain that its runs measured."""

from collections.abc import Iterator, Sequence
from functools import partial

from olmix_jax.report import rounds_plot
from olmix_jax.report.elements import MakeFigure, Row, Section, Table
from olmix_jax.report.formatting import number, quantity
from olmix_jax.report.results import Results
from olmix_jax.swarm.rounds import Round, Verdict


def sections(results: Results, make_figure: MakeFigure) -> Iterator[Section]:
    """Yield the section, if there were rounds."""
    rounds = results.rounds
    if not rounds:
        return
    caption = (
        "Gain of each proposal over natural in BPB, as the law promised it before the round and as the round’s runs "
        "measured it. The law was fitted again with these runs before the next proposal."
    )
    alt = "Points: promised and measured gain over natural in bits per byte, by round."
    figure = make_figure(partial(rounds_plot.gains, rounds), "rounds", alt, caption)
    yield Section("Rounds: promise and measurement", (figure,), (round_table(rounds),))


def round_table(rounds: Sequence[Round]) -> Table:
    """Return promise, measurement, runs and tokens by round."""
    rows = []
    for i, each in enumerate(rounds, start=1):
        error = "" if each.error is None else f" ± {number(each.error)}"
        interval = "–" if each.low is None else f"{number(each.low, '+.4f')} to {number(each.high, '+.4f')}"
        measured = number(each.measured, "+.4f") + (error if each.measured is not None else "")
        promised, verdict = number(each.promised, "+.4f"), each.verdict
        cells = (str(each.runs), quantity(each.tokens), promised, interval, measured, verdict.value)
        rows.append(Row((str(i), *cells), verdict is Verdict.DISAGREE))
    head = ("round", "runs", "tokens", "promised gain", "5–95 %", "measured gain ± error", "promise and measurement")
    caption = (
        "Promised and measured gain over natural in BPB, with the proposal’s weights of the tasks, for models of the "
        "proxies’ size and training length. Error: one standard error, from the deviation of held-out runs from the "
        "law. From the second round on, the law was fitted to the run of natural. The measurement is "
        "compatible with the promise if it is within the promised interval, widened by 1.645 errors in quadrature. The "
        "error is too large to tell a gain from none if the widened interval holds 0, or the measured gain is within "
        "one error of 0. Shaded: they disagree."
    )
    return Table(caption, head, tuple(rows), name="rounds")

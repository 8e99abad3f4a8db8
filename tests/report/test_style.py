"""Labels that fit, and rendering at two widths."""

from matplotlib.figure import Figure

from olmix_jax.report import style
from olmix_jax.report.elements import Picture


def test_label_fits_and_can_be_drawn():
    assert style.label("short") == "short"
    long = style.label("head" + "x" * 99 + "tail", 17)
    assert len(long) == 17 and long.startswith("head") and long.endswith("tail")
    assert style.label("領\tb") == "□□b"


def test_labels_stay_distinct():
    assert style.labels(["a_task::olmes", "b_task::olmes"], 30) == ["a_task", "b_task"]
    assert style.labels(["code:python::high", "code:python::low"], 30) == ["code:python::high", "code:python::low"]
    names = [f"minerva_math_number_{i}_of_the_set::olmes" for i in range(30)]
    shown = style.labels(names, 19)
    assert len(set(shown)) == 30 and max(map(len, shown)) <= 19


def test_render_draws_at_both_widths():
    widths = []

    def draw(width):
        widths.append(width)
        return Figure(figsize=(width, 1))

    wide, narrow = (Picture.from_png(png) for png in style.render(draw))
    assert widths == [style.WIDE, style.NARROW]
    assert (wide.width, wide.height) == (864, 96) and narrow.width == round(96 * style.NARROW)

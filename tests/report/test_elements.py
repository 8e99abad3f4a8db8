"""Pictures and figures of the page."""

from matplotlib.figure import Figure

from olmix_jax.report import style
from olmix_jax.report.elements import FigureWriter, Picture


def test_picture_size_is_in_css_pixels(monkeypatch):
    monkeypatch.setattr(style, "DPI", 192)
    png, _ = style.render(lambda width: Figure(figsize=(width, 2)))
    picture = Picture.from_png(png)
    assert (picture.width, picture.height) == (864, 192)
    assert picture.uri.startswith("data:image/png;base64,")


def test_figure_writer_saves_the_wide_png(tmp_path):
    figure = FigureWriter(tmp_path)(lambda width: Figure(figsize=(width, 1)), "name", "alt", "caption", scroll=True)
    assert (tmp_path / "name.png").read_bytes().startswith(b"\x89PNG")
    assert (figure.name, figure.alt, figure.caption, figure.scroll) == ("name", "alt", "caption", True)
    assert figure.wide.width > figure.narrow.width


def test_figure_that_cannot_be_drawn_is_left_out(tmp_path, caplog):
    def fail(width):
        raise ValueError("a defect")

    figure = FigureWriter(tmp_path)(fail, "mixture", "alt", "The caption.")
    assert figure.wide is None and figure.caption.endswith(": a defect. The caption.")
    assert figure.caption.startswith("This figure is left out: ValueError in test_elements.py")
    assert not list(tmp_path.iterdir()) and "the figure mixture is left out" in caplog.text

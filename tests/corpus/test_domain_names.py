"""Names that a later stage cannot use are errors before any text is read."""

import pytest

from olmix_jax.config.schema import Corpus
from olmix_jax.corpus import builtin, domain_names
from olmix_jax.utils.errors import UserError


@pytest.mark.parametrize("names", [("a", "b"), ("source:topic", "日本 語", "café", "x" * 200), builtin.NAMES])
def test_ordinary_names_are_accepted(names):
    domain_names.check(names, "text")


@pytest.mark.parametrize(
    "name, message",
    [
        ("run", r"'run' has the name of a column of ratios.csv \(run, name, index"),
        ("Index", "'Index' has the name of a column"),
        ("run_id", "has the name of a column"),
        (" web", "has spaces at the start or the end"),
        ("web ", "has spaces at the start or the end"),
        ("we\nb", r"domain 'we\\nb' has invisible characters"),
        ("we\u200bb", r"domain 'we\\u200bb' has invisible characters"),
        ("we\xa0b", "has invisible characters"),
        ("gr\udcf6\udcdfe", r"'gr\\xf6\\xdfe' has a name that is not UTF-8"),
        ("x" * 201, "has a name of more than 200 bytes"),
        ("日" * 70, "has a name of more than 200 bytes"),
        ("B", r"'b' and 'B' differ only in case"),
        ("b\uff01", ""),
    ],
)
def test_name_that_cannot_be_used_is_an_error(name, message):
    if not message:
        return domain_names.check(("a", "b", name), "text")
    with pytest.raises(UserError, match=f"corpus.path=text: .*{message}.*; rename"):
        domain_names.check(("a", "b", name), "text")


def test_composed_and_decomposed_letters_are_the_same_name():
    with pytest.raises(UserError, match=r"'caf\\xe9' and 'cafe\\u0301' differ only"):
        domain_names.check(("café", "cafe\u0301"), "text")


def test_one_domain_is_an_error_that_names_its_sub_folders(tmp_path):
    (tmp_path / "data" / "web").mkdir(parents=True)
    (tmp_path / "data" / "web" / "a.txt").write_text("x")
    names = domain_names.list_names(Corpus(path=str(tmp_path)))
    with pytest.raises(
        UserError, match=rf"one domain, data, .* sub-folders \(web\) .* set corpus.path={tmp_path}/data"
    ):
        domain_names.check(names, str(tmp_path))
    with pytest.raises(UserError, match="one domain, web, .*; add a sub-folder or a file"):
        domain_names.check(("web",), str(tmp_path))


def test_names_are_those_of_folders_and_files(tmp_path):
    assert domain_names.list_names(Corpus()) == builtin.NAMES
    (tmp_path / "web").mkdir()
    for name in ("web/a.txt", "code.jsonl.gz"):
        (tmp_path / name).write_text("x")
    assert domain_names.list_names(Corpus(path=str(tmp_path))) == ("code", "web")

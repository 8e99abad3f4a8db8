"""Names that a later stage cannot use are errors before any text is read."""

import pytest

from olmix_jax.config.schema import Corpus
from olmix_jax.corpus import builtin, domain_names
from olmix_jax.utils.errors import UserError


@pytest.mark.parametrize("names", [("a", "b"), ("source:topic", "日本 語", "café", "x" * 200), builtin.NAMES])
def test_ordinary_names_are_accepted(names):
    domain_names.check(names, "text")


@pytest.mark.parametrize("name", ["id", "no", "rn", "step", "time", "run_id", "_web", "NaN", "t1.1", "en_se"])
def test_codes_of_languages_and_ordinary_words_are_accepted(name):
    domain_names.check(("web", name), "text")


@pytest.mark.parametrize(
    "name, message",
    [
        ("run", "domain 'run' has a name that a table takes for another column .its column of runs"),
        ("Index", "domain 'Index' has a name that a table takes for another column"),
        (" web", "has spaces at an end of its name"),
        ("web ", "has spaces at an end of its name"),
        ("we  b", "several in a row"),
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


def test_letters_of_names_are_composed(tmp_path):
    for name in ("code", "cafe\u0301"):
        (tmp_path / f"{name}.txt").write_text("x")
    assert domain_names.list_names(Corpus(path=str(tmp_path))) == ("café", "code")
    (tmp_path / "café").mkdir()
    (tmp_path / "café" / "a.txt").write_text("x")
    with pytest.raises(UserError, match="two domains are called café, with composed and decomposed letters"):
        domain_names.list_names(Corpus(path=str(tmp_path)))


def test_one_domain_is_an_error_that_names_its_sub_folders(tmp_path):
    (tmp_path / "data" / "web").mkdir(parents=True)
    (tmp_path / "data" / "web" / "a.txt").write_text("x")
    with pytest.raises(
        UserError, match=rf"one domain, data, .* sub-folders \(web\) .* set corpus.path={tmp_path}/data"
    ):
        domain_names.list_names(Corpus(path=str(tmp_path)))
    with pytest.raises(UserError, match="one domain, web, .*; add a sub-folder or a file"):
        domain_names.check(("web",), str(tmp_path))


def test_names_are_those_of_folders_and_files(tmp_path):
    assert domain_names.list_names(Corpus()) == builtin.NAMES
    (tmp_path / "web").mkdir()
    for name in ("web/a.txt", "code.jsonl.gz"):
        (tmp_path / name).write_text("x")
    assert domain_names.list_names(Corpus(path=str(tmp_path))) == ("code", "web")


def test_names_of_tasks_that_are_no_scores_are_errors():
    domain_names.check_tasks(("qa", "id"), "tasks")
    for name in ("_runtime", "seed", "qa_stderr", "run"):
        with pytest.raises(
            UserError, match=f"tasks.path=tasks: task '{name}' has a name that a table takes for another .*; rename"
        ):
            domain_names.check_tasks(("qa", name), "tasks")

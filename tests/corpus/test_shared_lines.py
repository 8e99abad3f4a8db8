"""The same text in other documents is detected, and boilerplate is not."""

import json

import pytest

from olmix_jax import config as configs
from olmix_jax.corpus import shared_lines
from olmix_jax.corpus.collect import collect
from olmix_jax.corpus.shared_lines import SharedLines
from olmix_jax.corpus.workers import Workers
from olmix_jax.utils.errors import UserError
from tests.corpus.texts import prose

LINES = [line for seed in range(60) for line in prose(seed).split("\n") if len(line) > 50]
NOTICE = "Copyright of the authors. All rights are reserved by them, everywhere."


@pytest.fixture(params=[1 << 13, 100])
def lines(request, monkeypatch):
    monkeypatch.setattr(shared_lines, "_KEPT", request.param)
    return SharedLines()


def test_text_in_other_documents_of_another_domain_is_an_error(lines):
    lines.add("one", "\n".join(LINES))
    for line in LINES[:900]:
        lines.add("two", f"  {line}\r\n\n{NOTICE}")
    assert lines.share("two", "one") == pytest.approx(1, abs=0.02)
    assert lines.share("one", "two") == pytest.approx(900 / len(LINES), abs=0.15)
    with pytest.raises(UserError, match="domain two repeats domain one: .* in other documents.*; remove two"):
        lines.check({}, {})


def test_part_in_another_domain_is_a_warning_unless_its_documents_were_dropped(lines, caplog):
    lines.add("one", "\n".join(LINES[:700]))
    lines.add("two", "\n".join(LINES[500:]))
    lines.check({}, {("two", "one"): 200 / len(LINES[500:]), ("one", "two"): 200 / 700})
    assert not caplog.text
    lines.check({}, {})
    assert "of its lines are also in one, in other documents, and count in both" in caplog.text


def test_text_twice_in_a_domain_is_a_warning_unless_it_was_dropped(lines, caplog):
    for line in LINES:
        lines.add("web", line)
    lines.add("web", "\n".join(LINES))
    lines.check({"web": 0.5}, {})
    assert not caplog.text
    lines.check({"web": 0.0}, {})
    assert "web: 100 % of its lines are in several of its documents" in caplog.text


def test_notices_and_few_lines_are_no_repeats(lines, caplog):
    for name, part in (("one", LINES[:400]), ("two", LINES[400:800]), ("few", LINES[:20])):
        for line in part:
            lines.add(name, f"{line}\n{NOTICE}\n}}")
    lines.check({}, {})
    assert not caplog.text


def test_text_and_its_conversion_to_json_lines_are_refused(tmp_path):
    (tmp_path / "text").mkdir()
    (tmp_path / "text/a.txt").write_text("\n\n".join(LINES))
    (tmp_path / "text/b.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in LINES))
    config = configs.Config(corpus=configs.Corpus(path=str(tmp_path / "text")))
    with pytest.raises(UserError, match="domain a repeats domain b: 100% of its lines are also in b, in other"):
        collect(config, tmp_path / "scratch", 0, 0.1)


def test_other_processes_give_the_same_lines():
    alone, together = SharedLines(), SharedLines()
    texts = ["\n".join(LINES[n : n + 40]) + f"\n {NOTICE}\r\n" for n in range(0, len(LINES), 30)]
    alone.add("web", *texts, *texts[:3])
    with Workers() as several:
        together.add_texts("web", iter([*texts, *texts[:3]]), several)
    assert together._samples["web"].counts == alone._samples["web"].counts
    assert set(alone._samples["web"].counts.values()) >= {1, 2}

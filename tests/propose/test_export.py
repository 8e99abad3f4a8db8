"""Mixtures for trainers, in all formats; test_trainer_formats.py runs the trainers' own readers."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix_jax.corpus import store
from olmix_jax.propose import export, trainer_formats
from olmix_jax.propose.export import Mixture
from olmix_jax.propose.trainer_formats import FORMATS
from olmix_jax.utils.errors import UserError
from tests.propose.export_cases import capped, drawn, read, realised

# Names that a file system, YAML, JSON, a glob or a shell could take for something else.
ODD = ("code:tests", "web docs", "null", "yes: no", 'a"b', "é/π", "[x]*?", "1e3", "..", "#1", "%3A")


def test_odd_names_and_their_paths_survive_every_format():
    mixture = Mixture({d: j + 1.0 for j, d in enumerate(ODD)} | {"empty": 0.0}, paths="my data/{domain}.bin")
    want = {d: (j + 1) / 66 for j, d in enumerate(ODD)}
    paths = {d: f"my data/{export.file_name(d)}.bin" for d in ODD}
    assert paths["code:tests"] == "my data/code%3Atests.bin" and paths["é/π"] == "my data/é%2Fπ.bin"
    got = read(mixture, "maxtext")
    assert {d: (v["path"], v["weight"]) for d, v in got.items()} == {d: (paths[d], pytest.approx(want[d])) for d in ODD}
    got = {s["source_name"]: s for s in read(mixture, "olmo_core")["sources"]}
    assert {d: s["paths"] for d, s in got.items()} == {d: [paths[d]] for d in ODD}
    assert {d: s["target_ratio"] for d, s in got.items()} == pytest.approx(want)
    got = read(mixture, "levanter")["data"]
    assert got["train_weights"] == pytest.approx(want, abs=1 / 32768)
    assert {d: c["source"]["train_urls"] for d, c in got["components"].items()} == {d: [paths[d]] for d in ODD}
    got = read(mixture, "megatron")["train"]
    assert got[1::2] == list(paths.values()) and [float(w) for w in got[::2]] == pytest.approx(list(want.values()))
    got = read(mixture, "streaming")["streams"]
    assert {d: (s["local"], s["proportion"]) for d, s in got.items()} == {
        d: (paths[d], pytest.approx(want[d])) for d in ODD
    }
    got = read(mixture, "datasets")
    assert got["names"] == list(ODD) and got["paths"] == list(paths.values())
    assert got["probabilities"] == pytest.approx(list(want.values())) and sum(got["probabilities"]) == pytest.approx(1)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=6), min_size=2, max_size=6, unique=True))
def test_file_names_equal_those_of_the_corpus_and_are_unique(names):
    quoted = [export.file_name(name) for name in names]
    assert quoted == [store.file_name(name) for name in names] and len(set(quoted)) == len(quoted)
    assert not any(c in q for q in quoted for c in "/:*?[]\n\\\"'")


@pytest.mark.parametrize("make", [drawn, capped])
@pytest.mark.parametrize("name", FORMATS)
def test_realised_shares_are_close_to_the_weights(name, make):
    for seed in range(5):
        mixture = make(seed, sequence_length=16)
        got = realised(mixture, name)
        assert sum(got.values()) == pytest.approx(1) and list(got) == list(mixture.shares)
        assert got == pytest.approx(mixture.shares, abs=0.02)


def test_domain_that_a_trainer_would_lose_is_named():
    """PITFALL 8: a domain that gets no data is reported."""
    files = trainer_formats.trainer_files(Mixture({"web": 0.6, "law": 0.4 - 1e-6, "rare": 1e-6}))
    assert files["levanter"].comparison.lost == ("rare",) and files["maxtext"].comparison.lost == ()
    # OLMo-core takes no sequence from files shorter than a sequence.
    short = Mixture({"web": 0.9, "rare": 0.1}, unique_tokens={"web": 1e6, "rare": 999}, target_tokens=9990)
    assert export.compare(short, realised(short, "olmo_core")).lost == ("rare",)


def test_comparison_states_the_largest_deviation():
    mixture = drawn(1, target_tokens=1e9)
    for name, trainer in trainer_formats.trainer_files(mixture).items():
        shares_of = trainer.comparison.realised
        assert trainer.file == FORMATS[name].file and set(shares_of) == set(mixture.weights)
        off = {d: shares_of[d] - w for d, w in mixture.shares.items()}
        worst = trainer.comparison.largest_deviation
        assert abs(worst.by) == max(map(abs, off.values())) and off[worst.domain] == worst.by
        assert worst.relative == pytest.approx(worst.by / mixture.shares[worst.domain])


def test_format_that_cannot_express_the_mixture_gives_the_reason():
    files = trainer_formats.trainer_files(drawn(1, paths="my data/{domain}"))
    assert files["megatron_args"].content is None and "white space" in files["megatron_args"].not_written
    # The per-split file accepts white space.
    assert files["megatron"].content["train"][1].startswith("my data/d%3A")


def test_cap_that_a_trainer_would_exceed_is_named():
    unique = {"web": 1e6, "rare": 1000.0}
    mixture = Mixture({"web": 0.96, "rare": 0.04}, unique_tokens=unique, target_tokens=1e5, max_repeats=4)
    got = export.compare(mixture, {"web": 0.95, "rare": 0.05})
    assert got.epochs_over_cap == {"rare": pytest.approx(5)}
    assert export.compare(mixture, mixture.shares).epochs_over_cap == {}


def test_weights_are_shares_of_records_if_records_differ_in_length():
    """A domain of records twice as long needs half as many: what counts is its share of the tokens."""
    mixture = Mixture({"a": 0.5, "b": 0.5}, tokens_per_record={"a": 1000, "b": 500}, target_tokens=1e6)
    third = pytest.approx(1 / 3)
    assert read(mixture, "maxtext")["a"]["weight"] == third and read(mixture, "datasets")["probabilities"][0] == third
    assert read(mixture, "streaming")["streams"]["a"]["proportion"] == third
    assert read(mixture, "streaming")["epoch_size"] == 1500
    assert read(mixture, "olmo_core")["sources"][0]["target_ratio"] == 0.5
    for name in FORMATS:
        assert realised(mixture, name) == pytest.approx({"a": 0.5, "b": 0.5}, abs=1e-3)


def test_counts_replace_the_weights():
    mixture = Mixture({"a": 0.7, "b": 0.3, "c": 1e-9}, counts={"a": 60, "b": 40, "c": 0})
    assert mixture.shares == {"a": 0.6, "b": 0.4} and mixture.target == 100


def test_streams_in_a_bucket_are_remote():
    streams = read(Mixture({"d:0": 1.0}, paths="s3://bucket/{domain}/mds"), "streaming")["streams"]
    assert streams == {"d:0": {"remote": "s3://bucket/d%3A0/mds", "proportion": 1.0}}


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"paths": "data"}, r"paths must contain \{domain\}"),
        ({"weights": {"a": 0.0}}, "weights must be finite, not negative and not all zero"),
        ({"weights": {"a": float("nan"), "b": 1.0}}, "must be finite"),
        ({"weights": {"a": -0.5, "b": 1.5}}, "not negative"),
        ({"counts": {"a": 1}}, r"counts must have the same domains as the weights; they differ in \['b'\]"),
        ({"counts": {"a": 0, "b": 0}}, "counts must be finite"),
        ({"unique_tokens": {"a": 0, "b": 5}}, "a: unique_tokens must be above 0"),
    ],
)
def test_invalid_mixture_is_an_error(kwargs, message):
    with pytest.raises(UserError, match=message):
        Mixture(**{"weights": {"a": 0.5, "b": 0.5}, **kwargs})

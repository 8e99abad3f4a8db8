"""The files that trainers read: what is in them, and that each trainer's own reader takes them and does what we say."""

import asyncio
import glob
import json
import pathlib
from collections import Counter

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix_jax.corpus import store
from olmix_jax.pipeline import handover
from olmix_jax.propose import export, trainer_formats
from olmix_jax.propose.export import Mixture, TrainerFile
from olmix_jax.propose.trainer_formats import FORMATS
from olmix_jax.swarm import rounding
from olmix_jax.utils.errors import UserError

# Names that a file system, YAML, JSON, a glob or a shell could take for something else.
ODD = ("code:tests", "web docs", "null", "yes: no", 'a"b', "é/π", "[x]*?", "1e3", "..", "#1", "%3A")
READERS = pytest.mark.filterwarnings("ignore")  # of other people's imports


def drawn(seed, domains=8, **kwargs):
    """A mixture of random weights, some small, one zero."""
    draw = np.random.default_rng(seed)
    w_M = draw.dirichlet(np.full(domains, 0.5)) + 1e-4
    w_M[draw.integers(domains)] = 0
    return Mixture(dict(zip((f"d:{j}" for j in range(domains)), (w_M / w_M.sum()).tolist())), **kwargs)


def capped(seed, domains=6, run=40_000, k=4.0, **kwargs):
    """The same with tokens and repetition caps, some of which bind exactly."""
    draw = np.random.default_rng(seed)
    names = [f"d:{j}" for j in range(domains)]
    unique_M = draw.integers(500, run // 8, domains)
    unique_M[-1] = 2 * run
    cap_M = np.minimum(1, k * unique_M / run)
    w_M = np.minimum(draw.dirichlet(np.ones(domains)), cap_M)
    w_M[-1] = 1 - w_M[:-1].sum()
    counts = dict(zip(names, rounding.counts(w_M, run, np.zeros(domains), cap_M).tolist()))
    weights, unique = dict(zip(names, w_M.tolist())), dict(zip(names, unique_M.tolist()))
    return Mixture(weights, counts=counts, unique_tokens=unique, max_repeats=k, **kwargs)


def text(mixture, name):
    """The text of a trainer's file."""
    trainer = FORMATS[name]
    return handover.text(TrainerFile(trainer.file, trainer.content(mixture)))


def read(mixture, name):
    """The file's content, read back from its text."""
    parse = json.loads if FORMATS[name].file.endswith("json") else yaml.safe_load
    return parse(text(mixture, name))


def realised(mixture, name):
    return FORMATS[name].realised(mixture)


def shares(parts):
    return {d: n / sum(parts.values()) for d, n in parts.items()}


# Every format


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


# Each trainer's own reader


@pytest.mark.parametrize("parts", [[5, 29, 11, 0], [1, 1, 1], [7, 8, 9, 10, 11], [3.3, 17.1]])
def test_grain_realises_the_stated_shares(parts, tmp_path):
    """grain itself, called as MaxText's ``get_datasets`` calls it."""
    grain = pytest.importorskip("grain")
    weights = {f"d:{j}": w / sum(parts) for j, w in enumerate(parts)}
    mixture = Mixture(weights, paths=f"{tmp_path}/{{domain}}/*.array_record")
    config = read(mixture, "maxtext")
    for entry in config.values():
        path = pathlib.Path(entry["path"].replace("*", "part-0"))
        path.parent.mkdir()
        path.touch()
        assert glob.glob(str(pathlib.Path(entry["path"]).expanduser().resolve())) == [str(path)]
    total = sum(entry["weight"] for entry in config.values())
    weights = {d: entry["weight"] / total for d, entry in config.items()}
    want = realised(mixture, "maxtext")
    # A whole round of the pattern: what it has of each domain is exact.
    scale = 100 / min(weights.values())
    length = sum(int(w * scale) for w in weights.values())
    sources = {d: grain.MapDataset.source([d]).repeat(10**6) for d in config}
    mapped = grain.MapDataset.mix(list(sources.values()), list(weights.values()))
    assert shares(Counter(mapped[i] for i in range(length))) == pytest.approx(want, abs=1e-12)
    stream = iter(grain.IterDataset.mix({d: s.to_iter_dataset() for d, s in sources.items()}, weights))
    assert shares(Counter(next(stream) for _ in range(length))) == pytest.approx(want, abs=1e-12)
    assert export.compare(mixture, want).largest_deviation.by == pytest.approx(0, abs=0.005)


def test_grain_rejects_zero_weights():
    grain = pytest.importorskip("grain")
    with pytest.raises(ValueError, match="non-zero"):
        grain.MapDataset.mix([grain.MapDataset.range(3)] * 2, [1.0, 0.0])


@READERS
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_olmo_core_realises_the_stated_shares(seed, tmp_path):
    mixtures = pytest.importorskip("olmo_core.data.source_mixture")
    length = 64
    k = [4.0, 1.0, 4.35, 0.5][seed % 4]
    mixture = capped(
        seed, run=(39_987, 40_000)[seed % 2], k=k, sequence_length=length, paths=f"{tmp_path}/{{domain}}.npy"
    )
    for d in mixture.shares:
        np.zeros(mixture.unique_tokens[d], np.uint16).tofile(mixture.path(d))
    (tmp_path / "sources.yaml").write_text(text(mixture, "olmo_core"))
    sources = mixtures.SourceMixtureList.from_yaml(str(tmp_path / "sources.yaml"))
    sources.validate()
    for source in sources.sources:
        source.validate()
    config = mixtures.SourceMixtureDatasetConfig(
        source_list=sources, requested_tokens=int(mixture.target), global_batch_size=length, quiet=True
    )
    built = config.build(npdtype=np.uint16, sequence_length=length)
    got = shares({s.name: sum(p.tokens for p in s.path_tokens) for s in built.sources})
    assert got == pytest.approx(realised(mixture, "olmo_core"), abs=1e-12)
    assert [s.source_name for s in sources.sources] == list(mixture.shares)


@READERS
@pytest.mark.slow
@pytest.mark.parametrize("run", [None, 1e7, 1e12])
def test_levanter_realises_the_stated_shares(run, tmp_path):
    draccus = pytest.importorskip("draccus")
    datasets = pytest.importorskip("levanter.data.text.datasets")
    from levanter.data import ListAsyncDataset
    from levanter.data.mixture import MixtureDataset

    mixture = drawn(3, target_tokens=run)
    path = tmp_path / "data.yaml"
    path.write_text(yaml.safe_dump(read(mixture, "levanter")["data"], sort_keys=False))
    config = draccus.parse(datasets.LmDataConfig, config_path=str(path), args=[])
    assert config.mixture_block_size == (2048 if run == 1e7 else 32768)
    assert [c.source.train_urls for c in config.components.values()] == [[mixture.path(d)] for d in mixture.shares]
    mixed = MixtureDataset(
        {d: ListAsyncDataset([d]) for d in config.components},
        config.train_weights,
        config.mixture_block_size,
        key=0,
        stop_strategy=config.stop_strategy,
    )
    block = asyncio.run(mixed.get_batch(range(config.mixture_block_size)))
    want = realised(mixture, "levanter")
    assert shares(Counter(block)) == pytest.approx({d: w for d, w in want.items() if w}, abs=1e-12)
    assert max(abs(want[d] - w) for d, w in mixture.shares.items()) < 1 / config.mixture_block_size


@READERS
@pytest.mark.slow
def test_megatron_realises_the_stated_shares(tmp_path):
    """megatron-core's own builder on real files, read as Megatron-LM's ``get_blend_and_blend_per_split`` reads them."""
    torch = pytest.importorskip("torch")
    builder = pytest.importorskip("megatron.core.datasets.blended_megatron_dataset_builder")
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder
    from megatron.core.datasets.utils import get_blend_from_list

    class Tokenizer:
        eod, pad, vocab_size, unique_identifiers = 0, 1, 99, {}

    length, samples = 16, 3000
    mixture = drawn(
        5, domains=6, target_tokens=length * samples, sequence_length=length, paths=f"{tmp_path}/{{domain}}"
    )
    for j, d in enumerate(mixture.shares):
        data = IndexedDatasetBuilder(mixture.path(d) + ".bin", dtype=np.uint16)
        for _ in range(20):
            data.add_document(torch.full((50,), j + 2), [50])
        data.finalize(mixture.path(d) + ".idx")
    splits = read(mixture, "megatron")
    blends = [get_blend_from_list(splits[split]) for split in ("train", "valid", "test")]
    assert blends[0] == get_blend_from_list(text(mixture, "megatron_args").split())
    config = GPTDatasetConfig(
        random_seed=1,
        sequence_length=length,
        blend_per_split=blends,
        tokenizer=Tokenizer(),
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
    )
    built = builder.BlendedMegatronDatasetBuilder(GPTDataset, [samples, None, None], lambda: True, config).build()
    names = list(mixture.shares)
    got = shares(Counter(names[i] for i in built[0].dataset_index[:samples].tolist()))
    assert got == pytest.approx(realised(mixture, "megatron"), abs=1e-12)
    assert Counter(int(built[0][i]["tokens"][0]) - 2 for i in range(200)) == Counter(
        built[0].dataset_index[:200].tolist()
    )


@READERS
@pytest.mark.slow
@pytest.mark.parametrize("domains", [3, 40])
def test_megatron_deviates_by_a_few_samples_in_runs_of_any_length(domains):
    helpers = pytest.importorskip("megatron.core.datasets.helpers")
    for seed in range(5):
        share_M = np.array(list(drawn(seed, domains=domains).shares.values()))
        for size in (1000, trainer_formats.SIMULATED_SAMPLES, 200_000):
            index, sample = np.zeros(size, np.int16), np.zeros(size, np.int64)
            helpers.build_blending_indices(index, sample, share_M, len(share_M), size, False)
            assert np.abs(np.bincount(index, minlength=len(share_M)) - share_M * size).max() < 4


@READERS
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_streaming_realises_the_stated_shares(seed, tmp_path):
    streaming = pytest.importorskip("streaming")
    mixture = drawn(seed, target_tokens=1001 * 4096, paths=f"{tmp_path}/{{domain}}")
    for j, d in enumerate(mixture.shares):
        with streaming.MDSWriter(out=mixture.path(d), columns={"domain": "int"}) as out:
            for _ in range(20 + j):
                out.write({"domain": j})
    config = read(mixture, "streaming")
    streams = [streaming.Stream(**stream) for stream in config["streams"].values()]
    data = streaming.StreamingDataset(streams=streams, epoch_size=config["epoch_size"], batch_size=1)
    names = list(mixture.shares)
    got, want = shares(Counter(names[sample["domain"]] for sample in data)), realised(mixture, "streaming")
    assert len(data) == 1001 and got == pytest.approx({d: w for d, w in want.items() if w}, abs=1e-12)


@READERS
@pytest.mark.slow
def test_datasets_realises_the_stated_shares():
    datasets = pytest.importorskip("datasets")
    mixture, n = drawn(2), 20_000
    config = read(mixture, "datasets")
    parts = [datasets.Dataset.from_dict({"domain": [d] * 3}) for d in config["names"]]
    for kind in ("streamed", "mapped"):
        each = [p.to_iterable_dataset().repeat(None) if kind == "streamed" else p.repeat(n // 3) for p in parts]
        mixed = datasets.interleave_datasets(
            each,
            probabilities=config["probabilities"],
            seed=config["seed"],
            stopping_strategy=config["stopping_strategy"],
        )
        got = shares(Counter(row["domain"] for row in mixed.take(n // 2)))
        for d, w in realised(mixture, "datasets").items():
            assert abs(got.get(d, 0) - w) < 5 * np.sqrt(w * (1 - w) / (n // 2))

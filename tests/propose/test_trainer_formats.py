"""Each trainer's own reader accepts its file and realises the stated shares."""

import asyncio
import glob
import pathlib
from collections import Counter

import numpy as np
import pytest
import yaml

from olmix_jax.propose import export, trainer_formats
from olmix_jax.propose.export import Mixture
from tests.propose.export_cases import capped, drawn, read, realised, shares, text

# The trainers' imports warn.
READERS = pytest.mark.filterwarnings("ignore")


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
    # One whole round of the pattern has the exact share of each domain.
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

"""``proxy.vocabulary`` from text to scores: what is trained, what is counted, resuming, and what makes files stale."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from configs import paper
from olmix_jax import config
from olmix_jax.config import budget
from olmix_jax.config import workdir as workdirs
from olmix_jax.corpus import mapped_store, store, tasks
from olmix_jax.corpus.tokenizer import Tokenizer
from olmix_jax.corpus.vocabulary import truncate
from olmix_jax.pipeline import jobs, rehearsal, runner
from olmix_jax.pipeline.propose import options_of
from olmix_jax.proxy import data, resources
from olmix_jax.swarm import table
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError
from tests.corpus.test_token_formats import put
from tests.corpus.test_tokenizer import BPE, TEXTS
from tests.corpus.texts import prose

VOCABULARY = 300


def settings(vocabulary=VOCABULARY, **changes):
    c = paper.get_config("smoke")
    c.train.steps, c.train.batch, c.swarm.size, c.train.checkpoint_every, c.train.remat = 4, 8, 12, 2, False
    c.proxy.preset, c.proxy.vocabulary, c.validate.steps, c.validate.seeds = "tiny", vocabulary, 4, 1
    c.corpus.max_bytes = 0
    for name, value in changes.items():
        section, field = name.split("_", 1)
        c[section][field] = value
    return config.from_dict(c)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A corpus that is ready for training in a smaller vocabulary."""
    folder = tmp_path_factory.mktemp("vocabulary") / "text"
    folder.mkdir()
    for n, name in enumerate(("prose", "upper")):
        texts = ["\n\n".join(prose(1000 * n + 10 * i + k, 60) for k in range(1, 5)) for i in range(40)]
        lines = [json.dumps({"text": text.upper() if n else text}) for text in texts]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    runner.run(settings(corpus_path=str(folder)), folder.with_name("run"), ("prepare", "sample"))
    return folder.with_name("run")


def test_data_and_tasks_are_in_the_smaller_vocabulary(prepared):
    full, small = Tokenizer.read(store.tokenizer_path(prepared)), mapped_store.read_tokenizer(settings(), prepared)
    domains, sizes = workdirs.read_domains(prepared), workdirs.read_expansion(settings(), prepared)
    assert small.size == VOCABULARY < full.size == 384
    # Domain sizes stay in tokens of the corpus' tokenizer.
    assert dict(zip(domains.names, domains.tokens)) == sizes.tokens
    runs = data.Runs((), np.zeros((0, len(domains)), int), np.zeros(0, int), np.zeros(0, int))
    swarm = jobs.swarm_of(settings(), prepared, domains, runs)
    assert swarm.vocabulary == VOCABULARY and swarm.expansion == sizes.by_domain(domains.names)
    assert swarm.identity != dataclasses.replace(swarm, expansion=()).identity
    for name, mapped in swarm.stores.items():
        text = full.decode(store.open_store(store.store_path(prepared, name)).read(0, 10**9))
        tokens = mapped.read(0, 10**9)
        assert small.decode(tokens) == text and len(tokens) == sizes.proxy_tokens[name] > sizes.tokens[name]
    packed = jobs.tasks_of(settings(), prepared)
    assert packed.tokens_EL.max() < VOCABULARY
    whole = tasks.read_tasks(prepared, full, 1024)
    assert (tasks.read_tasks(prepared, small, 1024).bytes_E == whole.bytes_E).all()


def test_token_files_of_another_engine_are_mapped_in_place(tmp_path):
    for name, file, texts in (("a", "dolma.npy", TEXTS[:100]), ("b", "datatrove.ds", TEXTS[100:])):
        put(tmp_path / "tokens" / name, file, np.concatenate([np.append(BPE.encode(text), BPE.end) for text in texts]))
    BPE.write(tmp_path / "tokenizer.json")
    (tmp_path / "tasks").mkdir()
    rows = [json.dumps({"prompt": f"{i}: ", "answer": prose(i, 9)}) for i in range(8)]
    (tmp_path / "tasks/t.jsonl").write_text("\n".join(rows))
    made = settings(
        280,
        corpus_path=str(tmp_path / "tokens"),
        corpus_tokenizer=str(tmp_path / "tokenizer.json"),
        tasks_path=str(tmp_path / "tasks"),
    )
    runner.run(made, tmp_path / "run", ("prepare",))
    swarm = jobs.swarm_of(made, tmp_path / "run", workdirs.read_domains(tmp_path / "run"), None)
    small = truncate(BPE, 280)
    assert swarm.stores["a"].read(0, 10**9).tolist() == [
        id for text in TEXTS[:100] for id in (*small.encode(text).tolist(), small.end)
    ]


def test_target_and_repetition_are_in_tokens_of_the_corpus(prepared):
    made, per_token = settings(), workdirs.tokens_per_token(settings(), prepared)
    assert 1.05 < per_token < 2
    # By default the target is a validation model, here of the same length.
    own = budget.tokens(made)
    assert options_of(made, prepared, None).target_tokens == own / per_token
    assert jobs.proxy_share(made, prepared) == 1
    longer = settings(propose_target_tokens=10 * own)
    assert options_of(longer, prepared, None).target_tokens == 10 * own
    assert jobs.proxy_share(longer, prepared) == pytest.approx(0.1 / per_token, rel=1e-12)
    assert jobs.proxy_share(settings(None, propose_target_tokens=10 * own), prepared) == 0.1


def test_plan_has_the_parameters_of_the_smaller_vocabulary(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "_compile", lambda *_: resources.aot.CompiledStep(1, 1, 1000, 0, 0))
    width = resources.model.PRESETS["tiny"].width
    assert resources.plan_resources(settings(), prepared).model.vocabulary == VOCABULARY
    # Before there is a tokenizer, it is the one that will be trained.
    small, whole = (
        resources.plan_resources(settings(n, corpus_vocabulary=1024), tmp_path).model for n in (VOCABULARY, None)
    )
    assert resources.plan_resources(settings(), prepared).settings["proxy.vocabulary"].value == VOCABULARY
    assert (small.vocabulary, small.padded_vocabulary, whole.padded_vocabulary) == (300, 384, 1024)
    assert whole.parameters_with_embedding - small.parameters_with_embedding == 2 * 640 * width


def test_another_vocabulary_in_the_same_workdir_is_refused(prepared):
    for other in (310, None):
        made = settings(other, corpus_path=str(prepared.with_name("text")))
        with pytest.raises(
            UserError, match=f"domains.json and .*: made with proxy.vocabulary = 300, now it is {other}"
        ):
            runner.run(made, prepared, ("prepare",))


@pytest.mark.parametrize(("size", "message"), [(256, "must be 257 or more"), (385, "the tokenizer has 384 entries")])
def test_impossible_vocabulary_is_refused_before_text_is_read(tmp_path, size, message):
    with pytest.raises(UserError, match=f"config field `proxy.vocabulary` is {size}.* {message}"):
        runner.run(settings(size), tmp_path / "run", ("prepare",))
    assert not (tmp_path / "run/corpus").exists()


def test_update_with_another_vocabulary_is_refused(prepared, monkeypatch):
    monkeypatch.setattr(rehearsal.history, "parent_config", lambda _: settings())
    child = dataclasses.replace(settings(None), update=config.Update(parent=str(prepared)))
    with pytest.raises(UserError, match="`proxy.vocabulary` is None, but 300 in update.parent=.*run"):
        rehearsal.check_settings(child)


@pytest.mark.slow
@pytest.mark.parametrize("trunk", [0.0, 0.5])
def test_swarm_is_trained_and_resumed_with_identical_files(prepared, tmp_path, monkeypatch, trunk):
    from olmix_jax.proxy import train

    made = settings(swarm_trunk=trunk, swarm_min_weight=1 / 8)
    for name in ("one", "two"):
        shutil.copytree(prepared, tmp_path / name)
        (tmp_path / name / "swarm/ratios.csv").unlink()
    runner.run(made, tmp_path / "one", ("sample", "train"))
    write = train.Tracker.write

    def write_and_stop(self, now, *more):
        write(self, now, *more)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train.Tracker, "write", write_and_stop)
        runner.run(made, tmp_path / "two", ("sample", "train"))
    runner.run(made, tmp_path / "two", ("sample", "train"))
    one, two = ((tmp_path / name / "swarm/metrics.csv").read_text() for name in ("one", "two"))
    assert one == two and table.read_ratios(tmp_path / "one/swarm/ratios.csv").ratios_KM.shape[0] == 12
    assert files.read_json(tmp_path / "one/train/info.json")["tokens_per_member"] == 4 * 8 * made.proxy.length

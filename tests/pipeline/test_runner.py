"""run.py from end to end in a separate process: the command line, the runner and every stage."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

from olmix_jax import config as configs
from olmix_jax.pipeline import runner, stages
from olmix_jax.swarm.table import SwarmTable
from olmix_jax.utils.errors import UserError
from tests.xla import fast_compile_flags

ROOT = pathlib.Path(__file__).parents[2]
SMOKE = "--config=configs/quickstart.py:smoke"


def command(workdir, *more, config=SMOKE):
    return [sys.executable, "run.py", config, f"--workdir={workdir}", *more]


def environment():
    # The program chooses its own devices, so it must not inherit the device settings of the tests.
    return {k: v for k, v in os.environ.items() if k != "PYTHONWARNINGS"} | {"XLA_FLAGS": fast_compile_flags()}


def run(workdir, *more, code=0, config=SMOKE):
    done = subprocess.run(
        command(workdir, *more, config=config), cwd=ROOT, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """A finished workdir of the smoke config, the completed process, and its wall time [s]."""
    workdir = tmp_path_factory.mktemp("smoke") / "run"
    begun = time.monotonic()
    done = run(workdir)
    return workdir, done, time.monotonic() - begun


def copied(smoke, tmp_path, *without):
    """A copy of the finished workdir without some files."""
    shutil.copytree(smoke[0], tmp_path / "run")
    for name in without:
        path = tmp_path / "run" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return tmp_path / "run"


def test_the_pipeline_writes_every_file(smoke):
    workdir, done, seconds = smoke
    # The run takes a minute on an idle machine. The bound allows for a busy one.
    assert seconds < 120
    files = (
        "config.json domains.json corpus/tokenizer.json swarm/ratios.csv swarm/metrics.csv swarm/meta.json "
        "fit/fit.json propose/proposal.json validate/validation.json report/index.html log.txt"
    )
    assert [f for f in files.split() if not (workdir / f).is_file()] == []
    lines = done.stdout.splitlines()
    assert lines[0] == f"report: {workdir / 'report/index.html'}" and len(lines) == 4


def test_files_of_all_stages_agree(smoke):
    workdir = smoke[0]
    read = lambda name: json.loads((workdir / name).read_text())  # noqa: E731
    names = [d["name"] for d in read("domains.json")["domains"]]
    table = SwarmTable.read(*(workdir / f"swarm/{f}" for f in ("ratios.csv", "metrics.csv", "meta.json")))
    assert list(table.domains) == names and len(table.runs) == 12
    proposal, validation = read("propose/proposal.json"), read("validate/validation.json")
    assert proposal["status"] == "local optimum"  # the default law is not convex
    assert list(proposal["weights"]) == names and sum(proposal["weights"].values()) == pytest.approx(1, abs=1e-9)
    tokens = validation["tokens"]
    assert proposal["target_tokens"] == tokens
    for mixture in ("natural", "uniform", "proposed"):
        content = validation["mixtures"][mixture]
        assert len(content["per_seed"]) == 2 and set(content["tasks"]) == set(table.tasks)
        assert content["bpb_mean"] == pytest.approx(sum(content["per_seed"]) / 2)
        assert [seed[-1] for seed in content["curves"]] == content["per_seed"]
    compute = validation["equivalent_compute"]
    assert len(validation["scored_tokens"]) == 8 and validation["scored_tokens"][-1] == tokens == compute["tokens"]
    assert "validate: equivalent compute " in (workdir / "log.txt").read_text()
    # The trained mixture keeps the caps after rounding to whole sequences.
    trained = validation["mixtures"]["proposed"]["weights"]
    assert all(trained[n] <= proposal["caps"][n] + 1e-12 for n in names)
    assert set(read("fit/fit.json")["tasks"]) == set(table.tasks)


def test_finished_stages_are_skipped(smoke, tmp_path):
    workdir = copied(smoke, tmp_path)
    before = {p: p.stat().st_mtime_ns for p in workdir.glob("*/*.csv")}
    # These settings change how a step is computed, not its result.
    pieces = ("--config.train.micro_batch=1", "--config.train.mapping=map", "--config.train.remat=True")
    done = run(workdir, "--stages=prepare,sample,train,fit,propose,validate", *pieces)
    assert done.stderr.count("finished, skipped") == 6
    assert {p: p.stat().st_mtime_ns for p in workdir.glob("*/*.csv")} == before


def test_resume_after_kill_9_gives_identical_files(smoke, tmp_path):
    """The run is killed while it compiles, right after its first checkpoint, and a moment later."""
    workdir = copied(smoke, tmp_path, "swarm/metrics.csv", "swarm/curves.npz", "train")
    moments = (lambda: True, lambda: checkpoints(workdir) >= 1, lambda: checkpoints(workdir) >= 2)
    for moment, pause in zip(moments, (1.0, 0.0, 0.02)):
        process = subprocess.Popen(
            command(workdir, "--stages=train"), cwd=ROOT, env=environment(), stderr=subprocess.DEVNULL
        )
        while not moment() and process.poll() is None:
            time.sleep(0.005)
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (workdir / "swarm/metrics.csv").exists()
    done = run(workdir, "--stages=train")
    assert "resuming from step" in done.stderr
    for name in ("swarm/metrics.csv", "swarm/ratios.csv", "swarm/meta.json", "swarm/curves.npz"):
        assert (workdir / name).read_bytes() == (smoke[0] / name).read_bytes()


def checkpoints(workdir):
    """Number of complete checkpoints: folders named by their step, one every four steps."""
    steps = [int(p.name) for p in (workdir / "train/checkpoints").glob("[0-9]*") if p.name.isdigit()]
    return max(steps, default=0) // 4


def test_ctrl_c_exits_130_with_a_checkpoint(smoke, tmp_path):
    workdir = copied(smoke, tmp_path, "swarm/metrics.csv", "train")
    process = subprocess.Popen(
        command(workdir, "--stages=train"), cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True
    )
    while checkpoints(workdir) < 1:
        time.sleep(0.005)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    errors = process.communicate()[1]
    assert process.returncode == 130 and "run the same command to resume" in errors and "Traceback" not in errors


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.swarm.sizee=3"], "no field `swarm.sizee`; the nearest is `swarm.size`"),
        (["--config.swarm.size=abc"], "swarm.size"),
        (["--config.train.steps=0"], "`train.steps` must be positive"),
        (["--stages=fit,trian"], "no stage 'trian'; stages are prepare, update, plan, sample, train"),
        (["--config.swarm.size=9", "--stages=sample"], "made with swarm.size = 12, now it is 9; use another --workdir"),
        (["--config.train.lr=0.5", "--stages=train"], "made with train.lr = 0.015, now it is 0.5"),
        (["--config.proxy.preset=2M", "--stages=train"], "`proxy.preset` must be one of tiny, 1M"),
        (["--config.validate.preset=2M", "--stages=prepare"], "`validate.preset` must be one of"),
        (["--config.fit.law=linear", "--stages=prepare"], "`fit.law` must be one of warped_gp"),
        (["extra"], "unexpected argument 'extra'"),
    ],
)
def test_user_errors_are_one_line_with_exit_code_2(smoke, flags, message):
    done = run(smoke[0], *flags, code=2)
    assert message in done.stderr and done.stderr.strip().splitlines()[-1].startswith("error: ")


def test_missing_flags_and_files_are_named(tmp_path):
    for arguments, message in (
        ([], "--config is missing"),
        ([SMOKE], "--workdir is missing"),
        (["--config=configs/none.py", f"--workdir={tmp_path}"], "--config: there is no file configs/none.py"),
        (["--config=configs/fit_csv.py", f"--workdir={tmp_path}"], "fit needs ratios.csv, which does not exist"),
        (["--config=configs/update.py:none", f"--workdir={tmp_path}"], "none is not the workdir of a run"),
        ([SMOKE, f"--workdir={tmp_path}", "--stages=fit"], "fit needs"),
        ([SMOKE, "--workdir=/proc/nowhere"], "--workdir=/proc/nowhere is not writable"),
    ):
        done = subprocess.run(
            [sys.executable, "run.py", *arguments], cwd=ROOT, env=environment(), capture_output=True, text=True
        )
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_too_few_runs_raise_an_error_before_training(smoke, tmp_path):
    workdir = copied(smoke, tmp_path, "swarm", "train", "fit", "propose", "validate", "report")
    done = run(workdir, "--config.swarm.size=9", "--stages=sample,train", code=2)
    assert "swarm.size" in done.stderr and "at least 10" in done.stderr
    assert not (workdir / "swarm/ratios.csv").exists()


def test_prepare_reads_the_users_text_and_tasks(tmp_path):
    """Domains from a folder of text, a .jsonl.gz and a .txt file, with a task file."""
    import gzip

    words = [f"word{i % 37}" for i in range(6000)]
    (tmp_path / "text/web").mkdir(parents=True)
    for i in range(12):
        (tmp_path / f"text/web/{i}.txt").write_text(" ".join(words[i * 300 : i * 300 + 900][:: i + 1]))
    with gzip.open(tmp_path / "text/facts.jsonl.gz", "wt") as f:
        for i in range(400):
            f.write(json.dumps({"text": f"{i} plus {i * 7} is {i * 8}. " * 3}) + "\n")
    (tmp_path / "text/lists.txt").write_text("\n\n".join(f"- item {i}\n- item {i * i}" for i in range(900)))
    (tmp_path / "tasks").mkdir()
    with open(tmp_path / "tasks/sums.jsonl", "w") as f:
        for i in range(20):
            f.write(json.dumps({"prompt": f"{i} plus {i * 7} is", "answer": f" {i * 8}"}) + "\n")
    done = run(
        tmp_path / "run",
        "--stages=prepare,sample",
        f"--config.corpus.path={tmp_path / 'text'}",
        f"--config.tasks.path={tmp_path / 'tasks'}",
        config="--config=configs/own.py:smoke",
    )
    assert "web" in done.stderr
    domains = json.loads((tmp_path / "run/domains.json").read_text())["domains"]
    assert [d["name"] for d in domains] == ["facts", "lists", "web"]


def test_help_shows_an_example_command():
    done = subprocess.run([sys.executable, "run.py", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert "--config=configs/quickstart.py" in done.stdout and "--workdir" in done.stdout


def test_external_swarm_does_not_replace_results_of_a_trained_one(tmp_path):
    (tmp_path / "swarm").mkdir()
    (tmp_path / "swarm/metrics.csv").write_text("run,t1\n")
    config = configs.from_dict({"swarm": {"ratios": "r.csv", "metrics": "m.csv"}})
    with pytest.raises(UserError, match="holds a swarm that was trained there.*another --workdir"):
        runner.run_stage(config, tmp_path, stages.FIT)
    # An update of an external swarm samples its mixtures in the workdir, where the scores may be added.
    config = configs.from_dict({"swarm": {"ratios": "r.csv", "metrics": str(tmp_path / "swarm/../swarm/metrics.csv")}})
    with pytest.raises(UserError, match="needs r.csv, which does not exist"):
        runner.run_stage(config, tmp_path, stages.FIT)


def test_trained_swarm_does_not_replace_results_of_an_external_one(tmp_path):
    (tmp_path / "config.json").write_text('{"swarm": {"ratios": "r.csv", "metrics": "m.csv"}}')
    with pytest.raises(UserError, match=r"external swarm \(r.csv\).*another --workdir"):
        runner.run_stage(configs.from_dict({}), tmp_path, stages.PREPARE)

"""The report: builds from any part of a workdir, holds everything it shows, and says the right numbers."""

import html.parser
import json
import re
import shutil

import numpy as np
import pytest
from scipy import stats

from olmix_jax import report
from olmix_jax.report import caveats, law_plots, mixture_plots, proposal_sections, sentences, tables, training_plots
from olmix_jax.report import results as read
from olmix_jax.report.proposal_plots import differences, paths_of, ranked
from olmix_jax.report.style import label, labels, quantity
from olmix_jax.swarm.table import write_swarm
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError

HOSTILE = '<b>&"x$y$_領'


def law(fit, weights):
    """The mixture's BPB by task, by the law's formula."""
    known = {t: r["parameters"] for t, r in fit["tasks"].items()}
    logs = {t: sum(r["coefficients"][d] * w for d, w in weights.items()) for t, r in known.items()}
    return {t: known[t]["constant"] + float(np.exp(v)) for t, v in logs.items()}


def synthesise(folder, domains=8, tasks=12, runs=27, steps=120, seeds=3):
    """Writes a whole workdir whose numbers agree: a law, runs that obey it but for noise, a proposal, its proof."""
    rng = np.random.default_rng(0)
    names = [HOSTILE, *(f"source:topic_{j}:high" for j in range(1, domains))]
    task_names = ["_<i>task</i>", *(f"minerva_math_number_{i}::olmes" for i in range(1, tasks))]
    tokens_M = np.geomspace(2e5, 2e7, domains).round()
    natural_M = tokens_M / tokens_M.sum()
    ratios_KM = rng.dirichlet(natural_M * domains, runs)
    slope_NM, floor_N = rng.normal(-0.4, 0.35, (tasks, domains)), rng.uniform(0.4, 1.2, tasks)
    true_KN = floor_N[None, :] + np.exp(ratios_KM @ slope_NM.T)
    bpb_KN = true_KN + rng.normal(0, 0.01, true_KN.shape)
    guess_KN = true_KN + rng.normal(0, 0.01, true_KN.shape)
    ids = [f"run-{k:03d}" for k in range(runs)]
    diverged = {ids[3]: steps // 2}
    write_swarm(folder / "swarm", ids, ids, names, task_names, ratios_KM, bpb_KN, natural_M, tokens_M, diverged)
    files.write_json(folder / "config.json", {"seed": 0, "train": {"batch": 16}, "proxy": {"length": 128}})
    rows = [{"name": n, "tokens": int(t), "bytes": int(4 * t)} for n, t in zip(names, tokens_M)]
    files.write_json(folder / "domains.json", {"domains": rows})
    write_curves(folder / "swarm/curves.npz", ids, steps, rng, frozen={3: steps // 2})
    files.write_json(folder / "train/info.json", training(runs, steps))
    finished = [k for k in range(runs) if ids[k] not in diverged]
    base = dict(zip(names, natural_M.tolist()))
    fit = fitted(base, task_names, slope_NM, floor_N, bpb_KN[finished], guess_KN[finished], [ids[k] for k in finished])
    files.write_json(folder / "fit/fit.json", fit)
    proposal = proposed(fit, dict(zip(names, natural_M.tolist())), tokens_M)
    files.write_json(folder / "propose/proposal.json", proposal)
    files.write_json(folder / "validate/validation.json", validated(fit, proposal, seeds, rng))
    models = [f"{m}/{s}" for m in ("natural", "uniform", "proposed") for s in range(seeds)]
    write_curves(folder / "validate/curves.npz", models, steps, rng)
    return folder


def training(runs, steps):
    return {
        **{
            "mapping": "shard",
            "devices": "2 × cpu",
            "members": runs,
            "parameters": 412_345,
            "tokens_per_second": 51234.5,
        },
        **{"compile_s": 9.5, "wall_s": 123.4, "tokens_per_member": steps * 2048, "preset": "1M"},
    }


def fitted(base, task_names, slope_NM, floor_N, bpb_KN, guess_KN, runs):
    """fit.json of a log-linear law whose 90 % intervals reach 0.025 BPB to either side."""
    found, error_KN, names = {}, np.abs(bpb_KN - guess_KN), list(base)
    for i, task in enumerate(task_names):
        rank, rmse = (
            float(stats.spearmanr(bpb_KN[:, i], guess_KN[:, i])[0]),
            float(np.sqrt(np.mean(error_KN[:, i] ** 2))),
        )
        found[task] = {
            **{"loss": 0.01, "spearman_cv": rank, "r2_cv": 0.9, "rmse_cv": rmse},
            **{"coverage_cv": float((error_KN[:, i] <= 0.025).mean()), "spearman_loo": rank, "rmse_loo": rmse},
            **{"spearman_in_sample": 0.991, "rmse_in_sample": rmse / 2},
            "parameters": {"constant": floor_N[i], "coefficients": dict(zip(names, slope_NM[i].tolist()))},
            "effects": {d: float(slope_NM[i, j] / 10) for j, d in enumerate(names)},
        }
    means = {f"{k}_mean": float(np.mean([r[k] for r in found.values()])) for k in found[task_names[0]] if "_" in k}
    return {
        **{"law": "log_linear", "tasks": found, "folds": 5, "runs": runs, "level": 0.9, "unseen": [], "wall_s": 1.5},
        **{"effect": "change in BPB when a tenth of the mixture natural is replaced by the domain", "base": base},
        **means,
        "spearman_of_mean_cv": float(stats.spearmanr(bpb_KN.mean(axis=1), guess_KN.mean(axis=1))[0]),
        "measured": dict(zip(task_names, bpb_KN.T.tolist())),
        "predicted_cv": dict(zip(task_names, guess_KN.T.tolist())),
        "low_cv": dict(zip(task_names, (guess_KN - 0.025).T.tolist())),
        "high_cv": dict(zip(task_names, (guess_KN + 0.025).T.tolist())),
        "coverage_curve": {"nominal": [0.5, 0.8, 0.9], "covered": [0.52, 0.79, 0.91]},
        "learning_curve": {
            **{"runs": [10, 15, 20], "spearman_mean": [0.8, 0.85, 0.873], "spearman_mean_error": [0.03, 0.02, 0.01]},
            **{"spearman_of_mean": [0.9, None, 0.95], "rmse_mean": [0.03, 0.02, 0.0151], "repeats": 4},
            "now": {"runs": len(runs), "spearman_mean": 0.876, "rmse_mean": 0.0147},
            "next": {"runs": len(runs) + 10, "spearman_mean": 0.879, "rmse_mean": 0.0142},
        },
        "barely_sampled": {names[-1]: {"runs": 2, "max": 0.0123}},
    }


def proposed(fit, natural, tokens_M):
    """A proposal at whose smallest domain the cap of four epochs binds."""
    target, names = float(tokens_M.sum() * 2), list(natural)
    caps = dict(zip(names, (4 * tokens_M / target).tolist()))
    slope_M = np.mean([list(r["effects"].values()) for r in fit["tasks"].values()], axis=0) * 10
    tilt = np.exp(-np.clip(4 * (slope_M - slope_M.mean()), -0.3, 0.3))
    rest = sum(natural[n] * t for n, t in zip(names[1:], tilt[1:]))
    weights = {n: natural[n] * t / rest * (1 - caps[names[0]]) for n, t in zip(names, tilt)}
    weights[names[0]] = caps[names[0]]
    return {
        **{"status": "converged", "weights": weights, "natural": natural, "caps": caps},
        **{"predicted": law(fit, weights), "predicted_natural": law(fit, natural)},
        **{"objective": 1.2345, "objective_natural": 1.25, "kl": 0.05, "shadow_prices": {names[0]: 12.3}},
        "repeats": {n: w * target / t for (n, w), t in zip(weights.items(), tokens_M)},
        "certificate": {"gap": 1e-9, "relative_gap": 1e-9, "iterations": 120, "residual": 1e-10},
        **{"target_tokens": target, "max_repeats": 4.0, "kl_weight": 0.05},
        **{"worse_tasks": [list(fit["tasks"])[0]], "warnings": ["small <script>warning</script>"]},
    }


def validated(fit, proposal, seeds, rng):
    """Natural 1.00 ± 0.01, uniform 1.10, proposed 0.90 on average, and tasks around them."""
    found = {}
    for name, mean in (("natural", 1.0), ("uniform", 1.1), ("proposed", 0.9)):
        per_seed = (mean + 0.01 * np.linspace(-1, 1, seeds)).tolist() if seeds > 1 else [mean]
        rows = {t: {"mean": mean + float(rng.normal(0, 0.05)), "std": 0.02} for t in fit["tasks"]}
        weights = proposal["weights"] if name == "proposed" else proposal["natural"]
        found[name] = {"weights": weights, "bpb_mean": mean, "bpb_std": 0.01, "per_seed": per_seed, "tasks": rows}
    return {
        "mixtures": found,
        "seeds": seeds,
        "steps": 1200,
        "tokens": 1200 * 2048,
        "parameters": 412_345,
        "preset": "1M",
    }


def write_curves(path, runs, steps, rng, frozen=None):
    steps_T = np.arange(1, steps + 1)
    loss_KT = 3 + 4 / np.sqrt(steps_T)[None, :] + rng.normal(0, 0.05, (len(runs), steps))
    for member, step in (frozen or {}).items():
        loss_KT[member, step:] = np.nan
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, steps_T=steps_T, loss_KT=loss_KT.astype(np.float32), runs=np.array(runs), tokens_per_step=2048)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return synthesise(tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return synthesise(tmp_path_factory.mktemp("small"), domains=3, tasks=2, runs=9, steps=3)


@pytest.fixture(scope="module")
def page(workdir):
    return report.build(workdir).read_text(encoding="utf-8")


def partial(workdir, folder, *keep):
    for name in keep:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (workdir / name).is_dir() else shutil.copy)(workdir / name, folder / name)
    return folder


def edited(folder, name, change):
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))


class Reader(html.parser.HTMLParser):
    """Collects tags, and checks that they close in order."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "source"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read_page(text):
    reader = Reader()
    reader.feed(text)
    assert not reader.open
    return reader


def test_page_holds_all_it_shows(page, workdir):
    reader = read_page(page)
    figures = [a["id"] for t, a in reader.seen if t == "figure"]
    assert figures == [
        "mixture",
        "validation",
        "validation_tasks",
        "validation_curves",
        "gains",
        "prices",
        "predicted",
        "coverage",
        "learning",
        "effects",
        "curves",
    ]
    for tag, attributes in reader.seen:
        assert tag not in ("script", "link", "iframe", "object")
        for name in {"src", "srcset", "href"} & attributes.keys():
            assert attributes[name].startswith("data:image/png;base64,")
        if tag == "img":
            assert len(attributes["alt"]) > 20
    assert "url(" not in page and "http" not in page.replace("http-equiv", "")
    for name in figures:
        assert (workdir / "report" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_names_are_escaped(page):
    assert HOSTILE not in page and "<script>" not in page and "<i>task" not in page
    text = read_page(page).text
    assert HOSTILE in text and "_<i>task</i>" in text
    assert "small <script>warning</script>" in text


def test_same_files_same_page(small):
    first = report.build(small).read_bytes()
    assert report.build(small).read_bytes() == first


def test_summary(workdir):
    won, caps, law_quality = report.summary(workdir)
    # Seeds at mean ± 0.01 and the mean itself: s = 0.01, standard error 0.01/√3 = 0.0058; two of them add to 0.00816.
    assert won == (
        "proposed 0.9000 ± 0.0058 BPB against natural 1.0000 ± 0.0058 (10.00 % lower, 12.2 standard errors) and "
        "uniform 1.1000 ± 0.0058 (18.18 % lower, 24.5 standard errors); mean of 12 tasks, 3 seeds"
    )
    assert caps == f"repetition caps that bind: {HOSTILE} (4 epochs)"
    fit = files.read_json(workdir / "fit/fit.json")
    assert law_quality == (
        f"law log_linear, held-out runs, 5 folds: Spearman {fit['spearman_cv_mean']:.3f} mean over tasks, "
        f"{fit['spearman_of_mean_cv']:.3f} of the task average; "
        f"90 % intervals hold {sentences.percent(fit['coverage_cv_mean'])} of measurements"
    )


def test_a_bound_is_no_repetition_cap(small, tmp_path):
    """Of two domains at their most, one is kept there by repetition and one by propose.bounds."""
    folder = partial(small, tmp_path, "propose")
    names = list(files.read_json(folder / "propose/proposal.json")["weights"])
    capped, bounded = names[0], names[1]

    def bind(proposal):
        proposal["caps"][bounded] = proposal["weights"][bounded]
        proposal["capped_by"] = dict.fromkeys(names) | {capped: "repetition", bounded: "bound"}
        proposal["no_weight_intervals"] = "a search has <none>"

    edited(folder, "propose/proposal.json", bind)
    results = read.read(folder)
    assert results.binding == (capped, bounded) and results.repeated == (capped,) and results.bounded == (bounded,)
    epochs = results.epochs[bounded]
    assert sentences.caps_line(results) == (
        f"repetition caps that bind: {capped} (4 epochs); bounds that bind: {bounded} ({epochs:.3g} epochs)"
    )
    (card,) = [card for card in sentences.cards(results) if card.title == "Repetition caps that bind"]
    assert card.value.startswith("1 of ") and card.detail.endswith(f"; at a bound: {bounded}")
    figure = mixture_plots.mixture(results, 9.0)
    marks = [text.get_text() for text in figure.axes[0].texts]
    assert sum(mark.endswith("(cap)") for mark in marks) == sum(mark.endswith("(bound)") for mark in marks) == 1
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "repetition cap or bound" in legend and "proposed, at its cap or bound" in legend
    text = " ".join(read_page(report.build(folder).read_text(encoding="utf-8")).text)
    assert "or that propose.bounds allows" in text and "Weights have no intervals: a search has <none>." in text
    edited(folder, "propose/proposal.json", lambda p: p["capped_by"].update({capped: 3}))
    with pytest.raises(UserError, match="capped_by.* must be text, not 3"):
        read.read(folder)


def test_a_worse_proposal_is_called_worse(workdir, tmp_path):
    folder = partial(workdir, tmp_path, "propose", "fit", "validate")
    edited(folder, "validate/validation.json", lambda v: v["mixtures"]["proposed"].update(per_seed=[1.01, 1.02, 1.03]))
    assert "natural 1.0000 ± 0.0058 (2.00 % higher" in report.summary(folder)[0]
    results = read.read(folder)
    assert "Trained for real, the proposal is not better than natural." in caveats.warnings(results)
    assert sentences.cards(results)[0].value == "+2.00 %"


def test_one_seed_has_no_error(tmp_path):
    folder = synthesise(tmp_path, domains=3, tasks=2, runs=9, steps=3, seeds=1)
    assert report.summary(folder)[0].startswith("proposed 0.9000 BPB against natural 1.0000 (10.00 % lower) and")
    text = report.build(folder).read_text(encoding="utf-8")
    assert "One seed per mixture" in text
    assert not re.search(r"\b(nan|None)\b", " ".join(read_page(text).text))


def test_external_swarm_has_neither_curves_nor_validation(workdir, tmp_path):
    folder = partial(
        workdir, tmp_path, *(f"swarm/{n}" for n in ("ratios.csv", "metrics.csv", "meta.json")), "fit", "propose"
    )
    reader = read_page(report.build(folder).read_text(encoding="utf-8"))
    assert [a["id"] for t, a in reader.seen if t == "figure"] == [
        *("mixture", "gains", "prices", "predicted", "coverage", "learning", "effects"),
    ]
    text = " ".join(reader.text)
    assert "prediction only" in text and "no training curves" in text
    assert report.summary(folder)[0].endswith("not validated by training")


def test_external_swarm_is_read_where_the_config_says(small, tmp_path):
    folder = partial(small, tmp_path, "fit")
    named = {k: str(small / f"swarm/{k}.{e}") for k, e in (("ratios", "csv"), ("metrics", "csv"), ("meta", "json"))}
    files.write_json(folder / "config.json", {"swarm": named, "fit": {"drop_metrics": ["_<i>task</i>"]}})
    table = read.read(folder).table
    assert len(table.runs) == 8 and table.diverged == ("run-003",) and table.tasks == ("minerva_math_number_1::olmes",)
    assert read.read(folder).natural == files.read_json(small / "propose/proposal.json")["natural"]
    # The meta may be given as text, and tasks be averaged before the fit.
    named["meta"] = (small / "swarm/meta.json").read_text()
    files.write_json(folder / "config.json", {"swarm": named, "fit": {"granularity": "aggregated"}})
    table = read.read(folder).table
    assert len(table.runs) == 8 and table.tasks == ("average",)


def test_missing_stages_are_named(small, tmp_path):
    folder = partial(small, tmp_path, "swarm", "config.json")
    text = " ".join(read_page(report.build(folder).read_text(encoding="utf-8")).text)
    assert "There is no proposal yet: run --stages=fit,propose,report." in text
    assert "There is no law yet: run --stages=fit,propose,report." in text
    assert report.summary(folder) == [
        "no proposal yet: run --stages=fit,propose,report",
        "repetition caps: unknown until there is a proposal; run --stages=fit,propose,report",
        "no law yet: run --stages=fit,propose,report",
    ]
    partial(small, folder, "fit")
    assert report.summary(folder)[0] == "no proposal yet: run --stages=propose,report"


def test_nothing_to_report(tmp_path):
    with pytest.raises(UserError, match="holds nothing to report"):
        report.build(tmp_path)


def test_damaged_files_are_named(workdir, tmp_path):
    folder = partial(workdir, tmp_path, "swarm", "fit")
    (folder / "swarm/curves.npz").write_bytes((workdir / "swarm/curves.npz").read_bytes()[:500])
    with pytest.raises(UserError, match=r"curves\.npz is damaged"):
        report.build(folder)
    (folder / "swarm/curves.npz").unlink()
    edited(folder, "fit/fit.json", lambda f: f.pop("law"))
    with pytest.raises(UserError, match=r"fit\.json lacks law"):
        report.summary(folder)


def test_pickle_is_not_loaded(workdir, tmp_path):
    folder = partial(workdir, tmp_path, "fit")
    (folder / "swarm").mkdir()
    np.savez(
        folder / "swarm/curves.npz",
        steps_T=np.arange(2),
        loss_KT=np.ones((1, 2)),
        runs=np.array(["a"], object),
        tokens_per_step=1,
    )
    with pytest.raises(UserError, match=r"curves\.npz is damaged"):
        read.read(folder)


def test_unwritable_report(small, tmp_path):
    folder = partial(small, tmp_path, "fit")
    (folder / "report").write_text("a file in the way")
    with pytest.raises(UserError, match="cannot write"):
        report.build(folder)


def test_effects_by_domain():
    rows = {"a": {"effects": {"x": -0.01, "y": 0.02}}, "b": {}, "c": {"effects": {"y": None, "x": 0.03, "z": 0.0}}}
    domains, effect_NM = read.effects_NM({"tasks": rows}, {"y": 0.7, "x": 0.2, "z": 0.1})
    assert domains == ["y", "x", "z"]
    np.testing.assert_array_equal(effect_NM, [[0.02, -0.01, np.nan], [np.nan, 0.03, 0.0]])
    # Without a natural distribution the mixture that the effects start from decides the order.
    assert read.effects_NM({"tasks": rows, "base": {"z": 0.5, "x": 0.3, "y": 0.2}})[0] == ["z", "x", "y"]
    shown = {0.0123: "+.012", -0.0004: "0", -0.5: "−.500", 1.23: "+1.2", -0.9999: "−1.0"}
    assert [mixture_plots._short(v) for v in shown] == list(shown.values())


def test_scatter_numbers(workdir):
    fit = read.read(workdir).fit
    task = next(iter(fit["tasks"]))
    arrays = law_plots.of_task(fit, task)
    assert law_plots.inside(arrays[0], *arrays[2:]) == fit["tasks"][task]["coverage_cv"]
    measured_K, predicted_K, low_K, high_K = law_plots.average(fit)
    np.testing.assert_allclose(measured_K, np.mean(list(fit["measured"].values()), axis=0))
    assert np.isnan(high_K).all(), "no intervals of the tasks stand in for the average's own"
    own = {"measured": [1.0, 2.0], "predicted_cv": [1.1, 2.1], "low_cv": [1.0, 2.0], "high_cv": [1.2, 2.2]}
    np.testing.assert_array_equal(law_plots.average({**fit, "average": own}), list(own.values()))
    assert law_plots.inside(np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.5, np.nan]), np.full(3, 4.0)) == 0.5
    assert law_plots.inside(measured_K, np.full(26, np.nan), high_K) is None
    measured = np.array([1.0, 2.0, 3.0, 4.0])
    lines = law_plots._score_lines((measured, measured + 0.5, measured - 1, np.array([9, 9, 9, 0.0])), 1.0)
    # R² = 1 − 4·0.25 / (2·1.5² + 2·0.5²) = 0.8.
    assert lines == ["Spearman 1.00, R² 0.80", "RMSE 0.5, 75 % inside"]


def test_learning_curve_in_words(workdir, page):
    fit = read.read(workdir).fit
    # 26 of 27 runs finished.
    expected = "10 more runs than the 26 there are: Spearman 0.876 → 0.879 expected, RMSE 0.0147 → 0.0142 BPB"
    assert (
        sentences.learning_line(fit) == f"{expected}; the change in Spearman is within the standard error of the curve."
    )
    assert expected in " ".join(read_page(page).text)
    curve = {"now": {"runs": 26, "spearman_mean": 0.85}, "next": {"runs": 36, "spearman_mean": 0.9}}
    line = "10 more runs than the 26 there are: Spearman 0.850 → 0.900 expected."
    assert sentences.learning_line({**fit, "learning_curve": curve}) == line
    del curve["next"]
    assert sentences.learning_line({**fit, "learning_curve": curve}) == "There is no extrapolation to more runs."
    # Cross-validation fits on four fifths of the runs, leave-one-out on all but one.
    assert [point[0] for point in law_plots._single_fits(fit, "spearman_mean")] == [pytest.approx(20.8), 25]


def test_quality_table_is_held_out_first(workdir):
    results = read.read(workdir)
    table = tables.quality_table(results)
    assert table.head[1:4] == ("Spearman", "R²", "RMSE, BPB")
    assert ["in-sample" in name for name in table.head] == [False] * 7 + [True] * 2
    mean, row = table.rows[0].cells, table.rows[2].cells
    worst = min(results.fit["tasks"], key=lambda t: results.fit["tasks"][t]["spearman_cv"])
    assert row[0] == worst and row[1] == f"{results.fit['tasks'][worst]['spearman_cv']:.3f}" and row[7] == "0.991"
    assert mean[:3] == ("mean over tasks", f"{results.fit['spearman_cv_mean']:.3f}", "0.900")


def test_the_law_warns_of_itself(workdir, tmp_path):
    folder = partial(workdir, tmp_path, "fit", "propose")
    fit = {"coverage_cv_mean": 0.8, "unseen": ["_seen_<never>"], "barely_sampled": {"rare": {"runs": 1, "max": 0.005}}}
    gain = {"mean": 0.0123, "low": -0.004, "high": 0.02, "probability": 0.87}
    edited(folder, "fit/fit.json", lambda f: f.update(fit))
    edited(folder, "propose/proposal.json", lambda p: (p.update(gain=gain), p.pop("fit", None)))
    told = caveats.warnings(read.read(folder))
    assert "No run contained _seen_<never>: the law knows nothing about it." in told
    assert [w for w in told if w.startswith("Barely sampled: rare (in 1 run, 0.5 % at most).")]
    assert [w for w in told if w.startswith("The 90 % intervals hold 80 % of") and "too narrow" in w]
    assert [w for w in told if "with a probability of 87 % only" in w]
    card = next(c for c in sentences.cards(read.read(folder)) if "Predicted gain" in c.title)
    assert card.value == "+0.0123" and "5–95 %: −0.0040 to +0.0200; above 0 with probability 87 %" in card.detail
    edited(folder, "fit/fit.json", lambda f: f.update(coverage_cv_mean=0.99))
    edited(folder, "propose/proposal.json", lambda p: p.update(gain={**gain, "probability": 0.95}))
    told = caveats.warnings(read.read(folder))
    assert [w for w in told if "wider than they need" in w] and not [w for w in told if "probability" in w]
    for held in (0.85, 0.9, 0.95):
        edited(folder, "fit/fit.json", lambda f, held=held: f.update(coverage_cv_mean=held))
        assert not [w for w in caveats.warnings(read.read(folder)) if "intervals hold" in w]


def test_shares():
    pairs = {0.9123: "91 %", 0.0123: "1.2 %", 0.9996: "99.9 %", 1.0: "100 %", 0.0: "0 %", 0.0996: "10 %"}
    assert [sentences.percent(share) for share in pairs] == list(pairs.values())


EXTRAS = ("low_cv", "high_cv", "coverage_curve", "learning_curve", "base", "barely_sampled", "level", "effect", "runs")


def test_an_older_fit_is_told_what_it_lacks(small, tmp_path):
    folder = partial(small, tmp_path, "fit", "propose")

    def age(fit):
        for key in [k for k in fit if k in EXTRAS or k.endswith("_mean") or "of_mean" in k]:
            del fit[key]
        fit["tasks"] = {t: {"spearman_cv": None, "coefficients": {}} for t in fit["tasks"]}

    edited(folder, "fit/fit.json", age)
    reader = read_page(report.build(folder).read_text(encoding="utf-8"))
    assert [a["id"] for t, a in reader.seen if t == "figure"] == ["mixture", "gains", "prices", "predicted"]
    text = " ".join(reader.text)
    for lack in ("no coverage of the law’s intervals", "no learning curve", "no effects of domains on tasks"):
        assert lack in text
    assert not re.search(r"\b(nan|None)\b", text)
    edited(folder, "fit/fit.json", lambda f: (f.pop("measured"), f.update(tasks={})))
    assert "no held-out predictions" in report.build(folder).read_text(encoding="utf-8")


def test_parts_of_a_figure_may_be_missing(small, tmp_path):
    folder = partial(small, tmp_path, "fit")

    def thin(fit):
        curve = fit["learning_curve"]
        for key in ("rmse_mean", "spearman_mean_error", "spearman_of_mean", "next", "repeats"):
            del curve[key]
        del fit["coverage_curve"], fit["low_cv"], fit["folds"]
        fit["unseen"] = list(fit["base"])

    edited(folder, "fit/fit.json", thin)
    reader = read_page(report.build(folder).read_text(encoding="utf-8"))
    assert [a["id"] for t, a in reader.seen if t == "figure"] == ["predicted", "coverage", "learning", "effects"]
    edited(folder, "fit/fit.json", lambda f: [row.pop("coverage_cv") for row in f["tasks"].values()])
    edited(folder, "fit/fit.json", lambda f: f.update(coverage_curve={"nominal": [0.5, 0.9], "covered": [0.6, None]}))
    assert 'id="coverage"' in report.build(folder).read_text(encoding="utf-8")


NULL = ("learning_curve", "coverage_curve", "low_cv", "high_cv", "barely_sampled", "unseen", "effect", "base", "test")


def test_null_stands_for_missing(small, tmp_path):
    folder = partial(small, tmp_path, "fit", "propose")
    edited(folder, "fit/fit.json", lambda f: f.update(dict.fromkeys([*NULL, "coverage_cv_mean", "spearman_cv_mean"])))
    gone = dict.fromkeys(("gain", "weights_std", "predicted_low", "predicted_high", "certificate", "shadow_prices"))
    edited(folder, "propose/proposal.json", lambda p: p.update(gone))
    text = " ".join(read_page(report.build(folder).read_text(encoding="utf-8")).text)
    assert not re.search(r"\b(nan|None)\b", text)
    assert "Spearman – mean over tasks" in report.summary(folder)[2]


def test_a_curve_may_be_one_point(small, tmp_path):
    folder = partial(small, tmp_path, "fit")
    curve = {"runs": [6], "spearman_mean": [0.7], "rmse_mean": [0.02], "next": None}
    edited(folder, "fit/fit.json", lambda f: f.update(learning_curve=curve))
    text = report.build(folder).read_text(encoding="utf-8")
    assert 'id="learning"' in text and "There is no extrapolation" in text


def test_a_law_that_is_not_convex_has_no_gap(workdir, tmp_path):
    folder = partial(workdir, tmp_path, "fit", "propose")
    certificate = {"gap": None, "relative_gap": None, "starts": None}
    spread = dict.fromkeys(files.read_json(folder / "propose/proposal.json")["weights"], 0.01)
    change = {"status": "search over 2000 candidates", "certificate": certificate, "weights_std": spread}
    tasks = files.read_json(folder / "fit/fit.json")["tasks"]
    change |= {"predicted_low": dict.fromkeys(tasks, 0.8), "predicted_high": dict.fromkeys(tasks, 0.9)}
    edited(folder, "propose/proposal.json", lambda p: p.update(change))
    results = read.read(folder)
    facts = dict(r.cells for r in tables.run_tables(results)[-1].rows)
    assert facts["status"] == "search over 2000 candidates" and facts["duality gap, BPB"] == "unknown, see status"
    assert facts["starts"] == "–"
    assert tables.domain_table(results).rows[0].cells[3].endswith(" ± 1.00")
    table = tables.task_table(results)
    assert table.rows[0].cells[table.head.index("its interval")] == "0.8000 to 0.9000"
    report.build(folder)


def test_error_of_a_comparison():
    a, b = read.estimate([1.0, 2.0, 3.0]), read.estimate([4.0, 6.0])
    assert a.error == pytest.approx(1 / np.sqrt(3)) and b.error == pytest.approx(1.0)
    found = read.compare(a, b)
    assert found.percent == pytest.approx(60) and found.errors == pytest.approx(3 / np.sqrt(4 / 3))
    # No spread at all is no evidence of infinite certainty.
    assert read.compare(read.estimate([1.0, 1.0]), read.estimate([2.0, 2.0])).errors is None


def test_realised_mixture_over_its_cap_is_told(workdir, tmp_path):
    folder = partial(workdir, tmp_path, "propose", "fit", "validate", "config.json")
    assert not [w for w in caveats.warnings(read.read(folder)) if "exceeds" in w]
    weights = files.read_json(folder / "propose/proposal.json")["weights"] | {HOSTILE: 0.3}
    edited(folder, "validate/validation.json", lambda v: v["mixtures"]["proposed"].update(weights=weights))
    assert [w for w in caveats.warnings(read.read(folder)) if "exceeds" in w and HOSTILE in w]


def test_diverged_members_are_told_and_drawn(workdir):
    results = read.read(workdir)
    assert any("Diverged" in w and "run-003" in w for w in caveats.warnings(results))
    assert "run-003" not in training_plots.final_bpb(results)
    x_P, smooth_KP = training_plots.thinned(results.curves)
    assert x_P[-1] == 120 * 2048 and np.isfinite(smooth_KP[4]).all()
    assert (np.isnan(smooth_KP[3]) == (x_P > 60 * 2048)).all()


def test_thinned_is_a_mean_over_windows():
    loss_T = np.random.default_rng(0).normal(3, 1, 3000)
    x_P, smooth_KP = training_plots.thinned(read.Curves(("a",), np.arange(1, 3001), loss_T[None, :], 10))
    steps_P = x_P // 10
    assert len(x_P) <= 120 and steps_P[0] == 1 and steps_P[-1] == 3000 and (np.diff(steps_P) > 0).all()
    for start, end, value in zip([0, *steps_P[:-1]], steps_P, smooth_KP[0]):
        assert value == pytest.approx(loss_T[start:end].mean())


def test_nearest_natural(workdir):
    results = read.read(workdir)
    natural_M = np.array(list(results.natural.values()))
    distances = {r: abs(row - natural_M).sum() for r, row in zip(results.table.runs, results.table.ratios_KM)}
    assert training_plots.nearest_natural(results) == min(distances, key=distances.get)


@pytest.mark.slow
def test_paper_size(tmp_path, monkeypatch):
    # The layout is what is tried here, not the resolution.
    monkeypatch.setattr("olmix_jax.report.style.DPI", 48)
    folder = synthesise(tmp_path, domains=24, tasks=130, runs=127, steps=700)
    edited(folder, "fit/fit.json", lambda f: f.update(unseen=["source:topic_5:high"]))
    results = read.read(folder)
    ranks = {t: r["spearman_cv"] for t, r in results.fit["tasks"].items()}
    chosen, ordered = law_plots.panels(results), sorted(ranks, key=ranks.get)
    assert chosen == ordered[:4] + ordered[64:67] + ordered[-4:]
    text = report.build(folder).read_text(encoding="utf-8")
    assert "Of 130 tasks, the 4 worst, 3 median and 4 best" in text and "Of 130 tasks, the 120 that change most" in text
    assert len(tables.task_table(results).rows) == 130
    assert "No run contained source:topic_5:high" in text


def test_tables_have_a_cell_per_column(workdir, small, tmp_path):
    for folder in (workdir, partial(small, tmp_path, "fit", "propose")):
        results = read.read(folder)
        for table in (
            *(tables.domain_table(results), tables.task_table(results), tables.quality_table(results)),
            *tables.run_tables(results),
        ):
            assert {len(row.cells) for row in table.rows} == {len(table.head) or 2}
    row = {r.cells[0]: r for r in tables.domain_table(read.read(workdir)).rows}[HOSTILE]
    assert row.mark and row.cells[1] == "200k" and row.cells[6:] == ("4.00", "12.3")


def test_labels_fit_and_are_drawable():
    assert label("short") == "short"
    assert len(label("x" * 99, 17)) == 17 and label("head" + "x" * 99 + "tail", 17).startswith("head")
    assert label("領\tb") == "□□b"


def test_labels_stay_apart():
    assert labels(["a_task::olmes", "b_task::olmes"], 30) == ["a_task", "b_task"]
    assert labels(["code:python::high", "code:python::low"], 30) == ["code:python::high", "code:python::low"]
    names = [f"minerva_math_number_{i}_of_the_set::olmes" for i in range(30)]
    shown = labels(names, 19)
    assert len(set(shown)) == 30 and max(map(len, shown)) <= 19


def test_quantities():
    pairs = {0: "0", 950: "950", 1234: "1.23k", 999_600: "1M", 5.3e12: "5.3T", 1.5: "1.5", None: "–"}
    assert [quantity(v) for v in pairs] == list(pairs.values())
    assert re.fullmatch(r"9,?999T", quantity(9.999e15))


def test_a_proof_of_another_proposal_is_left_out(workdir, tmp_path, caplog):
    folder = shutil.copytree(workdir, tmp_path / "stale")
    proof = files.read_json(folder / "validate/validation.json")
    weights = files.read_json(folder / "propose/proposal.json")["weights"]
    files.write_json(folder / "validate/validation.json", {**proof, "proposal": weights})
    assert read.read(folder).validation is not None
    files.write_json(folder / "validate/validation.json", {**proof, "proposal": dict.fromkeys(weights, 0.0)})
    with caplog.at_level("WARNING", logger="olmix_jax"):
        found = read.read(folder)
    assert found.validation is None and found.validation_curves is None and "another proposal" in caplog.text


def explored(proposal):
    """All that a proposal may hold: paths with a hole, a front, the choice of λ, groups, guard, tail, files."""
    names, tasks = list(proposal["weights"]), list(proposal["predicted"])
    weights, natural = list(proposal["weights"].values()), list(proposal["natural"].values())
    mixed = [[a * (1 - s) + b * s for a, b in zip(weights, natural)] for s in (0.0, 0.5, 1.0)]
    families = {"a_<i>family</i>": 1.0, "b": 1.1, "c": 1.2}
    points = [{"family_weights": families, "predicted": {f: v + 0.01 * i for f, v in families.items()}} for i in (1, 2)]
    half = {d: w / 2 for d, w in proposal["weights"].items()}
    return {
        **{"weights_low": half, "weights_high": {d: 3 * w for d, w in half.items()}, "anchor": proposal["natural"]},
        **{"lower": {d: 0.01 if d == names[1] else 0.0 for d in names}, "repeat_prices": {names[0]: 0.0345}},
        **{
            k: {t: v + x for t, v in proposal["predicted"].items()}
            for k, x in (("predicted_low", -0.01), ("predicted_high", 0.01))
        },
        "groups": [
            {"name": "<b>g</b>:*", "domains": names[:2], "low": 0, "high": 0.2, "weight": 0.2, "multiplier": 0.3}
        ],
        "guard": {
            "by": "task",
            "slack": 0.015,
            "names": tasks,
            "multipliers": {tasks[0]: 0.4},
            "binding": tasks[:1],
            "worst": 0.015,
        },
        "tail": {"share": 0.1, "value": 1.3, "natural": 1.4, "samples": 100},
        "path": {
            **{"kl_weight": [0.0, 0.05, 0.5], "max_repeats": [2.0, 4.0], "kl": [[0.1, 0.1]] * 3},
            "weights": [[None if i == 0 else m, m] for i, m in enumerate(mixed)],
            **{"predicted": [[None, 1.1], [1.2, 1.15], [1.3, 1.25]], "predicted_natural": 1.3},
            "chosen": {"kl_weight": 0.05, "max_repeats": 4.0},
        },
        "choice": {
            **{"kl_weight": [0.01, 0.05], "gain": [0.1, 0.08], "gain_error": [0.02, None]},
            "best": 0.01,
            "used": False,
            "splits": 4,
        },
        "pareto": {
            "families": list(families),
            "points": points,
            "natural": {f: v + 1 for f, v in families.items()},
            "proposed": families,
        },
        "counts": {"sequences": dict.fromkeys(names, 3), "length": 128, "total": 3 * len(names)},
        "handover": {
            "megatron": {"file": "propose/handover/<megatron>.json", "realised": half, "largest_error": 0.00012}
        },
    }


MORE = ("mixture", "gains", "prices", "paths", "choice", "front")


def test_all_of_a_proposal_is_shown(small, tmp_path):
    folder = partial(small, tmp_path, "propose")
    edited(folder, "propose/proposal.json", lambda p: p.update(explored(p)))
    page = report.build(folder).read_text(encoding="utf-8")
    reader = read_page(page)
    assert tuple(a["id"] for t, a in reader.seen if t == "figure") == MORE
    text = " ".join(reader.text)
    for told in (
        *("Thin lines: 5–95 %", "Green marks: the least", "<b>g</b>:*", "Dashed: the guard", "(multiplier 0.4)"),
        *("Chosen by this: λ = 0.01; the proposal uses 0.05", "mean over 4 splits", "propose/handover/<megatron>.json"),
        *("worst 10 % of samples", "from λ = 0 to 0.5: 1.1000 to 1.2500 BPB (used: 0.05)", "from k = 2 to 4: 1.2000"),
    ):
        assert told in text
    assert "<b>g" not in page and "<megatron>" not in page and "<i>family" not in page
    assert not re.search(r"\b(nan|None)\b", text) and "WORST" not in text


def test_the_worst_mixture_is_called_so(small, tmp_path):
    folder = partial(small, tmp_path, "propose")
    edited(folder, "propose/proposal.json", lambda p: p.update(worst=True))
    reader = read_page(report.build(folder).read_text(encoding="utf-8"))
    assert [t for t, a in reader.seen if a.get("role") == "alert"] == ["strong"] and sentences.WORST in reader.text
    assert report.summary(folder)[0].startswith(sentences.WORST)


def test_numbers_of_a_proposal(small):
    proposal = files.read_json(small / "propose/proposal.json")
    proposal |= explored(proposal)
    (_, x, _, bpb_P, used), (_, _, weights_PM, *_) = paths_of(proposal)
    assert x.tolist() == [0.0, 0.05, 0.5] and bpb_P.tolist() == [1.1, 1.15, 1.25] and used == 0.05
    assert weights_PM.shape == (2, 3)
    rows = differences(proposal)
    assert [row[0] for row in rows.values()] == sorted(row[0] for row in rows.values())
    assert all(high - low == pytest.approx(0.02) for _, low, high in rows.values())
    assert ranked({"a": 0.0, "b": 1.0, "c": 2.0, "d": None}) == {"c": 2.0, "b": 1.0}
    assert proposal_sections.group_table(proposal).rows[0].mark
    # Without caps there is one k, unknown, and so a path along λ only.
    path = proposal["path"]
    alone = {k: [row[1:] for row in path[k]] for k in ("weights", "predicted")}
    proposal["path"] = {**path, "max_repeats": [None], **alone, "chosen": {"kl_weight": 0.05, "max_repeats": None}}
    assert [part[0] for part in paths_of(proposal)] == ["kl_weight"]


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        *(
            ("weights_low", [1], "weights_low"),
            ("predicted_high", {"a": "x"}, "predicted_high.a"),
            ("worst", 1, "worst"),
        ),
        *(("path", {"kl_weight": 3}, "path.kl_weight"), ("choice", {"kl_weight": [1.0], "gain": []}, "choice.gain")),
        *(("pareto", {"families": ["a"], "points": [{}]}, "pareto.points"), ("handover", {"m": {}}, "handover.m.file")),
        *(
            ("guard", {"slack": None}, "guard.slack"),
            ("groups", [{"name": 1}], "groups"),
            ("tail", {"share": "a"}, "tail"),
        ),
    ],
)
def test_a_malformed_proposal_names_its_field(small, tmp_path, field, value, named):
    folder = partial(small, tmp_path, "propose")
    edited(folder, "propose/proposal.json", lambda p: p.update({field: value}))
    with pytest.raises(UserError, match=rf"proposal\.json: {re.escape(named)}"):
        report.build(folder)

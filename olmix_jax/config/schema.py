"""Every setting, its unit, its default and where the default comes from.

Configs in ``configs/`` are ml-collections ``ConfigDict``s made by :func:`default` and changed from there;
:func:`from_dict` turns the result into the frozen dataclasses below at the border of the library.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Where text comes from and how it becomes tokens."""

    # A folder with one sub-folder, or one file, per domain: of text (.txt, .md, .jsonl, [.gz|.zst]), or of tokens as
    # other engines write them (.npy, .ds, .bin), also as a URL or as JSON {domain: pattern} (docs/scale.md). Empty: the
    # built-in corpus, made of the Python installation's own text.
    path: str = ""
    # The tokenizer.json (byte-level BPE) that token files were made with, or that text is encoded with; empty: one is
    # trained.
    tokenizer: str = ""
    # Bytes of text kept, all domains together, each thinned by the same factor; 0 keeps everything.
    max_bytes: int = 0
    # Share of text held out of training, whole files by hash of their name.
    heldout: float = 0.1
    # Entries of the byte-level BPE vocabulary (dolma2 has 100,278; small proxies want a small one).
    vocabulary: int = 2048
    # A domain with fewer unique training tokens than this is an error.
    min_tokens: int = 4096


@dataclasses.dataclass(frozen=True)
class Tasks:
    """What mixtures are judged on."""

    # A folder of ‹task›.jsonl files with {"prompt", "answer"} per line; empty for none of the user's own.
    path: str = ""
    # Whether to make tasks from held-out text: the built-in corpus's own; with a corpus of the user's only where no
    # other task is given.
    builtin: bool = True
    # The folder that `make olmes` filled, for the paper's own tasks; empty for none.
    olmes: str = ""
    # Examples per task at most, the first ones by hash of their content.
    max_examples: int = 64
    # Tokens of prompt and answer together at most; prompts lose their beginning, answers their end.
    length: int = 128


@dataclasses.dataclass(frozen=True)
class Swarm:
    """Which mixtures are tried."""

    # Number of mixtures K; None: 3(M + 1), the paper's recommendation (RQ2).
    size: int | None = None
    # "sparse" (weights may be exactly 0; topics of one corpus) or "dense" (curated sources). Paper RQ3.
    sparsity: str = "sparse"
    # Range of the Dirichlet strength, drawn log-uniformly: concentration = strength × M × natural^0.7, normalised. Up
    # to 1 determines coefficients better than up to 5 (docs/log.md).
    strength: tuple[float, float] = (0.1, 1.0)
    # Weights below this become 0 in a sparse swarm, and are raised to it in a dense one. None: 0.02 or 1e-4, but one
    # sequence at least.
    min_weight: float | None = None
    # Two mixtures closer than this in total variation are duplicates, and the later one is drawn again.
    min_distance: float = 0.02
    # Every domain is in at least this many mixtures.
    min_runs: int = 4
    # Seed of the sampler; None derives it from `seed`.
    seed: int | None = None
    # Members that a device holds at once, the others in waves; None: as many as fit its memory.
    members_per_device: int | None = None
    # "3/16": train the third of sixteen parts of the members only, as one job of an array; without it the parts that
    # are there are put together.
    part: str = ""
    # An external swarm: its tables. With them nothing is trained here.
    ratios: str = ""
    metrics: str = ""
    meta: str = ""
    # An external held-out swarm that the law is scored on.
    test_ratios: str = ""
    test_metrics: str = ""


@dataclasses.dataclass(frozen=True)
class Proxy:
    """The small models."""

    # A name in olmix_jax/proxy/model.py: PRESETS.
    preset: str = "1M"
    # Tokens in a training sequence (paper: 2048).
    length: int = 2048
    # "float32" or "bfloat16": the type matrix products are computed in; weights and optimiser stay float32.
    dtype: str = "float32"


@dataclasses.dataclass(frozen=True)
class Train:
    """How the proxies are trained. Trainer defaults: METHOD §4, the paper's release."""

    # How members are mapped: "vmap", "map", "pmap", "shard", "fsdp" (one at a time, over all devices) or "auto".
    # None: "fsdp" where no device holds a member, "shard" with several, else "map" on a CPU, "vmap" on an accelerator.
    mapping: str | None = None
    # Members that one device computes together in "map", and in "shard" on a CPU; 0: all of them.
    map_batch: int = 1
    # Steps, and sequences in a step.
    steps: int = 1000
    batch: int = 64
    # Sequences of a step whose activations are held at once, for gradients that are summed up; None: all. With "fsdp"
    # the next multiple of the devices.
    micro_batch: int | None = None
    # Whether a block's inside is computed again for its gradient instead of being kept: a third more time in blocks,
    # a fraction of the memory.
    remat: bool = False
    # Peak learning rate; None: 0.0047 · (parameters / 108M)^(-1/3).
    lr: float | None = None
    # Share of the steps that warm up linearly; cosine to `lr_end` · lr follows, to the last step.
    warmup: float = 0.1
    lr_end: float = 0.1
    weight_decay: float = 0.033
    beta1: float = 0.9
    beta2: float = 0.95
    # Global gradient norm at most.
    clip: float = 1.0
    # Weight of (log Z)² in the loss.
    z_loss: float = 1e-5
    # Steps from one checkpoint to the next.
    checkpoint_every: int = 100
    # Members see the same documents in the same order, from the same initial weights.
    common: bool = True
    # Repetition-matched proxies: of every domain a proxy has the part (its tokens / R) only, so that a mixture repeats
    # a domain in a proxy as often as it would in the target run, and the law sees what that costs.
    match_repeats: bool = True
    # Seed of initial weights and of document order; None derives it from `seed`.
    seed: int | None = None


@dataclasses.dataclass(frozen=True)
class Fit:
    """From the table to a law."""

    # The family, a file of olmix_jax/laws. "warped_gp" predicts held-out runs best at every swarm size
    # (benchmarks/laws.md); "log_linear" is the published objective, exactly (METHOD §2); also bimix, autoscale, gp,
    # search and lightgbm.
    law: str = "warped_gp"
    # Starting points per task, of the families that need them.
    starts: int = 16
    # Folds of the cross-validation that the reported quality comes from; K of them is leave-one-out.
    folds: int = 5
    # Metric columns left out of the fit, beside those that meta.json drops; and, if any are named here, the only ones
    # that are read. Names as in the file; one that it does not have is an error.
    drop_metrics: tuple[str, ...] = ()
    keep_metrics: tuple[str, ...] = ()
    # What to do about an empty score (or NaN, NA, null): "error", or leave the run ("drop_run") or the task
    # ("drop_task") out and say so.
    missing: str = "error"
    # Share (at most 1) or number (more than 1) of the runs that are used, drawn by `seed`; the release's `train_split`.
    train_split: float = 1.0
    # Average the 57 subjects of MMLU into its four groups, weighted by test questions, as the paper does (METHOD §4);
    # a table without subjects is left as it is.
    mmlu_groups: bool = True
    # What a law is fitted to: "task" (a law for each), "family" (for each family's mean) or "aggregated" (for the mean
    # of all). Paper RQ5: per task is best.
    granularity: str = "task"
    # JSON object {family: [task names or patterns as qa_*]}, or a file with one; empty: math, code and qa of the
    # paper's tasks (METHOD §4).
    families: str = ""
    # Samples of the law's parameters that error bars come from, posterior draws or bootstrap refits; 100 give a
    # standard deviation to 7 %. 0: none.
    resamples: int = 100


@dataclasses.dataclass(frozen=True)
class Propose:
    """From the law to a mixture (METHOD §2, step 4)."""

    # λ of KL(p ‖ natural) [BPB per nat]. Paper RQ7. And whether to take the λ that half of the runs choose for the
    # other half instead, the proposal's `choice`.
    kl_weight: float = 0.05
    choose_kl_weight: bool = False
    # k: most epochs over a domain in the target run. Paper RQ6.
    max_repeats: float = 4.0
    # R: tokens of the target run; None: those of one validation run. An external swarm without it is not capped.
    target_tokens: float | None = None
    # JSON object, or a file with one, of weights per task; empty: all equal. Normalised; tasks not named weigh 0.
    task_weights: str = ""
    # JSON object, or a file with one, of {domain: [least, most]}, null for no limit, or {domain: weight} to fix it; a
    # pattern as "stack-edu:*" limits the sum of all that match.
    bounds: str = ""
    # The mixture {domain: weight} that KL pulls towards, as JSON, a file, or a proposal's file; empty: natural.
    anchor: str = ""
    # Blocks of domains that keep their relative ratios: a JSON object {block: {domain: ratio}}, or a file with one.
    keep_ratios: str = ""
    # No task ("task") or family's mean ("family") may be predicted worse than under natural by more than this [BPB].
    guard: float | None = None
    guard_by: str = "task"
    # Minimise the mean over this share of the law's samples, the worst ones: 1 for the expected value, 0 for the worst
    # case; None: the law itself.
    tail: float | None = None
    # The worst mixture within the bounds instead, as a counterfactual.
    worst: bool = False
    # "exact"; or the published baselines: the best run ("search"), the best of sampled mixtures ("simulation").
    method: str = "exact"
    # Whether to add to the proposal what the report shows beside it: paths over λ and k, the front between families,
    # and the choice of λ.
    explore: bool = True
    # Where trainers find a domain's data, in the files for them (propose/handover).
    data_path: str = "data/{domain}"
    # Mixtures to train next that would tell the law most, written to propose/next.csv; 0: none.
    next_runs: int = 8


@dataclasses.dataclass(frozen=True)
class Validate:
    """The proof: fresh models on natural, uniform and proposed mixtures."""

    # Preset, steps and learning rate of the models; everything else is as for the proxies. None: the proxies'.
    preset: str | None = None
    steps: int | None = None
    lr: float | None = None
    # Models per mixture, each with its own initial weights and document order, the same ones for every mixture.
    seeds: int = 3


@dataclasses.dataclass(frozen=True)
class Update:
    """A changed domain set: what to keep of an earlier run's mixture (METHOD §3)."""

    # The finished workdir of the run before; empty: no update, but a first run.
    parent: str = ""
    # The YAML or JSON file that says what changed; empty: found out from domains' names and content.
    file: str = ""
    # Which unaffected domains are recomputed beside the affected ones: "auto" (those that pay,
    # olmix_jax/update/recompute.py),
    # "full" (all), "full_reuse" (none), "partial_reuse" (those of `recompute`), "swarm_reuse" (all; old runs save new).
    strategy: str = "auto"
    recompute: tuple[str, ...] = ()
    # Whether old runs that the new set can express inform the law, each for what it proves to be worth.
    old_runs: bool = True
    # Share of full recomputation's runs that "auto" may take, or what the affected domains alone do (paper: 26 %).
    budget: float = 0.3
    # Runs of the new swarm; None: the power of two nearest 3(weights + 1), as in the paper.
    proxies: int | None = None


@dataclasses.dataclass(frozen=True)
class Track:
    """Where training's progress goes, beside the log and train/metrics.jsonl (requirements-track.txt)."""

    # Whether to write TensorBoard's files, in train/tensorboard.
    tensorboard: bool = False
    # A project of Weights & Biases; empty for none.
    wandb: str = ""


@dataclasses.dataclass(frozen=True)
class Plan:
    """A dry run: what the swarm will need (--stages=plan)."""

    # A TPU topology to compile for ("v4:2x2x4", "v5e:16x16", "v5p:2x2x2", "v6e:8x8"); empty: the devices at hand.
    topology: str = ""
    # Share of the devices' peak that hours are reckoned with.
    utilisation: float = 0.4
    # What a device costs for an hour, in any currency; None: not said.
    price: float | None = None


@dataclasses.dataclass(frozen=True)
class Config:
    """All settings of a run."""

    # The one seed that every draw derives from.
    seed: int = 0
    # A YAML file of the published `olmix fit`, whose settings replace those here except the ones given as flags; empty
    # for none, and after it has been read.
    olmix_yaml: str = ""
    corpus: Corpus = Corpus()
    tasks: Tasks = Tasks()
    swarm: Swarm = Swarm()
    proxy: Proxy = Proxy()
    train: Train = Train()
    fit: Fit = Fit()
    propose: Propose = Propose()
    validate: Validate = Validate()
    update: Update = Update()
    track: Track = Track()
    plan: Plan = Plan()

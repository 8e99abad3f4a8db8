"""All settings: meaning, unit and default of each, and where the default comes from.

Files in ``configs/`` start from these defaults (:func:`olmix_jax.config.default`) and change some of them; flags such
as ``--config.swarm.size=64`` change single fields. :func:`olmix_jax.config.from_dict` checks the result and builds the
frozen dataclasses below. METHOD is docs/method.md; RQ numbers are the paper's research questions.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Where the text comes from and how it becomes tokens."""

    # A folder with one sub-folder or one file per domain: text (.txt, .md, .jsonl, .json, each also .gz or .zst) or
    # token files of other trainers (.npy, .ds, .bin). Token files may also be given by URL, or as JSON
    # {domain: pattern} (docs/scale.md). Empty: the built-in corpus, made from the text of the Python installation.
    path: str = ""
    # A tokenizer.json (byte-level BPE) to encode text with; for token files, the one they were made with. Empty: train
    # a tokenizer.
    tokenizer: str = ""
    # Leave out documents that are not valid (lines that are no JSON object with a `text`, text that is not UTF-8) and
    # count them, instead of stopping at the first.
    skip_bad: bool = False
    # Maximum bytes of text to keep over all domains; each domain is reduced by the same factor. 0: keep everything.
    max_bytes: int = 0
    # Share of the text held out of training; whole files, chosen by the hash of their names.
    heldout: float = 0.1
    # Entries of the trained vocabulary (dolma2 has 100,278; small proxies need a small one).
    vocabulary: int = 2048
    # Minimum unique training tokens per domain; a smaller domain is an error.
    min_tokens: int = 4096


@dataclasses.dataclass(frozen=True)
class Tasks:
    """What mixtures are scored on."""

    # A folder of ‹task›.jsonl files with {"prompt", "answer"} on each line; empty: none.
    path: str = ""
    # Make tasks from held-out text. With your own corpus this has an effect only if no other tasks are given.
    builtin: bool = True
    # The folder that `make olmes` filled with the paper's tasks; empty: none.
    olmes: str = ""
    # Maximum examples per task; those with the smallest hashes of their content are kept.
    max_examples: int = 64
    # How a task's BPB combines its examples. "document": the mean of their bits per byte, as OLMES computes the paper's
    # columns. "pooled": all bits divided by all bytes, so that long answers count more. None: "document" for
    # tasks.olmes, else "pooled". Tasks that an update takes over from its parent stay as they were.
    aggregate: str | None = None
    # Maximum tokens of prompt and answer together. Longer prompts lose their beginning, longer answers their end.
    length: int = 128


@dataclasses.dataclass(frozen=True)
class Swarm:
    """Which mixtures are sampled, or the files of a swarm that was trained elsewhere."""

    # Number of mixtures K. None: 3(M + 1) for M domains, as the paper recommends (RQ2).
    size: int | None = None
    # "sparse": small weights become exactly 0, for topics of one corpus. "dense": every weight is positive, for curated
    # sources. Paper RQ3.
    sparsity: str = "sparse"
    # Range (low, high) of the Dirichlet strength, drawn log-uniformly. Concentrations are strength × M × prior, with
    # prior ∝ natural^0.7. Strengths up to 1 determine the coefficients better than up to 5 (docs/log.md).
    strength: tuple[float, float] = (0.1, 1.0)
    # Minimum weight. In a sparse swarm smaller weights become 0; in a dense one they are raised to it. None: 0.02 if
    # sparse, 1e-4 if dense, but at least one sequence.
    min_weight: float | None = None
    # Smallest total variation between two mixtures; a closer one is drawn again.
    min_distance: float = 0.02
    # Smallest number of mixtures that sample each domain.
    min_runs: int = 4
    # Seed of the sampler. None: derived from `seed`.
    seed: int | None = None
    # Members that one device trains at once; the others follow in waves. None: as many as fit into its memory.
    members_per_device: int | None = None
    # Train only a part of the members, as one job of an array: "3/16" is the third of sixteen parts. Empty: train all
    # members, or merge the parts if the workdir has any.
    part: str = ""
    # Files of a swarm trained elsewhere: mixtures, scores, and sizes of the domains (format: olmix_jax/swarm/table.py).
    # No proxies are trained then.
    ratios: str = ""
    metrics: str = ""
    meta: str = ""
    # Files of a held-out swarm that the law is scored on.
    test_ratios: str = ""
    test_metrics: str = ""


@dataclasses.dataclass(frozen=True)
class Proxy:
    """The proxies: small models, one per mixture."""

    # A name in olmix_jax/proxy/model.py: PRESETS.
    preset: str = "1M"
    # Tokens per training sequence (paper: 2048).
    length: int = 2048
    # Type of the matrix products: "float32" or "bfloat16". Weights and optimiser state are always float32.
    dtype: str = "float32"


@dataclasses.dataclass(frozen=True)
class Train:
    """How the proxies are trained. Optimiser defaults: METHOD §4, from the paper's release."""

    # How members are mapped to devices: "vmap", "map", "pmap", "shard", "fsdp" (one member at a time, over all devices)
    # or "auto" (the fastest in a test). None: "fsdp" if a member is too large for one device, else "shard" on several
    # devices, else "map" on a CPU and "vmap" on an accelerator.
    mapping: str | None = None
    # Members that one device computes together in "map", and in "shard" on a CPU; 0: all of them.
    map_batch: int = 1
    # Optimiser steps, and sequences per step.
    steps: int = 1000
    batch: int = 64
    # Sequences per gradient-accumulation step; fewer need less memory. None: the whole batch. With "fsdp" it is rounded
    # up to a multiple of the number of devices.
    micro_batch: int | None = None
    # Recompute the activations inside a block for its gradient instead of storing them: a third more time in blocks,
    # and a fraction of the memory.
    remat: bool = False
    # Peak learning rate. None: 0.0047 · (parameters / 108M)^(-1/3).
    lr: float | None = None
    # Share of the steps with linear warm-up. The rate then falls along a cosine to `lr_end` · `lr` at the last step.
    warmup: float = 0.1
    lr_end: float = 0.1
    # AdamW: decoupled weight decay, β₁ and β₂.
    weight_decay: float = 0.033
    beta1: float = 0.9
    beta2: float = 0.95
    # Largest global norm of the gradient; larger ones are scaled down.
    clip: float = 1.0
    # Weight of (log Z)² in the loss.
    z_loss: float = 1e-5
    # Steps between checkpoints.
    checkpoint_every: int = 100
    # Give all members the same initial weights and the same documents in the same order.
    common: bool = True
    # Repetition-matched proxies: each proxy uses only the share (its tokens / R) of every domain. A mixture then
    # repeats a domain as often in the proxy as in the target run, and the scores include the cost of repetition.
    match_repeats: bool = True
    # Seed of the initial weights and of the document order. None: derived from `seed`.
    seed: int | None = None


@dataclasses.dataclass(frozen=True)
class Fit:
    """How a law is fitted to the table of scores."""

    # The family, a module of olmix_jax/laws: warped_gp, log_linear, bimix, autoscale, gp, search or lightgbm.
    # "warped_gp" predicts held-out runs best at every swarm size (benchmarks/laws.md); "log_linear" is the published
    # objective, exactly (METHOD §2).
    law: str = "warped_gp"
    # Starting points per task, for families that use several.
    starts: int = 16
    # Folds of the cross-validation behind the reported quality; K folds are leave-one-out.
    folds: int = 5
    # Metric columns to drop, in addition to those in meta.json, and metric columns to keep (empty: all). Names are
    # those in the file; an unknown name is an error.
    drop_metrics: tuple[str, ...] = ()
    keep_metrics: tuple[str, ...] = ()
    # What to do about a missing score (empty, NaN, NA, null): "error", or drop its run ("drop_run") or its task
    # ("drop_task").
    missing: str = "error"
    # Share of the runs (up to 1) or number of runs (above 1) to fit, drawn at random by `seed`; as in the release.
    train_split: float = 1.0
    # Average the 57 subjects of MMLU into its four groups, weighted by test questions (METHOD §4). No effect on a table
    # without subjects.
    mmlu_groups: bool = True
    # What a law is fitted to: each "task", the mean of each "family", or the mean of all tasks ("aggregated"). Paper
    # RQ5: per task is best.
    granularity: str = "task"
    # Families as a JSON object {family: [task names or patterns such as qa_*]}, or a file with one. Empty: math, code
    # and qa of the paper's tasks (METHOD §4).
    families: str = ""
    # Samples of the law's parameters for error bars: posterior draws or bootstrap refits. 100 samples give a standard
    # deviation to 7 %. 0: no error bars.
    resamples: int = 100


@dataclasses.dataclass(frozen=True)
class Propose:
    """How a mixture is proposed by the law (METHOD §2, step 4)."""

    # λ, the weight of KL(p ‖ natural) [BPB per nat]. Paper RQ7.
    kl_weight: float = 0.05
    # Choose λ from the runs instead: laws fitted to one half of the runs propose mixtures, and laws fitted to the other
    # half predict their BPB.
    choose_kl_weight: bool = False
    # k: maximum epochs over a domain in the target run. Paper RQ6.
    max_repeats: float = 4.0
    # R: tokens of the target run. None: those of one validation model; for an external swarm, no repetition caps.
    target_tokens: float | None = None
    # Weights {task: weight} as JSON or a file; normalised, and 0 for tasks that are not named. Empty: equal weights.
    task_weights: str = ""
    # Bounds {domain: [lower, upper]} as JSON or a file; null for no limit, or {domain: weight} to fix a weight. A
    # pattern such as "stack-edu:*" bounds the sum of all domains that match.
    bounds: str = ""
    # The mixture that KL pulls towards: {domain: weight} as JSON or a file, or a proposal.json. Empty: natural.
    anchor: str = ""
    # Blocks of domains with fixed ratios to each other: {block: {domain: ratio}} as JSON or a file. Empty: none.
    keep_ratios: str = ""
    # How much worse than under the natural mixture any task ("task") or any family's mean ("family") may be predicted
    # [BPB]. None: no limit.
    guard: float | None = None
    guard_by: str = "task"
    # Minimise the mean over the worst samples of the law. `tail` is the share of samples that count as worst, from 1
    # (expected value) to 0 (worst case). None: minimise the prediction of the law itself.
    tail: float | None = None
    # Propose the worst mixture within the bounds instead, as a counterfactual.
    worst: bool = False
    # "exact", or a published baseline: the best run ("search") or the best of many sampled mixtures ("simulation").
    method: str = "exact"
    # Also compute the paths over λ and k, the trade-off between families, and the choice of λ, for the report.
    explore: bool = True
    # Where trainers find the data of a domain, in the files of propose/handover.
    data_path: str = "data/{domain}"
    # Number of most informative mixtures to train next, written to propose/next.csv; 0: none.
    next_runs: int = 8


@dataclasses.dataclass(frozen=True)
class Validate:
    """New models trained on the natural, uniform and proposed mixtures, to test the proposal."""

    # Preset, steps and peak learning rate. None: as for the proxies. All other settings are those of the proxies.
    preset: str | None = None
    steps: int | None = None
    lr: float | None = None
    # Models per mixture, each with its own initial weights and document order; the same seeds for every mixture.
    seeds: int = 3


@dataclasses.dataclass(frozen=True)
class Update:
    """A changed domain set: what to keep of an earlier mixture (METHOD §3)."""

    # The finished workdir to update. Empty: a first run.
    parent: str = ""
    # A YAML or JSON file that lists the changes. Empty: detect them from names and content of the domains.
    file: str = ""
    # Which unaffected domains to recompute besides the affected ones: "auto" (those for which it pays, see
    # olmix_jax/update/recompute.py), "full" (all), "full_reuse" (none), "partial_reuse" (those in `recompute`), or
    # "swarm_reuse" (all, with earlier runs in place of new ones).
    strategy: str = "auto"
    recompute: tuple[str, ...] = ()
    # Fit the law to earlier runs as well, weighted by how well they predict the new ones. Only runs whose mixtures the
    # new domain set can express are used.
    old_runs: bool = True
    # Maximum runs for "auto", as a share of the runs of a full recomputation (paper: 26 %). The affected domains
    # alone may need more.
    budget: float = 0.3
    # Number of new runs. None: the power of two nearest to 3(weights + 1), as in the paper.
    proxies: int | None = None


@dataclasses.dataclass(frozen=True)
class Track:
    """Where training progress is reported besides the log and train/metrics.jsonl (requirements-track.txt)."""

    # Write TensorBoard files to train/tensorboard.
    tensorboard: bool = False
    # A Weights & Biases project; empty: none.
    wandb: str = ""


@dataclasses.dataclass(frozen=True)
class Plan:
    """The dry run, --stages=plan: what the swarm will need."""

    # A TPU topology to compile for, such as "v4:2x2x4", "v5e:16x16", "v5p:2x2x2" or "v6e:8x8". Empty: the devices of
    # this machine.
    topology: str = ""
    # Share of the devices' peak FLOP/s that the estimate of hours assumes.
    utilisation: float = 0.4
    # Price of one device for one hour, in any currency. None: no estimate of the cost.
    price: float | None = None


@dataclasses.dataclass(frozen=True)
class Config:
    """All settings of a run."""

    # The seed that the seeds of all random draws are derived from.
    seed: int = 0
    # A YAML config of the published `olmix fit`. Its settings replace those here, except fields given as flags. This
    # field is empty in the resolved config.json.
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

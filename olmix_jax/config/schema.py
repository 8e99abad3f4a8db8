"""All settings: meaning, unit and default of each, and where the default comes from.

The sections fit, propose, rounds and update are in olmix_jax/config/schema_decision.py.
Files in ``configs/`` start from these defaults (:func:`olmix_jax.config.default`) and change some of them; flags such
as ``--config.swarm.size=64`` change single fields. :func:`olmix_jax.config.from_dict` checks the result and builds the
frozen dataclasses below. METHOD is docs/method.md; RQ numbers are the paper's research questions.

A ``derived()`` field is None in a config file and on the command line (``--config.train.lr=None``), and stands for the
value that belongs to the preset and the other settings: olmix_jax/config/presets.py. A :class:`Config` holds the value.
"""

import dataclasses

from olmix_jax.config.presets import derived, resolved
from olmix_jax.config.schema_decision import Fit, Propose, Rounds, Update


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
    # Share of the bytes of each domain that is held out of training, if tasks are made of it: documents, or passages of
    # large ones, chosen by the hash of their names.
    heldout: float = 0.1
    # Entries of the trained vocabulary (dolma2 has 100,278; small proxies need a small one). None: the preset's.
    vocabulary: int = derived()
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
    # None: `proxy.length`.
    length: int = derived()


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
    # sparse (over more than 200 domains 4/M), 1e-4 if dense, but at least one sequence.
    min_weight: float | None = None
    # Smallest total variation between two mixtures; a closer one is drawn again.
    min_distance: float = 0.02
    # Smallest number of mixtures that sample each domain.
    min_runs: int = 4
    # Seed of the sampler. None: derived from `seed`.
    seed: int | None = None
    # Share of the steps that all proxies have in common. This trunk is trained once; proxies are branches that continue
    # from its weights and optimiser state, on the rest of the streams. The rate is constant after the warm-up and falls
    # to 0 over the last fifth of the steps, or over those of a branch if they are fewer. ratios.csv has the mixtures of
    # the branches. 0: full proxies. From .5 to .75, branches kept the ranking of mixtures (docs/log.md).
    trunk: float = 0.0
    # Mixture of the trunk, as `propose.anchor`. Empty: the natural mixture.
    trunk_mixture: str = ""
    # A workdir whose trunk is used instead of training one. `trunk` · `train.steps` must be its steps.
    trunk_from: str = ""
    # Number of merged members beside the `size` proxies, which are then full proxies. Per domain, a branch of the trunk
    # is trained as an expert, half on natural and half on that domain. A mixture's weights are a combination of the
    # experts', and are scored without training. The results are cheap runs in swarm/merged (docs/branches.md). 0: none.
    merged: int = 0
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
    # A file with the training tokens of every run and its unique tokens of each domain, for runs that differ in them
    # (olmix_jax/swarm/lengths.py); fit.law=exposure reads it. Empty: all runs are alike.
    tokens: str = ""
    # Files of a held-out swarm that the law is scored on.
    test_ratios: str = ""
    test_metrics: str = ""


@dataclasses.dataclass(frozen=True)
class Proxy:
    """The proxies: small models, one per mixture."""

    # A name in olmix_jax/proxy/model.py: PRESETS. It brings the trainer in olmix_jax/config/presets.py: TRAINERS.
    preset: str = "1M"
    # Tokens per training sequence. None: the preset's (paper: 2048).
    length: int = derived()
    # Entries of the proxies' vocabulary: special tokens, bytes and the first merges of the corpus' tokenizer, whose
    # tokens are mapped while they are read (docs/scale.md). `length` and steps are then in mapped tokens. Weights,
    # domain sizes and `propose.target_tokens` stay in tokens of the corpus' tokenizer. None: the whole vocabulary.
    vocabulary: int | None = None
    # Type of the matrix products: "float32" or "bfloat16". Weights, gradients and optimiser state are always float32.
    # Accelerators round the factors of float32 products too, to bfloat16 (TPU) or TF32 (GPU), unless
    # JAX_DEFAULT_MATMUL_PRECISION=highest is set. None: the preset's.
    dtype: str = derived()


@dataclasses.dataclass(frozen=True)
class Train:
    """How the proxies are trained. Optimiser defaults: METHOD §4, from the paper's release."""

    # How members are mapped to devices: "vmap", "map", "pmap", "shard", "fsdp" (one member at a time, over all devices)
    # or "auto" (the fastest in a test). None: "fsdp" if a member is too large for one device, else "shard" on several
    # devices, else "map" on a CPU and "vmap" on an accelerator.
    mapping: str | None = None
    # Members that one device computes together in "map", and in "shard" on a CPU; 0: all of them.
    map_batch: int = 1
    # Optimiser steps, and sequences per step. None: the preset's tokens, but at most those of the target run, and the
    # preset's tokens per step.
    steps: int = derived()
    batch: int = derived()
    # Sequences per gradient-accumulation step; fewer need less memory. None: the whole batch. With "fsdp" it is rounded
    # up to a multiple of the number of devices.
    micro_batch: int | None = None
    # Recompute the activations inside a block for its gradient instead of storing them: a third more time in blocks,
    # and a fraction of the memory. None: the preset's.
    remat: bool = derived()
    # Peak learning rate. None: the preset's, or 0.0047 · (parameters / 108M)^(-1/3), a quarter of it at length 4096.
    lr: float | None = derived()
    # Share of the steps with linear warm-up. The rate then falls along a cosine to `lr_end` · `lr` at the last step.
    # None: the preset's, or all parameters / (4096 · batch) steps, at most a tenth.
    warmup: float | None = derived()
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
class Validate:
    """New models trained on the natural, uniform and proposed mixtures, to test the proposal."""

    # Preset, steps and peak learning rate. None: those of the proxies (1.8 times their steps for "tiny"), and for
    # another preset its own rate and warm-up. All other settings are those of the proxies.
    preset: str | None = None
    steps: int = derived()
    lr: float | None = None
    # Models per mixture, each with its own initial weights and document order; the same seeds for every mixture, and at
    # most 3 for uniform. None: the preset's.
    seeds: int = derived()


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
    """All settings of a run. Derived fields that are None get their value when it is built."""

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
    rounds: Rounds = Rounds()
    validate: Validate = Validate()
    update: Update = Update()
    track: Track = Track()
    plan: Plan = Plan()

    def __post_init__(self):
        for name, section in resolved(self).items():
            object.__setattr__(self, name, section)

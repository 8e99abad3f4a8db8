"""A config in the format of `olmix fit`, for the tests of this folder."""

# A config in the published format, with every section.
PUBLISHED = """
swarm:
  ratios: ratios.csv # beside this file
  metrics: metrics.csv
priors:
  relative_sizes:
    web: 0.75
    dclm:code: "1/4.0"
  token_counts:
    web: 67_760_078_203
    dclm:code: "1e9"
eval:
  type: offline
  tasks:
    math: ["math:a", "math:b"]
    qa:
      - "qa::olmes"
      - "old"
regression:
  type: log_linear
  seed: 3
  n_test: 0
  train_split: 1.0
  aggregate_task_families: true
proposer:
  type: exact
  temperature: null
  kl_reg: 0.05
  fit_only: false
  make_worst_mix: false
constraints:
  enabled: true
  target_tokens: 1_000_000_000
  repetition_factor: 4.5
filtering:
  drop_metrics: ["old"]
  obj_weights:
    math: "2/3.0"
    qa: 1/3
"""

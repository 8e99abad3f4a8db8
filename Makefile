# make quickstart: text to a validated mixture. make test: lint, types and tests. Targets create .venv themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TPU := .venv-tpu
# mypy has a separate environment: the built-in corpus is text of installed packages, so tools would change it.
LINT := .venv-lint

.PHONY: quickstart check lint test test-wheel test-slow test-tpu bench-laws bench-propose bench-prepare bench-accelerator bench-size \
	five-updates equal-runs recompute-rule corpus olmes format clean

# Without byte code, which Python makes of the modules that are imported, packages install in 0.6 of the time.
INSTALL := install --quiet --disable-pip-version-check --no-compile

# Create the virtual environment $(1) with the requirements and $(2).
define environment
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || { \
		echo "Python 3.11, 3.12 or 3.13 is needed, not $$($(PYTHON) --version); for example: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(1)
	$(1)/bin/pip $(INSTALL) -r requirements.txt -r requirements-dev.txt $(2)
	@touch $(1)/ready
endef

$(VENV)/ready: requirements.txt requirements-dev.txt requirements-lightgbm.txt
	$(call environment,$(VENV))

$(LINT)/ready: requirements-lint.txt
	$(PYTHON) -m venv $(LINT)
	$(LINT)/bin/pip $(INSTALL) -r requirements-lint.txt
	@touch $(LINT)/ready

$(TPU)/ready: requirements.txt requirements-dev.txt requirements-tpu.txt
	$(call environment,$(TPU),-r requirements-tpu.txt)

quickstart: $(VENV)/ready
	$(BIN)/python run.py --config=configs/quickstart.py --workdir=runs/quickstart

# For development, under 90 seconds: lint, the tests of what a change touches, and a fixed quick set
check: lint
	$(BIN)/python -m pytest -n 2 $$($(BIN)/python -m tests.affected)

lint: $(VENV)/ready $(LINT)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(LINT)/bin/mypy --python-executable $(BIN)/python

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# Build the wheel, install it into an empty environment and run the README's example there
test-wheel: $(VENV)/ready
	$(BIN)/python -m pytest -m slow tests/test_wheel.py

test-slow: $(VENV)/ready
	$(BIN)/python -m pytest -m slow

# Compile for TPU topologies without a TPU, in a few minutes; uses .venv-tpu
test-tpu: $(TPU)/ready
	$(TPU)/bin/python -m pytest -m "slow or not slow" tests/proxy/test_resources.py tests/proxy/test_aot.py

# Measure every law on the published swarms in OLMIX_DATA: rewrites benchmarks/laws.md in about ten minutes
bench-laws: $(VENV)/ready
	$(BIN)/python -m benchmarks.laws

# The solver compared with cvxpy: rewrites benchmarks/propose.md in about a minute
bench-propose: $(VENV)/ready
	$(BIN)/python -m benchmarks.propose

# Speed and memory of text preparation, compared with an earlier commit: rewrites benchmarks/prepare.md in ten minutes
bench-prepare: $(VENV)/ready
	$(BIN)/python -m benchmarks.prepare

# Seconds and memory of a fit and a proposal by size of the swarm: rewrites benchmarks/swarm_size.md in ten minutes
bench-size: $(VENV)/ready
	$(BIN)/python -m benchmarks.swarm_size

# The swarm engine on the local accelerator, or at reduced size on the CPU: rewrites benchmarks/accelerator.md in a few
# minutes. TORCH: a Python that has PyTorch, to compare with
bench-accelerator: $(VENV)/ready
	$(BIN)/python -m benchmarks.accelerator_page $(if $(TORCH),--torch=$(TORCH))

# Five updates of a domain set by every strategy, with trained models: runs/five_updates
five-updates: $(VENV)/ready
	$(BIN)/python -m experiments.five_updates --scale=cpu --workdir=runs/five_updates

# The same with equal numbers of runs: runs/equal_runs
equal-runs: $(VENV)/ready
	$(BIN)/python -m experiments.five_updates --scale=equal --workdir=runs/equal_runs

# The rule for what to recompute, compared with fixed rules on known laws; with OLMIX_DATA also on the published swarm
recompute-rule: $(VENV)/ready
	$(BIN)/python -m experiments.recompute_rule --scale=cpu --workdir=runs/recompute_rule --published=$(OLMIX_DATA)

# Text of pinned source distributions, the same on every machine, for configs/packages.py: fetches 590 MB into data/
corpus: $(VENV)/ready
	$(BIN)/python -m experiments.corpus --folder=data

# The paper's own task requests, for --config.tasks.olmes=data/olmes
olmes: $(VENV)/ready
	$(BIN)/python -m olmix_jax.corpus.olmes data/olmes

format: $(VENV)/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(LINT) $(TPU) build runs .pytest_cache .ruff_cache .mypy_cache .hypothesis

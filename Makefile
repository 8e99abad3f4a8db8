# make quickstart: text to a validated mixture; make test: lint and all tests. Both set up .venv themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TPU := .venv-tpu

.PHONY: quickstart test test-slow test-tpu bench-laws bench-propose bench-accelerator five-updates equal-runs recompute-rule olmes lint format clean

# A virtual environment with what is required, and what $(2) names.
define environment
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || { \
		echo "Python 3.11, 3.12 or 3.13 is needed, not $$($(PYTHON) --version); as in: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(1)
	$(1)/bin/pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt $(2)
	@touch $(1)/ready
endef

$(VENV)/ready: requirements.txt requirements-dev.txt requirements-lightgbm.txt
	$(call environment,$(VENV))

$(TPU)/ready: requirements.txt requirements-dev.txt requirements-tpu.txt
	$(call environment,$(TPU),-r requirements-tpu.txt)

quickstart: $(VENV)/ready
	$(BIN)/python run.py --config=configs/quickstart.py --workdir=runs/quickstart

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(VENV)/ready
	$(BIN)/python -m pytest -m slow

# What only the compiler for TPUs can say, by it, with no TPU, in some minutes; in a .venv-tpu of its own
test-tpu: $(TPU)/ready
	$(TPU)/bin/python -m pytest -m "slow or not slow" tests/test_dry_run.py

# Every family of laws on the published swarms, in OLMIX_DATA: benchmarks/laws.md, in about ten minutes
bench-laws: $(VENV)/ready
	$(BIN)/python -m benchmarks.laws

# The solver beside cvxpy: benchmarks/propose.md, in about a minute
bench-propose: $(VENV)/ready
	$(BIN)/python -m benchmarks.propose

# The swarm engine on the accelerator at hand, or at reduced size on the CPU; TORCH: a Python that has PyTorch, to compare
# with: benchmarks/accelerator.md, in a few minutes
bench-accelerator: $(VENV)/ready
	$(BIN)/python -m benchmarks.accelerator_page $(if $(TORCH),--torch=$(TORCH))

# Five updates of a domain set by every strategy, on models trained for real: runs/five_updates
five-updates: $(VENV)/ready
	$(BIN)/python -m experiments.five_updates --scale=cpu --workdir=runs/five_updates

# The same with as many runs for every rule: runs/equal_runs
equal-runs: $(VENV)/ready
	$(BIN)/python -m experiments.five_updates --scale=equal --workdir=runs/equal_runs

# What to recompute, against fixed rules where the truth is known; with OLMIX_DATA on the published swarm too
recompute-rule: $(VENV)/ready
	$(BIN)/python -m experiments.recompute_rule --scale=cpu --workdir=runs/recompute_rule --published=$(OLMIX_DATA)

# The paper's own task requests, for --config.tasks.olmes=data/olmes
olmes: $(VENV)/ready
	$(BIN)/python -m olmix_jax.corpus.olmes data/olmes

format: $(VENV)/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(TPU) runs .pytest_cache .ruff_cache .hypothesis

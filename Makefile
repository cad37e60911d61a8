# make setup | demo | paper | test | test-all | test-slurm | golden | lint | docs | clean

VENV ?= .venv
BIN := $(VENV)/bin
TORCH ?= torch==2.13.0
export OMP_NUM_THREADS ?= 2

.PHONY: setup demo paper test test-all test-slurm golden lint docs clean

setup: $(VENV)/.installed

# torch is named in the same command, so that no other requirement picks a larger build of it
$(VENV)/.installed: pyproject.toml
	python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)" -e ".[dev]"
	@touch $@

demo: setup
	$(BIN)/macformer-train experiment=demo

# SIZE=smoke, table or full; scripts/run_paper.sh says what they take
paper: setup
	PATH=$(abspath $(BIN)):$$PATH SIZE=$(or $(SIZE),smoke) scripts/run_paper.sh

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

test-all: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not gpu and not slurm"

# needs a running Slurm with sbatch and sacct on PATH
test-slurm: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -rs -m slurm tests/runs/test_slurm.py

# records the losses of tests/golden anew: for a change that is meant to change them
golden: setup
	rm -f tests/golden/losses.json
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/golden --update-golden

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# the site, in docs/site; its page of rows is computed from code and configurations
docs: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)" -e ".[docs]"
	cd docs && PYTHONPATH=. NO_MKDOCS_2_WARNING=1 ../$(BIN)/python -m mkdocs build --quiet --strict

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache

# make setup | demo | paper | test | test-all | test-slurm | test-lowest | test-newest | golden | lint | docs | clean

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
TORCH ?= torch==2.13.0
export OMP_NUM_THREADS ?= 2

.PHONY: setup demo paper test test-all test-slurm test-lowest test-newest golden lint docs clean

setup: $(VENV)/.installed

# torch is named in the same command, so that no other requirement picks a larger build of it
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
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

# The suite with the lowest and with the newest versions that pyproject.toml allows, each in a fresh
# environment; PYTHON and TORCH choose other ones: make test-newest PYTHON=python3.12 TORCH=torch==2.11.0
test-lowest test-newest:
	rm -rf .venv-$@ && $(PYTHON) -m venv .venv-$@
	$(PYTHON) scripts/lowest_versions.py > .venv-$@/lowest.txt
	.venv-$@/bin/python -m pip install --quiet --disable-pip-version-check "$(TORCH)" -e ".[dev]" \
		$(if $(filter test-lowest,$@),-c .venv-$@/lowest.txt,--upgrade --upgrade-strategy eager)
	OMP_NUM_THREADS=1 .venv-$@/bin/python -m pytest -n 2

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

# Everything a fresh clone needs: `make demo` and `make test` set up by themselves.
#
# PIP_ARGS   extra arguments for pip. Where PyPI's torch would be a CUDA build of several GB, a CPU build is enough:
#            make demo PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"

# WORKERS    test processes beside each other: five, for two cores, since journeys also wait. About 2 GB of memory each,
#            with the commands that they start
WORKERS ?= 5
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready

.PHONY: setup demo test unit lint docs clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@echo "set-up, once: about 2 minutes"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(PIP_ARGS) torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(PIP_ARGS) --editable '.[dev]'
	@touch $(READY)

# The main job on real data: digits, this computer, three runtimes. Leaves runs/demo/bundle and runs/demo/report.html.
demo: $(READY)
	@rm -rf runs/demo
	$(BIN)/edgekd search examples/digits/project.yaml --run runs/demo
	$(BIN)/edgekd verify runs/demo/bundle
	$(BIN)/python runs/demo/bundle/example.py

# compiled once: some thousand processes import edgekd, and the rewriting of 29,000 lines of tests takes half a minute
test unit: export PYTHONDONTWRITEBYTECODE =

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

unit: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -m "not runtime and not journey and not slow"

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(READY)
	$(BIN)/python -m edgekd.cli.reference > docs/cli.md

clean:
	rm -rf .venv runs

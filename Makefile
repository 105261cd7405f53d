# Two commands set up everything: `make demo` runs the main job, `make test` its tests.
# A machine without the public index: make demo PIP_ARGS="--index-url URL" or "--find-links DIR".
# Without a GPU, name an index of CPU builds of torch to save gigabytes: PIP_ARGS="--extra-index-url URL".
PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# End to end tests wait much of their time: one worker more than there are cores. They begin, so that no core waits at the end.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(1 + (os.cpu_count() or 1))')
PYTEST_ARGS ?= -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# The benchmark of the methods: the data set, a folder for features and scores, which rows (a regular expression;
# the others are kept), and banks built from its training normals that become rows too.
DATA ?= ../shared/data/zhanglab224
CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/dicom-node-bench
ONLY ?=
BANKS ?=

.PHONY: setup compiled demo test check fuzz bench bench-science fix clean
setup: $(READY)

# torch first, alone: the CPU build that --find-links or an index offers is then not replaced by torchvision's.
$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"Python 3.11 or newer is needed, this is {v.major}.{v.minor}; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(PIP_ARGS) "torch==2.13.*"
	$(BIN)/pip install --quiet $(PIP_ARGS) --editable ".[dev]"
	touch $(READY)

demo: setup
	$(BIN)/dicom-node demo $(if $(KEEP),--keep)

# Tests start hundreds of processes: PYTHONDONTWRITEBYTECODE would have each compile the program anew.
compiled: setup
	$(BIN)/python -m compileall -q dicom_node training

test: setup compiled
	$(BIN)/pytest $(PYTEST_ARGS)

check: setup compiled
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest $(PYTEST_ARGS)

fuzz: setup
	$(BIN)/python -m tests.fuzz.run parse --count 20000 --seed $(or $(SEED),1)
	$(BIN)/python -m tests.fuzz.run associations --count 2000 --seed $(or $(SEED),1)
	$(BIN)/python -m tests.fuzz.run services --count 2000 --seed $(or $(SEED),1)

bench: setup
	$(BIN)/pytest tests/bench --override-ini "python_files=bench_*.py" --capture=no

bench-science: setup
	$(BIN)/python -m training.bench_science --data "$(DATA)" --cache "$(CACHE)" --out deploy/BENCHMARKS.md --only "$(ONLY)" $(BANKS:%=--bank %)

fix: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info

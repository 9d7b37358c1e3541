# One command per intent. Each sets itself up in .venv; the only needs are Python 3.11 or newer, pip and make.
PYTHON ?= python3
BIN := .venv/bin
# Small models run slower, not faster, with more threads in a process.
export OMP_NUM_THREADS ?= 1
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1

.PHONY: help demo test soak check lint types contracts format clean

help:
	@echo "make demo      the whole loop on this machine: train, federate, package, roll out, serve, watch"
	@echo "make test      the tests"
	@echo "make soak      fifty kills at random moments of real processes: minutes"
	@echo "make check     format, lint, types and import contracts"
	@echo "make format    formats the code"
	@echo "make clean     removes .venv and demo-data"

demo: .venv/demo.stamp
	$(BIN)/fleetlearn demo $(ARGS)

test: .venv/dev.stamp
	$(BIN)/python -m pytest $(ARGS)

soak: .venv/dev.stamp
	FLEETLEARN_SOAK_KILLS=$${FLEETLEARN_SOAK_KILLS:-50} $(BIN)/python -m pytest tests/end_to_end/test_kills.py -k random -s $(ARGS)

check: lint types contracts

lint: .venv/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/dev.stamp
	$(BIN)/mypy

contracts: .venv/dev.stamp
	$(BIN)/lint-imports

format: .venv/dev.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv demo-data

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"fleetlearn needs Python 3.11 or newer, this is {sys.version.split()[0]}: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip

# torch comes first and pinned: asked for by another package, it may arrive as gigabytes of another build.
.venv/torch.stamp: .venv/bin/python
	$(BIN)/python -m pip install --quiet torch==2.13.0
	touch $@

.venv/demo.stamp: .venv/torch.stamp pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[sim]'
	touch $@

.venv/dev.stamp: .venv/torch.stamp pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@ .venv/demo.stamp

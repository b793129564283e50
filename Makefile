# One virtual environment serves every target; the stamp makes later runs work without a network.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo test lint check chaos bench container-test clean

install: $(STAMP)

# pip's `-c` pins what CI tested; without it a newer torch would bring gigabytes of CUDA.
$(STAMP): pyproject.toml constraints.txt
	@echo "installing into $(VENV): a few minutes, once"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/swarmnode demo --out runs/demo

test: $(STAMP)
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test

# Faults in the network, NATs in network namespaces (those need root): a quarter of an hour.
chaos: $(STAMP)
	$(BIN)/python -m pytest -m chaos tests/chaos

bench: $(STAMP)
	$(BIN)/python tests/bench/wire_size.py
	$(BIN)/python tests/bench/round_profile.py

# Root, podman and debootstrap: see the head of the script.
container-test:
	bash tests/container/run.sh

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache

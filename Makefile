# `make help` lists the targets. Everything is installed into .venv, with the versions of
# constraints.txt, and only again when pyproject.toml or constraints.txt has changed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# On Linux, PyPI's torch brings several GB for NVIDIA GPUs. Without such a GPU:
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
DEMO_ARGS ?=
TEST_ARGS ?=
# Test processes at once; 0 runs all tests in one, for a debugger.
TEST_WORKERS ?= auto
# All of them take about two hours; `make bench BENCH=speed_encode` runs one.
BENCH ?= speed_train speed_encode speed_index speed_search speed_attach memory_index \
	memory_attach memory_migrate quality equal_time

# torch and what needs it are installed by one command, so that the index holds for both. Compiling
# all modules takes a third of an installation: Python compiles those that it imports.
PIP = -m pip install --quiet --no-compile
INSTALL = $(BIN)/python $(PIP) -c constraints.txt \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
# No test may reach a model hub, not even to look for a newer file. Models of tests are tiny: a
# second thread of torch's costs more in waiting than it saves.
PYTEST = HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_WORKERS) $(TEST_ARGS)
NEEDS := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-base lint test-fastembed bench bench-nave dist clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.installed-demo ## Train, index and search real data; options in DEMO_ARGS
	$(BIN)/csr demo $(DEMO_ARGS)

test: $(VENV)/.installed-dev ## Run the default test suite; options in TEST_ARGS
	$(PYTEST) -m "not slow"

test-all: $(VENV)/.installed-dev ## Run all tests, slow ones too
	$(PYTEST)

lint: $(VENV)/.installed-dev ## Check style, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(VENV)/.installed-dev ## Measure speed, memory and quality; which ones in BENCH
	set -e; for name in $(BENCH); do $(BIN)/python -m csr_qdrant.benchmarks.$$name; done
	$(MAKE) bench-nave
	$(BIN)/python -m csr_qdrant.benchmarks.render

bench-nave: $(VENV)/.installed-dev ## Compare all systems on the shipped data set
	$(BIN)/csr bench nave -o build/bench-nave
	cp build/bench-nave/report.json benchmarks/results/bench-nave.json

dist: $(VENV)/.installed-dev ## Build the source archive and the wheel into dist/ and check them
	rm -rf build dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

test-base: dist ## Install the wheel alone into a fresh environment and try it
	rm -rf build/base
	$(PYTHON) -m venv build/base
	build/base/bin/python $(PIP) -c constraints.txt dist/*.whl
	cd build && base/bin/python ../tests/base_install.py

test-fastembed: dist ## Install the wheel with fastembed into a fresh environment and try it
	rm -rf build/fastembed
	$(PYTHON) -m venv build/fastembed
	grep -vi '^huggingface.hub==' constraints.txt > build/fastembed-constraints.txt
	build/fastembed/bin/python $(PIP) -c build/fastembed-constraints.txt \
		"$$(echo dist/*.whl)[fastembed,wordllama]"
	cd build && fastembed/bin/python ../tests/fastembed_install.py
	build/fastembed/bin/python $(PIP) -c build/fastembed-constraints.txt pytest
	cd build && fastembed/bin/python -m pytest -q --noconftest -c /dev/null --rootdir=. \
		-p no:cacheprovider ../tests/test_integrations_fastembed.py

clean: ## Remove builds and caches; .venv stays
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-demo: $(NEEDS) | $(BIN)/python
	@echo "installing what the demo needs into $(VENV): this takes a few minutes"
	$(INSTALL) -e '.[bench]'
	@touch $@

$(VENV)/.installed-dev: $(NEEDS) | $(BIN)/python
	@echo "installing everything for development into $(VENV): this takes a few minutes"
	$(INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/.installed-demo

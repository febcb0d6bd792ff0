# Needs python3 (3.11 to 3.13), make and git; all else goes into .venv.
PYTHON ?= python3
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
BIN := .venv/bin
INSTALLED := .venv/installed
COMPILED := .venv/compiled
SLURM := .venv/slurm
BROWSER := .venv/browser
GPU := .venv/gpu

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-data test-slurm test-browser gpu pictures lint audit format pin clean

help:
	@echo "make demo       set everything up and cluster the handwritten digits (results/digits)"
	@echo "make test       set everything up and run the tests"
	@echo "make test-slow  run the tests that take minutes"
	@echo "make test-data  take a small copy of every data set to its scores (a quarter to half an hour)"
	@echo "make test-slurm run the demo by a SLURM that is started on this machine (root, Debian or Ubuntu)"
	@echo "make test-browser open the explorer in a Chromium, which must be there"
	@echo "make gpu        run the tests and benchmarks of a GPU, and write results/gpu/page.md"
	@echo "make pictures   take the pictures of the explorer in docs/, likewise"
	@echo "make lint       check style, types and the workflow"
	@echo "make audit      look the pinned packages up among known vulnerabilities (internet)"
	@echo "make format     format the code"
	@echo "make pin        refresh requirements.txt from pyproject.toml"
	@echo "make clean      remove results and logs (the environment stays)"

$(INSTALLED): pyproject.toml requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "unic needs Python 3.11 to 3.13, PYTHON=" + sys.executable + " is " + sys.version.split()[0])'
	@rm -f $@
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --requirement requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

$(COMPILED): $(INSTALLED) $(wildcard unic/neighbors/*.py unic/neighbors/exact/*.py unic/maps/*.py unic/baselines/kmeans_loops.py)
	$(BIN)/python -m unic.cli compile
	@touch $@

# Apart from the rest: with the plugin at hand every start of Snakemake looks for a cluster.
$(SLURM): $(INSTALLED)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --target $@ \
		snakemake-executor-plugin-slurm==2.8.0 snakemake-executor-plugin-slurm-jobstep==0.6.1
	@touch $@

$(BROWSER): $(INSTALLED)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --target $@ playwright==1.65.2
	@touch $@

# Apart from faiss-cpu, which has the same module; without a GPU there is nothing to install.
$(GPU): $(INSTALLED)
	@if ! command -v nvidia-smi >/dev/null; then echo "no NVIDIA driver: faiss-gpu-cu12 is not installed"; \
	else $(BIN)/uv pip install --quiet --python $(BIN)/python --target $@ --constraint requirements.txt \
		"faiss-gpu-cu12>=1.9" || { rm -rf $@; echo "faiss-gpu-cu12 cannot be had here: mining is measured without it"; }; fi

demo: $(COMPILED)
	$(BIN)/python -m snakemake --cores $(CORES) --quiet rules -- demo
	@$(BIN)/python -m unic.cli show results/digits

test: $(COMPILED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(CORES) --dist loadfile -m "not slow and not datasets and not slurm and not browser"

test-slow: $(COMPILED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(CORES) --dist loadfile -m slow

test-data: $(COMPILED)
	$(BIN)/python -m pytest -m datasets

test-slurm: demo $(SLURM)
	PYTHONPATH=$(abspath $(SLURM)) $(BIN)/python -m pytest -m slurm

test-browser: $(COMPILED) $(BROWSER)
	PYTHONPATH=$(abspath $(BROWSER)) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser

gpu: $(COMPILED) $(GPU)
	PYTHONPATH=$(abspath $(GPU)) $(BIN)/python -m benchmarks.gpu

pictures: demo $(BROWSER)
	PYTHONPATH=$(abspath $(BROWSER)) $(BIN)/python docs/take_pictures.py

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m snakemake --lint

audit: $(INSTALLED)
	$(BIN)/uv tool run pip-audit --strict --disable-pip --no-deps --requirement requirements.txt

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow

pin: $(INSTALLED)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-annotate --no-header --upgrade \
		--extra cpu --extra dev pyproject.toml --output-file requirements.txt

clean:
	rm -rf results/* logs .snakemake

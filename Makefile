# make reproduce: everything from a fresh clone to tables and figures. make help lists the rest.
# Needs Python 3.11-3.13, git, make, a C compiler, and the network once. All else goes into .uv/ and .venv/.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

ifneq ($(wildcard assets),)
export MLCLIPSIM_ASSETS ?= $(CURDIR)/assets
endif

PRESET ?= embedded
CORES  ?= all
TARGETS ?= all
TESTS  ?= tests
BIN    := .venv/bin
READY  := .venv/.ready$(if $(SLURM),-slurm)
SNAKEMAKE := PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/snakemake

# What is configured of the run through SLURM: make test-slurm SLURM_CONFIG="shards=2 encoder=scene-clip-resnet"
SLURM_CONFIG ?= shards=3
SLURM_TARGETS ?= all

.PHONY: help reproduce setup test test-quick test-slurm chaos check-results bench bench-scale bench-metric bench-gpu docs \
  lock lint clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## the environment, from the lock (SLURM=1: with Snakemake's plugin for clusters)

# Does nothing when lock and package metadata are unchanged. Snakemake imports each plugin at every start, and the
# one for SLURM brings pandas: a third of the start-up, so it stays only where it is wanted (make setup SLURM=1).
# One of the two marks is there at a time, since the environment is either with that plugin or without.
# Bytecode is compiled here: where Python is told to write none (PYTHONDONTWRITEBYTECODE, as in many containers), each
# job would compile what it imports, which is half of the time that a planned run or a short job takes.
$(READY): requirements.lock pyproject.toml
	@python=""; for candidate in $(PYTHON) python3 python3.12 python3.11 python3.13; do \
	  if "$$candidate" -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; \
	  then python="$$candidate"; break; fi; done; \
	if [ -z "$$python" ]; then \
	  echo "make: no Python 3.11, 3.12 or 3.13 found; install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; fi; \
	echo "== setup: $$("$$python" --version), environment in .venv (about 6 GB, a minute or two with a fast network)"; \
	[ -x .uv/bin/uv ] || { "$$python" -m venv .uv && .uv/bin/pip install --quiet --disable-pip-version-check uv; }; \
	[ -x $(BIN)/python ] || .uv/bin/uv venv --quiet --python "$$(command -v "$$python")" .venv; \
	export VIRTUAL_ENV="$(CURDIR)/.venv"; \
	.uv/bin/uv pip sync --require-hashes --compile-bytecode requirements.lock; \
	.uv/bin/uv pip install --quiet --no-deps --editable .; \
	$(if $(SLURM),,.uv/bin/uv pip uninstall --quiet snakemake-executor-plugin-slurm)
	@rm -f .venv/.ready .venv/.ready-slurm && touch $@
	@echo "== setup: done"

# One at a time: this lock ends with whoever holds it, while Snakemake's own stay behind a killed run. Temporary files
# lie where this or the next run removes them. The shell would say at length which command was killed: it is silent.
reproduce: $(READY)  ## all tables and figures (PRESET=embedded, CORES=all, TARGETS=table_1); resumes a stopped run
	@mkdir -p .snakemake; exec 9>.snakemake/reproduce.lock; \
	flock --nonblock 9 || { echo "make: expected no other run in this folder, found one;" \
	  "wait for its end, or stop it and run the same command again" >&2; exit 1; }; \
	at_work=""; for process in $$(pgrep -f '^[^ ]*python[0-9.]* (-m )?[^ ]*snakemake( |$$)' || true); do \
	  if [ "/proc/$$process/cwd" -ef . ]; then at_work=1; fi; done; \
	if compgen -G ".snakemake/locks/*" >/dev/null && [ -z "$$at_work" ]; then \
	  echo "== reproduce: an earlier run was stopped, going on from there"; \
	  $(SNAKEMAKE) --unlock --quiet all --config preset=$(PRESET); fi; \
	echo "== reproduce: preset $(PRESET); jobs' logs lie in results/$(PRESET)/*/logs and beside the shared results"; \
	export TMPDIR="$(CURDIR)/.snakemake/tmp"; rm -rf "$$TMPDIR"; mkdir "$$TMPDIR"; trap 'rm -rf "$$TMPDIR"' EXIT; \
	exec 8>&2 2>/dev/null; \
	$(SNAKEMAKE) $(TARGETS) --cores $(CORES) --rerun-incomplete --config preset=$(PRESET) 2>&8 || { code=$$?; \
	  if ((code > 128)); then echo "make: the run was killed (signal $$((code - 128)));" \
	    "run the same command again, which goes on from there" >&8; fi; exit $$code; }; \
	echo "== reproduce: done: results/$(PRESET)/default/{tables,figures}"

test: $(READY)  ## all tests, two at a time (TESTS=path for some)
	@$(BIN)/python -m pytest -n 2 --dist worksteal $(TESTS)

test-quick: $(READY)  ## the quick tests, under two minutes on two cores
	@$(BIN)/python -m pytest -q -n 2 -m "not slow and not workflow and not assets" $(TESTS)

test-slurm:  ## the workflow through a real SLURM that loses jobs and nodes (as root, on Debian or the like)
	@$(MAKE) --no-print-directory setup SLURM=1
	@export PATH="$(CURDIR)/$(BIN):$$PATH:/usr/sbin"; \
	if ! command -v slurmctld >/dev/null || ! command -v munged >/dev/null; then \
	  if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
	    echo "make: SLURM and munge are not installed; as root on Debian: apt-get install slurm-wlm munge" >&2; exit 1; fi; \
	  apt-get update -qq; \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge >/dev/null; fi; \
	python tests/slurm/check_run.py --targets $(SLURM_TARGETS) --config preset=ci $(SLURM_CONFIG)

chaos: $(READY)  ## a campaign of faults, an hour; writes docs/faults.md (ARGUMENTS="--only disk" for some)
	@$(BIN)/python -m tests.chaos --output docs/faults.md $(ARGUMENTS)

check-results: reproduce  ## regenerate and compare with docs/reference/<preset>
	@$(BIN)/python tests/workflow/check_results.py --preset $(PRESET)

bench: $(READY)  ## time and size of a clean run, overhead of the workflow, time when there is nothing to do
	@$(BIN)/python tests/workflow/bench.py --preset $(PRESET)

bench-scale: $(READY)  ## processor time and memory of each step with 1, 4 and 16 times the data
	@$(BIN)/python tests/workflow/bench_scale.py

bench-metric: $(READY)  ## cost of the metric beside its bare encoder and beside LPIPS, DISTS, MS-SSIM, VIF
	@$(BIN)/python tests/bench_metric.py

bench-gpu: $(READY)  ## whether a GPU is kept busy, and agrees with the processor (needs one)
	@$(BIN)/python tests/workflow/bench_gpu.py $(ARGUMENTS)

docs: $(READY)  ## the documentation as a site, in build/site (it searches only when served: mkdocs serve)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "== docs: build/site/index.html"

lock: .uv/bin/uv  ## resolve the dependencies anew
	.uv/bin/uv pip compile pyproject.toml --all-extras --generate-hashes --override overrides.txt \
	  --python-version 3.11 --universal --no-header --quiet --output-file requirements.lock

.uv/bin/uv:
	python3 -m venv .uv && .uv/bin/pip install --quiet --disable-pip-version-check uv

lint: $(READY)  ## style, types, workflow
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --line-length 110 --check Snakefile workflow/rules
	$(SNAKEMAKE) --lint

clean:  ## remove what the workflow made (not the environment, not results/zoo)
	find results -mindepth 1 -maxdepth 1 ! -name zoo ! -name README.md -exec rm -rf {} + 2>/dev/null || true
	rm -rf .snakemake .pytest_cache .mypy_cache .ruff_cache

# Two commands do all the set-up on a bare machine: `make run` and `make test`.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
.PHONY: help run demo test unit integration browser acceptance lint env clean train evaluate soak docs screenshots
.NOTPARALLEL:

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.wsi-denoise-env
# cpu is OpenVINO: several times as fast on a CPU.
EXTRAS ?= cpu,dev

help:
	@echo "make run    make the environment, then start daemon and page: inbox/ -> denoised/"
	@echo "make demo   put a demo slide into inbox/, wait, and say where the result is"
	@echo "make test   everything that a change has to pass: lint, then the tiers unit, integration, browser, acceptance"
	@echo "make unit   the unit tests alone; so with each other tier"
	@echo "make soak   the long forms of the programs in tests/acceptance/programs"
	@echo "make lint   style and types alone"
	@echo "make train  train PRESET (paper) again as its card says, into runs/"
	@echo "make evaluate  measure the presets and fill the tables of the docs"
	@echo "make docs   build the documentation into site/, links checked"
	@echo "make screenshots  make the pictures of the documentation from demo slides"
	@echo "make env    the environment alone; it is made again when pyproject.toml changes"

env: $(STAMP)

$(STAMP): pyproject.toml .ci/env .ci/system
	@.ci/system
	.ci/env $(VENV) "$(EXTRAS)"
	touch $(STAMP)

run: env
	@exec $(BIN)/wsi-denoise up

demo: env
	@exec $(BIN)/python .ci/demo.py

lint: env
	@$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/prose.py

# A tier is a folder below tests/. Its report is written at the very end: a test that ended pytest itself, with 0, would
# otherwise count as passed.
WORKERS ?= $(shell n=$$(nproc); echo $$((n < 4 ? n : 4)))
# Named beside the time, since results in floating point and speed depend on it.
PROCESSOR := $(shell sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1), $(shell nproc) cores, \
	$(shell grep -qw avx512f /proc/cpuinfo && echo with || echo without) AVX-512
define tier
@rm -f build/tests-$@.xml
TIMEFORMAT="$@: %0R s; processor time %0U s (user), %0S s (system); $(PROCESSOR)"
time $(BIN)/python -m pytest tests/$@ --junitxml=build/tests-$@.xml -n $(WORKERS) --dist loadfile --no-loadscope-reorder
test -s build/tests-$@.xml || { echo "pytest was ended in the middle of tests/$@"; exit 1; }
endef

test: lint unit integration browser acceptance

# In one process: each worker imports torch and the dashboard again, which costs more processor time than the tests.
unit: WORKERS := 0
unit integration: env
	$(tier)

# These mostly wait: for daemons, for pages, for files to settle.
browser acceptance: WORKERS := $(shell n=$$(nproc); echo $$((n < 3 ? n + 1 : 4)))
browser: env
	@.ci/system chromium
	$(tier)

acceptance: env
	$(tier)

PRESET ?= paper
train: env
	@$(BIN)/python -m training.run.recipe $(PRESET) --out runs

evaluate: env
	@$(BIN)/python -m pytest tests/unit/training -m training
	$(BIN)/python -m training.publish.evidence

docs: env
	@$(BIN)/python -c "import material" 2>/dev/null || .ci/env $(VENV) "$(EXTRAS),docs"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	echo "documentation: site/index.html"

screenshots: env
	@.ci/system chromium
	$(BIN)/python .ci/screenshots.py

PROGRAMS := tests/acceptance/programs
soak: env
	@mkdir -p build/soak
	run() { $(BIN)/python $(PROGRAMS)/$$1.py "$${@:3}" --results build/soak/$$2.json; }
	run kills kills --kills 60
	run daemons daemons-sqlite --daemons 4 --slides 200
	run daemons daemons-postgresql --daemons 4 --slides 200 --database postgresql --restart
	run fuzz fuzz path --cases 1000
	run soak soak --slides 500

clean:
	@rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis

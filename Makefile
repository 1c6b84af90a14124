# Two commands do all the set-up on a bare machine: `make run` and `make test`.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
.PHONY: help run demo test lint env clean train evaluate

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.wsi-denoise-env
# cpu is OpenVINO: several times as fast on a CPU.
EXTRAS ?= cpu,dev

help:
	@echo "make run    make the environment, then start daemon and page: inbox/ -> denoised/"
	@echo "make demo   put a demo slide into inbox/, wait, and say where the result is"
	@echo "make test   everything that a change has to pass"
	@echo "make lint   style and types alone"
	@echo "make train  train PRESET (paper) again as its card says, into runs/"
	@echo "make evaluate  measure the presets and fill the tables of the docs"
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
	$(BIN)/python .ci/prose.py

test: env
	@.ci/system chromium
	$(MAKE) --no-print-directory lint
	@rm -f build/tests.xml
	$(BIN)/python -m pytest --junitxml=build/tests.xml
	@# Written at the very end: something that ends pytest itself, with 0, would pass for tests that passed.
	@test -s build/tests.xml || { echo "pytest was ended in the middle"; exit 1; }

PRESET ?= paper
train: env
	@$(BIN)/python -m training.recipe $(PRESET) --out runs

evaluate: env
	@$(BIN)/python -m training.evidence

clean:
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

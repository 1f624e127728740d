# Needs make and Python 3.11 to 3.13; everything else goes into .venv.
#   make demo                     the built-in perplexity study, small: a report in a few minutes
#   make test                     the tests
#   make PYTHON=/path/to/python   another interpreter
#   make TORCH_INDEX=URL          another build of torch

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
TORCH_INDEX ?=
TORCH := $(shell grep -E '^torch==' requirements.lock)
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input
SUITABLE := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(firstword $(foreach python,python3.13 python3.12 python3.11 python3,\
	$(shell $(python) -c '$(SUITABLE)' >/dev/null 2>&1 && echo $(python))))
STUDIES := perplexity plasticity-stability rank-low-data lora-vs-layer hybrid
TEST_PROCESSES ?= 2

.DEFAULT_GOAL := help
.PHONY: help install demo test studies validate lint bench gpu-check clean

help:
	@sed -n '/^# /s/^# //p' Makefile
	@echo "also: make studies validate lint bench gpu-check clean"

install: $(VENV)/.installed

$(VENV)/.python:
	@if ! $(or $(PYTHON),false) -c '$(SUITABLE)' >/dev/null 2>&1; then \
		echo "error: no Python 3.11, 3.12 or 3.13 found$(if $(PYTHON), ($(PYTHON) is none))" >&2; \
		echo "  install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; fi
	@echo "creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { echo "error: $(PYTHON) cannot make a virtual environment;" \
		"on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@touch $@

# torch first and by its exact version: a looser requirement would choose another build, and gigabytes more.
$(VENV)/.locked: requirements.lock $(VENV)/.python
	@echo "installing $(TORCH) (about 200 MB for a CPU build, about 3 GB where the index gives a CUDA build)"
	@$(PIP_INSTALL) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) --constraint requirements.lock $(TORCH)
	@echo "installing $$(grep -c == requirements.lock) locked packages (about 300 MB)"
	@$(PIP_INSTALL) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) --requirement requirements.lock
	@touch $@

$(VENV)/.installed: pyproject.toml $(VENV)/.locked
	@echo "installing finetrial from this folder"
	@$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

demo: install
	@$(BIN)/finetrial run perplexity --size demo

# A file's tests share what they make, so a file goes to one process; in their own order the longest files come early.
test: install
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

studies: install
	@for study in $(STUDIES); do $(BIN)/finetrial run $$study --size standard || exit; done

# The claims about the statistics, by simulation, and the tests that take minutes.
validate: install
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder -m slow
	@for script in tests/validate/*.py; do $(BIN)/python $$script || exit; done

lint: install
	@$(BIN)/ruff check .
	@$(BIN)/mypy

bench: install
	@echo "installing what the comparison needs: trl, datasets (about 10 MB)"
	@$(PIP_INSTALL) --constraint requirements.lock trl==1.16.0 datasets==5.2.0
	@for script in $(filter-out bench/gpu_check.py,$(wildcard bench/*.py)); do $(BIN)/python $$script || exit; done

gpu-check: install
	@if [ -f bench/gpu_check.py ]; then $(BIN)/python bench/gpu_check.py; \
	else echo "error: bench/gpu_check.py is not here" >&2; exit 1; fi

clean:
	rm -rf $(VENV) build dist src/*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests docs bench -name __pycache__ -type d -prune -exec rm -rf {} +

# make demo   train and examine the small model, from nothing
# make test   lint and the whole test suite, from nothing
#
# Each sets up .venv by itself, once. PYTHON=python3.12 chooses the interpreter.

PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
# Written last: a set-up that was interrupted, or whose inputs changed, is done again from an empty folder.
READY := $(VENV)/ready
# Downloads that break off are resumed from 25.2 on.
PIP := pip==26.1.2
# Real weights, tokenizer and sound that the tests use; none named means all there are.
ASSETS :=

# make demo SEED=1 OUT=runs/demo-1
SEED := 0
OUT := runs/demo
STARTED := $(shell date +%s)

.PHONY: demo test lint format setup clean
.DEFAULT_GOAL := demo

demo: $(READY)
	DEMO_STARTED=$(STARTED) $(VENV)/bin/python -m experiments.demo --seed $(SEED) --out $(OUT)

test: lint
	$(VENV)/bin/python -m sari_jax.assets $(ASSETS)
	$(VENV)/bin/python -m pytest

lint: $(READY)
	$(VENV)/bin/ruff check .

format: $(READY)
	$(VENV)/bin/ruff format .

setup: $(READY)

$(READY): setup.cfg constraints.txt Makefile
	@test -n "$(PYTHON)" || { echo 'make: no Python 3.11 or newer found; name one with PYTHON=...' >&2; exit 2; }
	@echo 'Setting up $(VENV) with $(PYTHON): some minutes, once'
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/pip install --quiet $(PIP)
	$(VENV)/bin/pip install -c constraints.txt -e '.[test,starter]'
	$(VENV)/bin/pip install -c constraints.txt --no-deps tinysoundfont
	touch $@

clean:
	rm -rf $(VENV) .cache build dist *.egg-info

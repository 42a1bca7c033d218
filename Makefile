# make demo           train and examine the small model, from nothing
# make smol           the same with a small language model that is real: an hour and a quarter on two cores
# make test           lint and the tests, from nothing
# make proofs         the tests that take long, or PART= of them: numerics, runs (killed, resumed, over hosts), tools;
#                     SHARE=2/3 is every third of those, from the second on
# make test-current   what imports JAX with the newest one, on Python 3.12 and without PyTorch
# make record         writes down what PyTorch finds, for test-current: tests/recording.py
#
# Each sets up its environment by itself, once. PYTHON=python3.12 and PYTHON_CURRENT=... choose interpreters.

PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
# The first Python that the newest JAX is for.
PYTHON_CURRENT ?= $(shell python3.12 -c '' 2>/dev/null && echo python3.12 || \
	PYENV_VERSION=$$(pyenv latest 3.12 2>/dev/null) pyenv which python3.12 2>/dev/null)
VENV := .venv
VENV_CURRENT := .venv-current
# Written last: a set-up that was interrupted, or whose inputs changed, is done again from an empty folder.
READY := $(VENV)/ready
READY_CURRENT := $(VENV_CURRENT)/ready
EXTRAS := corpus,report,sweep,test,bench,peft,serving,tpu
EXTRAS_CURRENT := corpus,report,sweep,test
# Downloads that break off are resumed from 25.2 on.
PIP := pip==26.1.2
# Real weights, tokenizer and sound that the tests use; none named means all there are.
ASSETS :=
# The tests that take long, by part: the markers of pyproject.toml.
PARTS := numerics or runs or tools
PART := $(PARTS)
SHARE := 1/1

# Tests that import JAX. `recorded` are those that compare with what PyTorch found, the proofs among them too.
WITH_JAX := $(addprefix tests/,api assemble audio evaluate generate hf models parallel rl sft train) tests/corpus/test_captioning.py

# make demo SEED=1 OUT=runs/demo-1
SEED := 0
OUT = runs/$@
STARTED := $(shell date +%s)

# Tests start hundreds of interpreters. Where the caller wants no compiled Python kept, each would compile all of it.
test proofs test-current record: export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo smol test proofs test-current record lint format setup python-current clean
.DEFAULT_GOAL := demo

demo: $(READY)
	DEMO_STARTED=$(STARTED) $(VENV)/bin/python -m experiments.demo --seed $(SEED) --out $(OUT)

smol: $(READY)
	$(VENV)/bin/python -m experiments.smol --seed $(SEED) --out $(OUT)

test: lint
	$(VENV)/bin/python -m sari_jax.assets $(ASSETS)
	$(VENV)/bin/python -m pytest -m 'not ($(PARTS))'

proofs: $(READY)
	$(VENV)/bin/python -m sari_jax.assets $(ASSETS)
	$(VENV)/bin/python -m pytest -m '$(PART)' --share=$(SHARE)

test-current: $(READY_CURRENT)
	$(VENV_CURRENT)/bin/python -m sari_jax.assets $(ASSETS)
	@# How long a test may take is `make test`'s to say.
	SARI_TEST_SECONDS=inf $(VENV_CURRENT)/bin/python -m pytest -m 'not ($(PARTS)) or recorded' $(WITH_JAX)

record: $(READY)
	$(VENV)/bin/python -m sari_jax.assets $(ASSETS)
	$(VENV)/bin/python -m pytest --record

lint: $(READY)
	$(VENV)/bin/ruff check .

format: $(READY)
	$(VENV)/bin/ruff format .

setup: $(READY)

# Empty where there is none.
python-current:
	@echo $(PYTHON_CURRENT)

$(READY): setup.cfg constraints.txt Makefile
	@test -n "$(PYTHON)" || { echo 'make: no Python 3.11 or newer found; name one with PYTHON=...' >&2; exit 2; }
	$(call set_up,$(PYTHON),$(VENV),constraints.txt,$(EXTRAS))

$(READY_CURRENT): setup.cfg constraints-current.txt Makefile
	@test -n "$(PYTHON_CURRENT)" || { echo 'make: no Python 3.12 found; name one with PYTHON_CURRENT=...' >&2; exit 2; }
	$(call set_up,$(PYTHON_CURRENT),$(VENV_CURRENT),constraints-current.txt,$(EXTRAS_CURRENT))

# An interpreter, its environment, the versions in it and the package's extras.
define set_up
	@echo 'Setting up $(2) with $(1): some minutes, once'
	@$(1) -m venv --clear $(2)
	@$(2)/bin/pip install -qq $(PIP)
	@$(2)/bin/pip install -qq -c $(3) -e '.[$(4)]'
	@$(2)/bin/pip install -qq -c $(3) --no-deps tinysoundfont
	@touch $@
endef

clean:
	rm -rf $(VENV) $(VENV_CURRENT) .cache build dist *.egg-info

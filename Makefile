# Needs Python 3.10 or later with pip, and make. Everything else goes into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_FLAGS := -qq --disable-pip-version-check

# The minor version of an interpreter that starts, nothing for one that does not (a pyenv shim without its Python).
version_of = $(shell $(1) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)

MAIN_VERSION := $(call version_of,$(PYTHON))
OTHER_VERSIONS := $(foreach v,$(filter-out $(MAIN_VERSION),3.10 3.11 3.12 3.13 3.14),$(if $(filter $(v),$(call version_of,python$(v))),$(v)))
OTHER_TESTS := $(addprefix test-,$(OTHER_VERSIONS))

.NOTPARALLEL:
.DELETE_ON_ERROR:
.PRECIOUS: .venv-%/.made
.PHONY: help demo test faults replica-set sentinel cluster soak soak-quick bench bench-quick nightly services lint types wheel-check clean $(OTHER_TESTS)

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

demo: $(VENV)/.demo ## install, run a parameter sweep, and show what was captured of it
	$(BIN)/provd demo

test: $(VENV)/.test services lint types wheel-check $(OTHER_TESTS) ## all but the faults, on every Python that PATH has
	$(BIN)/python -m pytest --ignore tests/faults

faults: $(VENV)/.test ## everything that can go wrong, one file per nemesis
	$(BIN)/python -m pytest tests/faults

services: $(VENV)/.test ## which Redis and MongoDB the tests will use
	@$(BIN)/python -m tests.services.shared

lint: $(VENV)/.test ## style and suspicious code
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.test ## static types, for the oldest and the newest Python
	$(BIN)/mypy --python-version 3.10
	$(BIN)/mypy --python-version 3.13
	$(BIN)/pyright

wheel-check: $(VENV)/.test ## build the wheel, and use it where nothing else is installed
	$(BIN)/python tests/packaging/check_wheel.py

replica-set: $(VENV)/.test ## MongoDB as a replica set of three, its primary killed during ingest
	$(BIN)/python -m pytest -m replica_set

sentinel: $(VENV)/.test ## Redis with Sentinel, its master killed during ingest
	$(BIN)/python -m pytest -m sentinel

cluster: $(VENV)/.test ## Redis Cluster of three masters and three replicas, a master killed during ingest
	$(BIN)/python -m pytest -m cluster

soak: $(VENV)/.test ## everything killed and paused at random, 200 times, while a million tasks flow; SEED=N does it again
	$(BIN)/python -m tests.faults.soak $(if $(SEED),--seed $(SEED)) $(if $(TASKS),--tasks $(TASKS)) $(if $(FAULTS),--faults $(FAULTS)) $(if $(DURABILITY),--durability $(DURABILITY))

soak-quick: $(VENV)/.test ## the same in small, with a fixed seed
	$(BIN)/python -m pytest -m soak

bench: $(VENV)/.test ## provd beside its peers and its floors, one table; JSON=FILE writes every sample
	$(BIN)/python -m benchmarks $(if $(JSON),--json $(JSON)) $(TOPICS)

bench-quick: $(VENV)/.test ## the same in under three minutes
	$(BIN)/python -m benchmarks --quick $(if $(JSON),--json $(JSON)) $(TOPICS)

nightly: $(VENV)/.test soak ## the long forms: the soak, ten minutes without Redis, a thousand processes, 56,000 values through every rule
	$(BIN)/python -m pytest -m long
	$(BIN)/python -m benchmarks --nightly
	HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest tests/unit/test_capture_properties.py tests/contract/test_where.py tests/contract/test_run_file.py tests/contract/test_index_answers.py

clean: ## remove virtual environments, builds and caches
	rm -rf .venv .venv-3.* dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(OTHER_TESTS): test-%: .venv-%/.test
	.venv-$*/bin/python -m pytest --ignore tests/faults

# --- virtual environments: one stamp per set of packages, so that a second run installs nothing ---

$(VENV)/.demo: pyproject.toml | $(VENV)/.made
	@echo "installing provd into $(VENV)"
	@$(BIN)/python -m pip install $(PIP_FLAGS) --editable '.[demo]'
	@touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/.made
	@echo "installing provd and what its tests need into $(VENV)"
	@$(BIN)/python -m pip install $(PIP_FLAGS) --editable '.[all]' --group test --group lint
	@$(BIN)/python -m pip install $(PIP_FLAGS) --no-deps --group crate
	@touch $@

.venv-%/.test: pyproject.toml | .venv-%/.made
	@echo "installing provd and what its tests need into .venv-$*"
	@.venv-$*/bin/python -m pip install $(PIP_FLAGS) --editable '.[all]' --group test
	@.venv-$*/bin/python -m pip install $(PIP_FLAGS) --no-deps --group crate
	@touch $@

# Debian's Python has venv without ensurepip; the pip outside then installs the one inside. `--group` needs pip 25.1.
define make_venv
$(1) -c 'import sys; sys.exit("provd needs Python 3.10 or later; " + sys.executable + " is " + sys.version.split()[0] if sys.version_info < (3, 10) else 0)'
if $(1) -c 'import ensurepip' 2>/dev/null; then $(1) -m venv $(2); \
else $(1) -m venv --without-pip $(2) && $(1) -m pip --python $(2)/bin/python install $(PIP_FLAGS) pip; fi
$(2)/bin/python -m pip install $(PIP_FLAGS) --upgrade 'pip>=25.1'
touch $(2)/.made
endef

$(VENV)/.made:
	@$(call make_venv,$(PYTHON),$(VENV))

.venv-%/.made:
	@$(call make_venv,python$*,.venv-$*)

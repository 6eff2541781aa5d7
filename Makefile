# `make` alone prints what there is. Nothing needs to be installed before but Python >= 3.11.
SHELL := /bin/sh
.DEFAULT_GOAL := help
PYTHON ?= python3
# `make test debian=sid`: with servers and Python of that Debian release, which is fetched once. Its
# virtual environment is made there and works there alone.
ENTER := $(if $(debian),$(PYTHON) -m dev.servers.debian $(debian) --)
SERVICES := .services$(if $(debian),/$(debian))
VENV := $(if $(debian),$(SERVICES)/venv,.venv)
BIN := $(VENV)/bin
# Two stages, since a demo needs no compiler of types: what the worker runs with, and all else.
RUNTIME := $(VENV)/.ready-runtime
READY := $(VENV)/.ready
SERVERS := $(ENTER) $(BIN)/python -m dev.servers
# The peers have a virtual environment of their own, so that only who measures installs them.
PEERS := .venv-bench
PEERS_READY := $(PEERS)/.ready
# Apart from .venv, since it brings Node.js.
PYRIGHT := .venv-pyright
PYRIGHT_READY := $(PYRIGHT)/.ready
# Else each process that a test starts would compile the whole worker.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo run test test-all coverage interleavings oracle mutations fuzz soak chaos bench bench-latency bench-growth bench-stages check format docs migration image-test typed lock sbom audit down clean

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "With debian=sid (trixie, …) all that runs does so on servers and Python of that Debian release."

setup: $(READY) ## Make the virtual environment in .venv, with the locked packages

# uv takes a tenth of pip's time; pip alone knows an index that only pip's own settings name.
define install
	@$(ENTER) $(BIN)/uv pip install --quiet --python $(1)/bin/python --require-hashes --no-deps $(2) || \
	  { echo "uv could not install them; trying with pip …" >&2; \
	    $(ENTER) $(1)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps $(2); }
endef

# Files, so that a second `make` does not do it again.
$(RUNTIME): requirements.lock dev/locks/build.lock dev/locks/uv.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than 3.11. Name a newer one: make PYTHON=python3.12 …" >&2; exit 2; }
	@$(if $(debian),$(ENTER) true,:)
	@echo "setting up $(VENV): an empty environment …" >&2
	@$(ENTER) $(if $(debian),python3,$(PYTHON)) -m venv $(if $(wildcard $(RUNTIME)),,--clear) $(VENV) || \
	  { echo "error: $(PYTHON) cannot make a virtual environment. On Debian or Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	@echo "setting up $(VENV): the installer uv …" >&2
	@$(ENTER) $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r dev/locks/uv.lock
	@echo "setting up $(VENV): the $$(grep -c == requirements.lock) packages that the worker runs with …" >&2
	$(call install,$(VENV),-r requirements.lock -r dev/locks/build.lock)
	@$(ENTER) $(BIN)/uv pip install --quiet --python $(BIN)/python --no-build-isolation --no-deps --offline --editable .
	@touch $(RUNTIME)

$(READY): requirements-dev.lock $(RUNTIME)
	@echo "setting up $(VENV): $$(grep -c == requirements-dev.lock) packages to develop it, 700 MB …" >&2
	$(call install,$(VENV),-r requirements-dev.lock)
	@touch $(READY)

demo: $(RUNTIME) ## Start servers and a worker, send it seven commands, show each beside its event, stop all
	@$(SERVERS) run -- sh -c '$(BIN)/worker migrate && $(BIN)/worker demo'

run: $(RUNTIME) ## The same servers, and a worker in the foreground until Ctrl-C
	@$(SERVERS) run --keep -- sh -c '$(BIN)/worker migrate && \
	  echo "In another terminal:  . $(SERVICES)/env && worker publish user.create username=ann email=ann@example.com --wait" >&2 && \
	  exec $(BIN)/worker run'

# Without arguments the files run side by side; what a few are chosen for is best seen in order.
test: $(READY) ## Each guarantee and feature, on real servers that it starts itself; under 5 minutes
	@$(SERVERS) run -- $(BIN)/python -m pytest $(or $(args),-n 4 -m "not long")

test-all: $(READY) ## The same, and what measures, searches, and breaks servers at length; about 10 minutes
	@$(SERVERS) run -- $(BIN)/python -m pytest $(or $(args),-n 4)

coverage: $(READY) ## The same, and which lines no test comes by; takes longer
	@$(SERVERS) run -- $(BIN)/python -m pytest --cov --cov-report=term $(or $(args),-n 4)

# With args=--hypothesis-seed=N the same ones again; the order of a set of strings would differ.
interleavings: $(READY) ## Random schedules of the worker against stand-ins: make interleavings examples=20000
	@$(SERVERS) run -- env PYTHONHASHSEED=0 WORKER_INTERLEAVINGS=$(or $(examples),20000) $(BIN)/python -m pytest -q -s tests/interleavings $(args)

mutations: $(READY) ## Break the code in known ways: the tests must notice each; about 2 minutes
	@$(SERVERS) run -- $(BIN)/python -m dev.mutations $(args)

oracle: $(READY) ## Tables that nobody would think of, against the plain ORM: make oracle examples=5000
	@$(SERVERS) run -- env WORKER_ORACLE=$(or $(examples),5000) $(BIN)/python -m pytest -q -n 0 -m long tests/rows/test_oracle.py $(args)

fuzz: $(READY) ## Search for a message that the codec gets wrong: make fuzz minutes=30
	@$(ENTER) $(BIN)/python -m dev.fuzz --minutes $(or $(minutes),10) $(args)

soak: $(READY) ## A day's worth of commands, what has grown, about half an hour: make soak commands=1000000
	@$(SERVERS) run -- $(BIN)/python -m dev.soak --commands $(or $(commands),8640000) $(args)

bench: $(READY) $(PEERS_READY) ## The worker beside its peers, about 5 minutes: make bench args="--rounds 9"
	@$(SERVERS) run -- $(BIN)/python -m dev.benchmarks $(args)

bench-latency: $(READY) $(PEERS_READY) ## Latency at loads that do not wait for answers, about 12 minutes
	@$(SERVERS) run -- $(BIN)/python -m dev.benchmarks.latency $(args)

bench-growth: $(READY) ## Full tables, a long queue, many lanes, about 15 minutes
	@$(SERVERS) run -- $(BIN)/python -m dev.benchmarks.growth $(args)

bench-stages: $(READY) ## Where a command's CPU time goes, stage by stage, about a minute
	@$(SERVERS) run -- $(BIN)/python -m dev.benchmarks.stages $(args)

image-test: $(RUNTIME) ## Build the container image and have a worker in it answer; needs root and Debian, no Docker
	@$(SERVERS) run -- $(BIN)/python -m dev.image

typed: $(READY) $(PYRIGHT_READY) ## mypy and pyright on an entity of one's own, against the wheel; about a minute
	@WORKER_PYRIGHT=$(CURDIR)/$(PYRIGHT)/bin/basedpyright $(BIN)/python -m pytest -q -n 0 tests/e2e/test_typed.py $(args)

chaos: $(READY) ## Break everything on purpose, and count what became of the commands: make chaos minutes=5 seed=1 rate=140 nodes=3
	@$(ENTER) $(BIN)/python -m dev.chaos $(if $(minutes),--minutes $(minutes)) $(if $(seed),--seed $(seed)) $(if $(rate),--rate $(rate)) $(if $(nodes),--nodes $(nodes)) $(args)

$(PEERS_READY): requirements-bench.lock $(READY)
	@echo "setting up $(PEERS) …" >&2
	@$(PYTHON) -m venv $(PEERS)
	$(call install,$(PEERS),-r requirements-bench.lock)
	@touch $(PEERS_READY)

$(PYRIGHT_READY): dev/locks/pyright.lock $(RUNTIME)
	@echo "setting up $(PYRIGHT), 280 MB …" >&2
	@$(PYTHON) -m venv $(PYRIGHT)
	$(call install,$(PYRIGHT),-r dev/locks/pyright.lock)
	@touch $(PYRIGHT_READY)

check: $(READY) ## Format, lint, types, import rules, declared packages, compose file, docs: what CI runs beside the tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/deptry worker alembic --optional-dependencies-dev-groups lab,testing,dev,bench \
	  --extend-exclude '^worker/(cli/)?lab/' --extend-exclude '^worker/testing/'
	$(BIN)/deptry worker alembic --optional-dependencies-dev-groups dev,bench
	$(BIN)/deptry .
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(BIN)/python -m dev.docs.generate --check

format: $(READY) ## Format the code and mend what can be mended by rule
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY) ## Write the generated parts of the docs anew
	$(BIN)/python -m dev.docs.generate

migration: $(READY) ## Write a migration from what changed in the entities: make migration m="add a phone number"
	@test -n "$(m)" || { echo 'error: name it: make migration m="add a phone number"' >&2; exit 2; }
	@$(SERVERS) run -- sh -c '$(BIN)/worker migrate && written=$$($(BIN)/worker migration "$(m)") && \
	  if test -n "$$written"; then echo "$$written"; \
	    $(BIN)/ruff format --quiet "$$written" && $(BIN)/ruff check --quiet --fix "$$written"; fi'

# Each lock keeps the versions that it has, where they still fit.
PIN := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header $(if $(upgrade),--upgrade)

lock: $(READY) ## Pin what pyproject.toml asks for, with hashes; the newest of everything: make lock upgrade=1
	$(PIN) pyproject.toml -o requirements.lock
	$(PIN) --extra dev pyproject.toml -o requirements-dev.lock
	$(PIN) --extra bench pyproject.toml -o requirements-bench.lock
	$(PIN) --group build --constraint requirements-dev.lock -o dev/locks/build.lock
	$(PIN) --group uv --constraint requirements-dev.lock -o dev/locks/uv.lock
	$(PIN) --group pyright --constraint requirements-dev.lock -o dev/locks/pyright.lock

sbom: $(READY) ## Write what the worker is made of: sbom.json (CycloneDX), and check the licences
	@$(BIN)/python -m dev.supply sbom --out sbom.json
	@$(BIN)/python -m dev.supply licences

audit: $(READY) ## Known vulnerabilities of the locked packages, where a service that knows them is reached
	@$(BIN)/python -m dev.supply audit

down: ## Stop the servers that make started; their data stays
	@if test -d .services; then $(PYTHON) -m dev.servers down; fi

clean: ## Stop them, and remove their data, .venv, other Debian releases and all caches
	@if test -d .services; then $(PYTHON) -m dev.servers clean; fi
	rm -rf .venv $(PEERS) $(PYRIGHT) .services .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.* dist build

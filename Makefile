# Every target but `clean` and `lock` sets the repository up first: system packages, then .venv from requirements.lock.
# The second time that costs nothing.

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory --no-builtin-rules
.SUFFIXES:
.DELETE_ON_ERROR:
.PHONY: help setup system databases image machine on-openstack demo up test beside unit integration acceptance contract-report traffic-report compatibility check format docs bench lock clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --no-input --disable-pip-version-check --quiet

# Debian installs haproxy in a directory that an ordinary user's PATH may lack.
export PATH := $(CURDIR)/$(BIN):$(PATH):/usr/local/sbin:/usr/sbin:/sbin

# Packages are installed without bytecode and compiled when they are first imported; with this set, each start of each
# process would compile them anew.
unexport PYTHONDONTWRITEBYTECODE

help:
	@echo 'make demo [ONCE=1]   see a load balancer being made and spreading requests (ONCE=1: end after that)'
	@echo 'make up [ARGS=...]   run API, controller and health receiver in one process'
	@echo 'make image           build the image of an amphora that is a machine of its own, in .cache/image'
	@echo 'make machine         build that image from nothing, start a load balancer on a virtual machine of it, and tell how long each took'
	@echo 'make on-openstack    a load balancer on a real Nova, Neutron, Barbican and Keystone: made, failed over, deleted, with times'
	@echo 'make test            unit, integration and the everyday acceptance tests'
	@echo 'make beside          what CI runs beside these: whole stories of half a minute each'
	@echo 'make acceptance      every acceptance test, and everywhere the long ones too'
	@echo 'make contract-report count the facts of the API contract that hold, by area'
	@echo 'make traffic-report  write docs/traffic-coverage.md: which attributes are proved by real traffic, and which are left'
	@echo 'make compatibility   write docs/compatibility.md: which agents, old and of Octavia, the driver commands (as root)'
	@echo 'make check           format, lint, types, import contracts, docs'
	@echo 'make format          let ruff format and mend'
	@echo 'make bench           run every script in bench/'
	@echo 'make setup           only install what is needed'
	@echo 'make lock            write requirements.lock anew'
	@echo 'make clean           remove what make made'

# ---------------------------------------------------------------- setup

setup: system $(VENV)/.installed

system:
	@scripts/system-packages

# Servers that tests start for themselves.
databases:
	@scripts/system-packages databases

# Order-only on `system`: it runs each time (some milliseconds), without making what follows out of date.
$(VENV)/bin/python: | system
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Frontinus needs Python 3.11 or later; say which: make PYTHON=python3.12")'
	@echo 'Making .venv'
	@$(PYTHON) -m venv $(VENV)

# Not compiling at once halves the time: each module is compiled when first imported.
$(VENV)/.locked: requirements.lock | $(VENV)/bin/python
	@echo 'Installing Python packages from requirements.lock into .venv'
	@$(PIP) install --no-compile --require-hashes --no-deps -r requirements.lock
	@touch $@

$(VENV)/.installed: $(VENV)/.locked pyproject.toml amphora/pyproject.toml
	@$(PIP) install --no-compile --no-deps --no-build-isolation -e . -e amphora
	@touch $@

# As root: Debian's packages are unpacked as their owners. Quick when nothing of it changed.
IMAGE ?= $(CURDIR)/.cache/image
image:
	@scripts/system-packages image
	@amphora/image/build $(IMAGE)

# As root. ARGS=--keep-image takes the image that is there.
machine: setup
	@scripts/system-packages image
	@python bench/machine_from_nothing.py $(ARGS)

# As root. OpenStack's services are started if they do not run (tests/openstack_lab.py), and go on running.
on-openstack: setup databases image
	@pytest -q -s tests/acceptance/test_on_openstack.py $(ARGS)

# ---------------------------------------------------------------- run

demo: setup
	@frontinus demo $(if $(ONCE),--once) $(ARGS)

up: setup
	@frontinus up $(ARGS)

# ---------------------------------------------------------------- examine

# Two runs: what measures no time shares the cores; what stops clocks has the machine to itself.
test: setup databases
	@scripts/pytest-twice -q -n 2 -m 'not long and not alone and not beside'
	@scripts/pytest-twice -q -m 'alone and not long'

beside: setup databases
	@scripts/pytest-twice -q -n 2 -m 'beside and not long'

unit: setup
	@pytest -q tests/$@

integration: setup databases
	@pytest -q tests/$@

acceptance: setup databases image
	@pytest -q tests/acceptance
	@pytest -q -n 2 -m 'long or beside' tests/integration
	@pytest -q -m long tests/octavia tests/compatibility

contract-report: setup
	@pytest -q --by-area -m 'not long' tests/integration/api/contract

traffic-report: setup
	@python -m tests.acceptance.traffic.report

# As root: each agent has namespaces of its own. Installs the octavia package into .cache/octavia, beside everything else.
compatibility: setup
	@scripts/octavia >/dev/null
	@python -m tests.compatibility.report

check: setup
	@ruff format --check --quiet || { echo 'Run: make format' >&2; exit 1; }
	@ruff check --quiet --output-format concise
	@mypy --no-error-summary
	@mkdir -p .cache; lint-imports --no-cache >.cache/lint-imports.txt 2>&1 || { cat .cache/lint-imports.txt; exit 1; }
	@$(MAKE) docs

docs: setup
	@pytest -q tests/unit/docs

format: setup
	@ruff format --quiet
	@ruff check --fix

bench: setup
	@scripts/system-packages bench databases
	@for script in $(filter-out bench/common.py bench/load.py bench/asker.py,$(wildcard bench/*.py)); do echo "$$script" >&2; python "$$script" $(ARGS) || exit 1; done

# ---------------------------------------------------------------- keep

# No index and no host in the lock file: whoever installs uses the index that their pip is set to.
lock:
	@scripts/lock $(ARGS)

clean:
	@rm -rf $(VENV) .cache .import_linter_cache .hypothesis build dist
	@find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
	@find . -name '*.egg-info' -not -path './.git/*' -prune -exec rm -rf {} +

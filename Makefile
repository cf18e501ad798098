# Two commands do all the set-up: `make demo` runs the main job on speech that it synthesises, `make test` the tests, but for
# those that take minutes each (two hosts, many kills, whole recipes on object storage): `make test-slow`.
PYTHON ?= python3.11
VENV ?= .venv
# What is used is compiled when it is first imported: of 22,000 files a small part.
PIP = PYTHONUNBUFFERED=1 $(VENV)/bin/pip --disable-pip-version-check install --no-compile --progress-bar off

SHELL = /bin/bash

# Of what pip says, the files of 10 MB and more, and that it unpacks: there are two hundred small ones.
TELL = sed -un -E -e 's/^ *(Downloading|Using cached) (.*\/)?([^-]+)-[^ ]* \(([0-9.]{4,} [MG]B)\)/    \3, \4/p' \
	-e 's/^Installing collected packages.*/    unpacking, a minute or two .../p'

export RAY_USAGE_STATS_ENABLED = 0
# As images of containers set it. Without bytecode each process compiles all that it imports, which pip left uncompiled.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-slow check

# The plan tells how many steps there are and how long they take; a demo that resumes goes on by the first one.
demo: $(VENV)/base
	test -e out/distill/plan.json || $(VENV)/bin/gristmill plan configs/distill.yaml --sample 8
	$(VENV)/bin/gristmill run configs/distill.yaml

test: $(VENV)/dev
	$(VENV)/bin/python -m pytest -m "not slow" -n 3

test-slow: $(VENV)/dev
	$(VENV)/bin/python -m pytest -m slow

check: $(VENV)/dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# torch goes first and by itself: where an index offers a CPU build, nothing later swaps it for a CUDA one.
$(VENV)/base: pyproject.toml constraints.txt
	@echo "Setting up $(VENV), once: some 500 MB are downloaded, some GB with CUDA, which PyPI has of torch for Linux"
	$(PYTHON) -m venv $(VENV)
	@echo "1 of 2: PyTorch"
	@set -o pipefail; $(PIP) torch==2.13.0 | $(TELL)
	@echo "2 of 2: Ray and the other packages"
	@set -o pipefail; $(PIP) --constraint constraints.txt --editable . | $(TELL)
	@touch $@

$(VENV)/dev: $(VENV)/base
	@echo "Adding what the tests need"
	@set -o pipefail; $(PIP) --constraint constraints.txt --editable '.[dev]' | $(TELL)
	@touch $@

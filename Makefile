# Two commands do all the set-up: `make demo` runs the main job on speech that it synthesises, `make test` the tests, but for
# those that take minutes each (two hosts, many kills, whole recipes on object storage): `make test-slow`.
PYTHON ?= python3.11
VENV ?= .venv
# What is used is compiled when it is first imported: of 22,000 files a small part.
PIP = $(VENV)/bin/pip --disable-pip-version-check install --quiet --no-compile

export RAY_USAGE_STATS_ENABLED = 0

.PHONY: demo test test-slow check

demo: $(VENV)/base
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
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) --constraint constraints.txt --editable .
	touch $@

$(VENV)/dev: $(VENV)/base
	$(PIP) --constraint constraints.txt --editable '.[dev]'
	touch $@

# `make demo` and `make test` set up .venv by themselves and do nothing twice. PYTHON picks the interpreter (3.10 to 3.12).
PYTHON ?= $(shell for p in python3.11 python3.12 python3.10 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: demo test slow lint docs wheel clean

demo: $(VENV)/.installed
	$(RUN) -m attent_stream demo

# On all cores, at most eight; then what needs the machine for itself.
test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(RUN) -m pytest -m "not slow and not alone" -n logical --maxprocesses 8 --dist loadfile
	$(RUN) -m pytest -m "alone and not slow"

slow: $(VENV)/.installed
	$(RUN) -m pytest -m slow

lint: $(VENV)/.installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

# A site in build/site, which needs no network to be read.
docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict

wheel: $(VENV)/.installed
	$(RUN) -m pip wheel --no-deps --quiet -w dist .

# uv installs the pinned set about five times faster than pip does.
$(VENV)/.installed: requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "attent_stream needs Python 3.10, 3.11 or 3.12 (set PYTHON=/path/to/it)" >&2; exit 1; }
	@echo "Setting up $(VENV) with $(PYTHON): about 6 GB, half a minute to several, by your network"
	$(PYTHON) -m venv --clear $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check uv==0.13.9
	$(RUN) -m uv pip install --quiet --compile-bytecode --python $(RUN) --requirement requirements.txt
	$(RUN) -m uv pip install --quiet --python $(RUN) --no-deps --editable .
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info

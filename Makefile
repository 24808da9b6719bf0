# `make demo` and `make test` set up .venv by themselves and do nothing twice. PYTHON picks the interpreter (3.10 to 3.13).
# TORCH picks a newer torch than the one that Composer's metadata asks for: `make test TORCH=2.14`.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.10 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
TORCH ?=
VENV := .venv$(if $(TORCH),-torch$(TORCH))
RUN := $(VENV)/bin/python

.PHONY: demo test slow foundry lint docs wheel clean

demo: $(VENV)/.installed
	$(RUN) -m attent_stream demo

# On all cores, at most eight; then what needs the machine for itself.
test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(RUN) -m pytest -m "not slow and not alone" -n logical --maxprocesses 8 --dist loadfile
	$(RUN) -m pytest -m "alone and not slow"

slow: $(VENV)/.installed
	$(RUN) -m pytest -m slow

# What needs llm-foundry, in an environment of its own.
foundry: .venv-foundry/.installed
	OMP_NUM_THREADS=1 .venv-foundry/bin/python -m pytest tests/launch -k foundry

lint: $(VENV)/.installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

# A site in build/site, which needs no network to be read.
docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict

wheel: $(VENV)/.installed
	$(RUN) -m pip wheel --no-deps --quiet -w dist .

# uv installs the pinned set about five times faster than pip does. Each list is complete, so it is installed as it is: a
# newer torch is not what Composer's metadata asks for.
define SET_UP
	@test -n "$(PYTHON)" || { echo "attent_stream needs Python 3.10 to 3.13 (set PYTHON=/path/to/it)" >&2; exit 1; }
	@test "$(@D)" = .venv || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(@D) needs Python 3.11, 3.12 or 3.13 (set PYTHON=/path/to/it)" >&2; exit 1; }
	@echo "Setting up $(@D) with $(PYTHON): about 6 GB, half a minute to several, by your network"
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	$(@D)/bin/python -m uv pip install --quiet --compile-bytecode --python $(@D)/bin/python --no-deps --requirement $<
	$(@D)/bin/python -m uv pip install --quiet --python $(@D)/bin/python --no-deps --editable .
	@touch $@
endef

.venv/.installed: requirements.txt pyproject.toml
	$(SET_UP)

.venv-%/.installed: requirements-%.txt pyproject.toml
	$(SET_UP)

requirements-torch%.txt:
	@echo "TORCH must be one of $(patsubst requirements-torch%.txt,%,$(wildcard requirements-torch*.txt)), got $*" >&2; exit 1

clean:
	rm -rf .venv* build dist *.egg-info

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
DEMO := runs/demo

.PHONY: demo test test-slow lint clean

demo: $(VENV)/.core
	$(RUN) -m ssl_jax.train --config=configs/simclr.py:digits --workdir=$(DEMO)

test: $(VENV)/.dev
	$(RUN) -m pytest

test-slow: $(VENV)/.dev
	$(RUN) -m pytest -m slow

lint: $(VENV)/.dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

clean:
	rm -rf $(VENV) $(DEMO)

# A stamp per requirements file: installing again happens only when the file changed.
$(VENV)/.core: requirements.txt
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.core
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

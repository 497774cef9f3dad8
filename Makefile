PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
DEMO := runs/demo

.PHONY: demo test test-slow parity pods slurm lint package docs clean

demo: $(VENV)/.core
	$(RUN) -m ssl_jax.train --config=simclr:digits --workdir=$(DEMO)

# Tests of one file run on one worker, since they share fixtures that train models.
test: $(VENV)/.dev
	$(RUN) -m pytest -n 2 --dist loadfile --durations=10

# The tests that plain pytest skips.
test-slow: $(VENV)/.dev
	$(RUN) -m pytest -m slow --durations=10

# Compares encoders and exports with timm, torchvision and onnxruntime, and losses with lightly.
# torch is large, so only this target installs it.
parity: $(VENV)/.torch
	$(RUN) -m pytest -n 2 --dist loadfile --durations=10 tests/models/test_resnet_timm.py \
		tests/models/test_vit_timm.py tests/losses/test_lightly.py \
		tests/weights/test_timm.py tests/weights/files/test_weight_files.py \
		tests/export tests/report/test_model_card.py

# Compiles training steps for TPUs. This needs no TPU, but the large wheel libtpu.
pods: $(VENV)/.pods
	$(RUN) -m pytest -n 2 --dist loadfile --durations=10 -m "slow or not slow" tests/plan

# Runs jobs on a real Slurm, which the tests start and stop on this machine. Needs root and
# `apt-get install slurm-wlm munge`.
slurm: $(VENV)/.dev
	$(RUN) -m pytest -m slow --durations=10 tests/launch/test_slurm.py

lint: $(VENV)/.dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

# Builds the wheel and trains with it in a clean environment, from an empty folder.
package:
	PYTHON=$(PYTHON) .ci/package

# Builds the documentation into site/. A broken link is an error, and so is a page that loads a file
# from another server.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet
	! grep -rlE "<(script|link|img|iframe)[^>]+(src|href)=.?https?://" site --include=*.html

clean:
	rm -rf $(VENV) $(DEMO) build site

# Each stamp belongs to one requirements file; packages are installed again when the file changes.
$(VENV)/.core: requirements.txt
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.core
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

$(VENV)/.pods: $(VENV)/.dev
	$(RUN) -m pip install --quiet --disable-pip-version-check libtpu
	touch $@

$(VENV)/.torch: requirements-torch.txt $(VENV)/.dev
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-torch.txt
	touch $@

$(VENV)/.docs: requirements-docs.txt $(VENV)/.dev
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-docs.txt
	touch $@

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
DEMO := runs/demo

.PHONY: demo test test-slow parity pods slurm lint clean

demo: $(VENV)/.core
	$(RUN) -m ssl_jax.train --config=configs/simclr.py:digits --workdir=$(DEMO)

# A file stays on one worker: its fixtures train models.
test: $(VENV)/.dev
	$(RUN) -m pytest -n 2 --dist loadfile --durations=10

# What plain pytest leaves out.
test-slow: $(VENV)/.dev
	$(RUN) -m pytest -m slow --durations=10

# Encoders and exports against timm, torchvision and onnxruntime, losses against lightly's; torch is
# large, so it is not in the requirements.
parity: $(VENV)/.torch
	$(RUN) -m pytest -n 2 --dist loadfile --durations=10 tests/models/test_resnet_timm.py \
		tests/models/test_vit_timm.py tests/losses/test_lightly.py \
		tests/weights/test_timm.py tests/weights/files/test_weight_files.py \
		tests/export tests/report/test_model_card.py

# The step compiled for TPUs, which needs no TPU but libtpu, a large wheel.
pods: $(VENV)/.pods
	$(RUN) -m pytest -n 2 --dist loadfile --durations=10 -m "slow or not slow" tests/plan

# Jobs on a real Slurm, which the tests start on this machine and end again; as root, after
# `apt-get install slurm-wlm munge`.
slurm: $(VENV)/.dev
	$(RUN) -m pytest -m slow --durations=10 tests/launch/test_slurm.py

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

$(VENV)/.pods: $(VENV)/.dev
	$(RUN) -m pip install --quiet --disable-pip-version-check libtpu
	touch $@

$(VENV)/.torch: requirements-torch.txt $(VENV)/.dev
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-torch.txt
	touch $@

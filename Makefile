# make quickstart   install, make a tiny model and synthetic talks, train, decode, score (CPU, under 10 minutes)
# make demo         install, and start the server with sap2-tiny at http://127.0.0.1:8000/
# make test         install and run the tests that need no GPU, but for the slow ones (WORKERS=2 processes; 0: one after the other)
# make test-slow    the recipes from end to end, recordings of hours, damaged files by the thousand
# make test-unit    only the quick ones
# make test-transformers   the model's tests with the newest transformers that pyproject.toml allows
# make lint         ruff and mypy

PYTHON ?= python3
PORT ?= 8000
WORKERS ?= 2
VENV := .venv
PIP := $(VENV)/bin/pip --disable-pip-version-check
# Byte code is made for the modules that are imported (WARM_UP), not for all of torch; without any, each of the many
# starts of ms-swift would compile for half a minute.
unexport PYTHONDONTWRITEBYTECODE
WARM_UP := $(VENV)/bin/python -c "import av, deepspeed, peft, sap2.model.processing, swift.pipelines, swift.trainers"
PYTEST := $(VENV)/bin/pytest --numprocesses $(WORKERS) --dist loadfile
INSTALL := $(PIP) install --quiet --no-compile --constraint constraints.txt

.PHONY: quickstart demo test test-slow test-unit test-transformers lint wheel clean

quickstart: $(VENV)/.base
	PATH="$(abspath $(VENV))/bin:$$PATH" bash examples/quickstart.sh

# The extra slides for PDF and PPTX; what base does not install, and dev does
demo: $(VENV)/.demo
	$(VENV)/bin/sap2 serve --model sap2-tiny --prune-adapter sap2-tiny-prune --asr-adapter sap2-tiny-asr \
	    --max-segment-seconds 3 --port $(PORT)

test: $(VENV)/.dev
	$(PYTEST) -m "not gpu and not slow"

test-slow: $(VENV)/.dev
	$(VENV)/bin/pytest -m "slow and not gpu"

test-unit: $(VENV)/.dev
	$(PYTEST)

# An environment that has transformers of its own and everything else from the first one
NEWEST := build/transformers-5.24.0
MODEL_TESTS := $(addprefix tests/unit/test_,model.py model_weights.py model_generation.py model_training.py \
	processing.py configuration.py encoder.py label_smoothing.py tiny_checkpoint.py)

test-transformers: $(NEWEST)/.ready
	$(NEWEST)/bin/python -m pytest $(MODEL_TESTS)

$(NEWEST)/.ready: | $(VENV)/.dev
	$(VENV)/bin/python -m venv --without-pip $(NEWEST)
	$(PIP) --python $(NEWEST)/bin/python install --quiet --no-compile --no-deps transformers==$(patsubst \
	    transformers-%,%,$(notdir $(NEWEST)))
	$(VENV)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" \
	    >$$($(NEWEST)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/first.pth
	@touch $@

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

wheel: $(VENV)/.dev
	rm -rf dist
	$(VENV)/bin/python -m build --wheel --outdir dist .

clean:
	rm -rf $(VENV) dist build runs

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; v = "%d.%d" % sys.version_info[:2]; \
	    sys.version_info >= (3, 11) or sys.exit("Python " + v + " is too old; allowed: 3.11 and newer (make PYTHON=...)")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade pip

$(VENV)/.base: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV) (a few minutes)"
	$(INSTALL) --editable .
	@$(WARM_UP) >/dev/null 2>&1
	@touch $@

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/.base
	$(INSTALL) --editable ".[slides]"
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV) (a few minutes)"
	$(INSTALL) --editable ".[dev]"
	@$(WARM_UP) >/dev/null 2>&1
	@touch $@ $(VENV)/.base

# make demo   sets everything up and runs the main job
# make test   sets everything up and passes all tests
# The tests use real data where FPTT_DATA names a folder with them (see README.md).

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# two workers, each with one thread of the matrix library
JOBS ?= 2
export OPENBLAS_NUM_THREADS = 1
export OMP_NUM_THREADS = 1

.PHONY: demo test lint clean

demo: $(VENV)/.installed
	$(BIN)/fptt demo

test: $(VENV)/.installed-test lint
	$(BIN)/python -m pytest -q -n $(JOBS) --durations=10

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/mypy

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fptt needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Name another with: make PYTHON=python3.12 demo")'
	$(PYTHON) -m venv $(VENV) || { echo "python venv is missing: on Debian and Ubuntu, apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

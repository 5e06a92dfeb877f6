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

# meson and ninja are looked for on the path
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: demo test lint engine clean
# two of these targets write to the same build folder
.NOTPARALLEL:

demo: engine
	$(BIN)/fptt demo

test: $(VENV)/.installed-test $(VENV)/.installed-cross lint
	$(BIN)/python -m pytest -q -n $(JOBS) --durations=10

lint: $(VENV)/.installed-test engine
	$(BIN)/ruff check .
	$(BIN)/mypy

# compiles what changed in C since the last time; changes in Python need nothing
engine: $(VENV)/.installed
	$(BIN)/ninja -C $(VENV)/build --quiet
	ln -sf $(abspath $(VENV))/build/_engine.abi3.so src/fptt/native/

PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# Installs the package in this folder, with what stands in $(1) besides.
# Without isolation and in a folder that stays, so that ninja can go on from there. meson-python's
# own way to import from a source folder is to call ninja and find every module itself; it is
# replaced by a line with the folder. Then Python keeps the compiled modules, parallel tests do not
# all call ninja, and PYTHONPATH can put another copy of the sources first.
define install
	$(PIP_INSTALL) --no-build-isolation --config-settings=build-dir=$(abspath $(VENV))/build -e '.$(1)'
	$(BIN)/python -c 'import pathlib, sysconfig; site = pathlib.Path(sysconfig.get_path("purelib")); (site / "fptt-editable.start").unlink(missing_ok=True); (site / "fptt-editable.pth").write_text("$(CURDIR)/src\n")'
endef

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fptt needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Name another with: make PYTHON=python3.12 demo")'
	@for name in "$(CC)" cc gcc clang; do command -v $$name >/dev/null && exit 0; done; \
	echo "fptt needs a C compiler: on Debian and Ubuntu, apt-get install build-essential; on macOS, xcode-select --install"; exit 1
	@$(PYTHON) -c 'import pathlib, sys, sysconfig; sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists() and "Python.h is missing: on Debian and Ubuntu, apt-get install python3-dev")'
	$(PYTHON) -m venv $(VENV) || { echo "python venv is missing: on Debian and Ubuntu, apt-get install python3-venv"; exit 1; }
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' > $(VENV)/build-requires.txt
	$(PIP_INSTALL) -r $(VENV)/build-requires.txt
	@echo "compiling the engine for all instruction sets: about a minute"
	$(call install,)
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(call install,[test])
# by itself: the tests need none of what it asks for besides loguru, and torchvision and torchaudio
# would bring gigabytes
	$(PIP_INSTALL) --no-deps spikingjelly==2.0.0
	touch $@

# Cross compilers and emulators for the tests of firmware, a browser for those of pages. What cannot
# be installed is tried again the next time; only in CI is that an error.
$(VENV)/.installed-cross: scripts/cross_tools.sh | $(VENV)/.installed
	@if sh scripts/cross_tools.sh; then touch $@; else test $$? -eq 3; fi

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis src/fptt/native/_engine.abi3.so

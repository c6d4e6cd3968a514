# make train · make test · make docs   (each creates .venv when it is missing)
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
export TF_CPP_MIN_LOG_LEVEL ?= 3
BENCHMARKS := augment reading step pointwise memory loop labeling serving

.DEFAULT_GOAL := help
.PHONY: help train test tests test-slow lint types docs bench gpu-check clean

help:
	@echo "make train      install into $(VENV), then train on handwritten digits with 20 labels"
	@echo "make test       lint, types, documentation and tests: what CI runs"
	@echo "make test-slow  the longer checks"
	@echo "make bench      the benchmarks, each printing ratios from one run"
	@echo "make gpu-check  what only a GPU can show; says so where there is none"
	@echo "make lint       ruff"
	@echo "make types      mypy"
	@echo "make docs       the documentation, into site/index.html"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "mpl_tf needs Python 3.11 or newer (Keras 3.15 does); $(PYTHON) is older. Try: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade pip  # the one that Python 3.11 brings takes twice as long

# Without setuptools' warning that an editable installation is one.
INSTALL = PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable
# What pip leaves out above, which takes it a quarter of an installation, on one core; the packages' own tests, half
# of all that, are never imported. Some packages bring files that no Python reads.
COMPILE = $(BIN)/python -m compileall -q -j 0 -x '/tests?/|_test\.py$$' $(VENV)/lib >/dev/null || true

$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) '.[serving]'
	@$(COMPILE)
	@touch $@

# Everything at once: two installations would take pip a quarter longer.
$(VENV)/.installed-dev: setup.cfg pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) '.[dev]'
	@$(COMPILE)
	@touch $(VENV)/.installed $@

# Operations on images of 8 pixels are over before a second thread has joined in.
train: export TF_NUM_INTRAOP_THREADS ?= 1
train: $(VENV)/.installed
	$(BIN)/python -m recipes.mpl --preset=digits --run_dir=runs/digits --export_dir=saved_models/digits

# Types and documentation are looked at while the tests run.
test: lint
	@$(MAKE) --no-print-directory --jobs=2 tests types docs

tests: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

# And with all the optimizations, of graphs and by XLA, that the tests above do without.
test-slow: export XLA_FLAGS :=
test-slow: export TEST_GRAPHS := rewritten
test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow
	$(BIN)/python -m pytest tests/conformance/test_methods.py -k xla_equals_eager

bench: $(VENV)/.installed
	@for program in $(BENCHMARKS:%=benchmarks/%.py); do echo "== $$program"; $(BIN)/python $$program || exit 1; done

gpu-check: $(VENV)/.installed
	$(BIN)/python benchmarks/gpu.py

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "documentation: site/index.html"

clean:
	rm -rf build site *.egg-info .mypy_cache .pytest_cache .ruff_cache

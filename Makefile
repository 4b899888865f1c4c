# The whole project in a few words; `make help` lists them. Each target works first, alone and twice.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIP_ARGS ?=  # for instance an index of your own: make demo PIP_ARGS="--index-url ..."
BIN := .venv/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check $(PIP_ARGS)
READY := .venv/.ready

.PHONY: help demo test test-lowest check format docs dist dist-check fuzz audit mutate bench examples clean
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: $(READY) ## score the images in examples/ with the model that ships inside; writes demo-out/scores.csv
	@mkdir -p demo-out
	$(BIN)/mst-clipiqa score examples -o demo-out/scores.csv

test: $(READY) ## run the whole test suite, offline, a process per core
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

check: $(READY) ## lint, formatting, types
	$(BIN)/ruff check --quiet --output-format concise .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy

format: $(READY) ## let ruff fix what it can
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format --quiet .

docs: $(READY) ## build the documentation site into docs/_build/html; a warning is an error
	@$(PIP) -c constraints.txt -c docs/requirements.txt -e '.[docs]'
	$(BIN)/python -m sphinx -W --keep-going --quiet -b html docs docs/_build/html
	@echo 'Wrote docs/_build/html/index.html'

dist: $(READY) ## build the sdist and the wheel into dist/
	@$(PIP) -c constraints.txt -e '.[release]'
	$(BIN)/python -m build

dist-check: $(READY) ## build both, install each in an environment of its own, score an image
	@$(PIP) -c constraints.txt -e '.[release]'
	$(BIN)/python -m pytest -m dist tests/test_dist.py

test-lowest: ## run the test suite with the oldest versions that pyproject.toml allows, in .venv-lowest
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/pip install -qq --disable-pip-version-check $(PIP_ARGS) uv
	.venv-lowest/bin/uv pip install -q --python .venv-lowest/bin/python --resolution lowest-direct -e '.[dev]'
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest --numprocesses auto --dist worksteal

fuzz: $(READY) ## feed damaged images, prompts, tables, model folders and requests: N=1000 cases each
	$(BIN)/python -m fuzz all --count $(or $(N),1000)

audit: $(READY) ## look the installed versions up in the advisory database; needs the network
	@$(PIP) -c constraints.txt -e '.[audit]'
	$(BIN)/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip --progress-spinner off

mutate: $(READY) ## put random faults into the package, and see which the tests notice; writes docs/mutation.json (hours)
	@$(BIN)/pip install -qq --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[mutate]'
	OMP_NUM_THREADS=1 nice -n 15 $(BIN)/python -m mutation --each $(or $(N),34)

bench: $(READY) ## measure speed and memory (10 minutes, machine idle); writes docs/performance.md; ROOT=.../AGIQA-3K adds the agreement of granularities
	$(BIN)/python -m speed.report $(if $(ROOT),--root $(ROOT))

examples: $(READY) ## draw the images of examples/ again
	$(BIN)/python examples/make_examples.py

clean: ## remove what the other targets made
	rm -rf .venv .venv-lowest demo-out build dist docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The stamp is written last, so an installation that broke off is taken up again; it is older than
# pyproject.toml or constraints.txt once these change, and then pip runs again.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'Expected Python 3.11 or later; name one: make PYTHON=/path/to/python3.11' >&2; exit 2; }
	@echo 'Setting up .venv (a minute or two the first time) ...'
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@$(PIP) -c constraints.txt -e '.[dev]'
	@touch $@

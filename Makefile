# Everything a person does with a checkout. `make help` lists it.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
SLIDES ?=
WORKERS ?=

.DEFAULT_GOAL := help
.PHONY: help env base-env demo test soak lint format bench pictures lock clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

env: ## Make .venv with everything installed (nothing to do when it is current)
	@PYTHON="$(PYTHON)" sh tools/environment.sh full

base-env: ## Make .venv with the base lock; a fuller .venv is left as it is
	@PYTHON="$(PYTHON)" sh tools/environment.sh base

demo: base-env ## Build a data set from generated slides, or from SLIDES="/path/*.svs"
	@$(BIN)/python tools/demo.py $(if $(SLIDES),--slides "$(SLIDES)") $(if $(WORKERS),--workers $(WORKERS))

test: env ## Run the tests (under 10 minutes on 2 cores)
	@$(BIN)/python -m pytest -m "not soak"

soak: env ## Run the long proofs: many random kills, mixing over many shards
	@$(BIN)/python -m pytest -m soak

lint: env ## ruff, mypy --strict
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: env ## Let ruff mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: env ## Run the benchmarks (JSON on the last line of each)
	@for name in stain chain; do $(BIN)/python benchmarks/$$name.py --json || exit 1; done

pictures: env ## Draw the pictures of docs/stain.md anew
	@$(BIN)/python tools/pictures.py

lock: ## Resolve the lock files anew, full first, so that base is a part of it
	@PYTHON="$(PYTHON)" sh tools/lock.sh

clean: ## Remove what builds and tests leave behind
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

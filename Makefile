# Everything a person does with a checkout. `make help` lists it.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
SLIDES ?=
WORKERS ?=
GPU ?=
QUICK ?=
LEVERS ?=
REPORT ?=

.DEFAULT_GOAL := help
.PHONY: help env base-env demo demo-flow prefect-setup test soak lint format bench bench-long peers pictures screenshots reproduce lock clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 15

env: ## Make .venv with everything installed (nothing to do when it is current)
	@PYTHON="$(PYTHON)" sh tools/environment.sh full

base-env: ## Make .venv with the base lock; a fuller .venv is left as it is
	@PYTHON="$(PYTHON)" sh tools/environment.sh base

demo: base-env ## Build a data set from generated slides, or from SLIDES="/path/*.svs"
	@$(BIN)/python tools/demo.py $(if $(SLIDES),--slides "$(SLIDES)") $(if $(WORKERS),--workers $(WORKERS))

demo-flow: env ## The same as a Prefect flow on a local Dask cluster, with a server of its own
	@$(BIN)/python tools/demo_flow.py $(if $(WORKERS),--workers $(WORKERS))

prefect-setup: env ## Make Prefect's work pools, then deployments; those for GPUs with GPU=1
	@$(BIN)/python tools/prefect_setup.py $(if $(filter 1,$(GPU)),--gpu)

test: env ## Run the tests (12 to 14 minutes on 2 cores)
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m "not soak"

soak: env ## Run the long proofs: many random kills, mixing over many shards
	@$(BIN)/python -m pytest -m soak

lint: env ## ruff, mypy --strict
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: env ## Let ruff mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: env ## Measure the chain beside its floor and other tools, normalisation and reading (15 minutes)
	@$(BIN)/python benchmarks/chain.py --output build/benchmarks/chain.json
	@$(BIN)/python benchmarks/stain.py
	@$(BIN)/python benchmarks/reading.py

bench-long: env ## Measure workers, flows and clusters, and how true the stain is (an hour and more)
	@for name in workers colour stain_error flow_overhead; do $(BIN)/python benchmarks/$$name.py --json || exit 1; done

# The checksum of the lock tells whether the environment is current.
peers: env ## Make build/peers: the other tools that benchmarks are held against (4 GB)
	@stamp="$$(cksum <benchmarks/peers/peers.txt)"; [ "$$(cat build/peers/.made-from 2>/dev/null)" = "$$stamp" ] || { \
	$(PYTHON) -m venv --clear build/peers && \
	$(BIN)/uv pip sync --quiet --python build/peers/bin/python --require-hashes benchmarks/peers/peers.txt && \
	echo "$$stamp" >build/peers/.made-from; }

pictures: env ## Draw the pictures of docs that show tissue anew
	@$(BIN)/python tools/pictures.py

screenshots: env ## Take the pictures of docs/dashboard.md anew; needs Chromium
	@$(BIN)/python tools/screenshots.py

reproduce: env ## Test the paper's claim in miniature (40 minutes on 2 cores); QUICK=1: 3 minutes; LEVERS=1: what else helps
	@$(BIN)/python -m reproduction $(if $(filter 1,$(QUICK)),--quick) $(if $(filter 1,$(LEVERS)),--levers) $(if $(REPORT),--report "$(REPORT)") $(if $(WORKERS),--workers $(WORKERS))

lock: ## Resolve the lock files anew, full first, so that base is a part of it
	@PYTHON="$(PYTHON)" sh tools/lock.sh

clean: ## Remove what builds and tests leave behind
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

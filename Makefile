# `make help` lists the targets from the ## comments.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo up down status logs test check lint format bench soak image image-test compose-test chart-test lock clean

PYTHON ?= python3
BIN := .venv/bin
CODE := pipelines jobs expectations features dags plugins nightshift
ARGS ?=
ONLY ?=
# 1: set up, or build the image, for GPUs. Every target sets up first: `export GPU=1` says it once.
GPU ?=
export GPU
# 1: an image whose Airflow has the KubernetesExecutor. A set-up of this checkout has it anyway.
KUBERNETES ?=
export KUBERNETES
SET_UP_FOR := $(if $(GPU),--gpu)
# Two, for a machine of two cores: each may have a Spark server, an Airflow and a training of its own.
WORKERS ?= 2
NOT_SET_UP := Nothing is set up here ($(BIN)/nightshift is missing), so no service runs. Set up and start: make up

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-12s %s\n", $$1, $$2 }'

setup: ## Install what is missing: .venv with Horovod, Delta's JARs, Java, a compiler; quick when nothing is; for GPUs GPU=1
	@command -v $(PYTHON) > /dev/null || { echo "setup: no '$(PYTHON)' on PATH. Install Python 3.11, 3.12 or 3.13 (Debian: python3 python3-dev), or say PYTHON=/path/to/python."; exit 1; }
	@$(PYTHON) -m tools.setup $(SET_UP_FOR)

demo: setup ## Start the platform, load a quarter of flights, run two nights through Airflow, show the predictions
	@$(BIN)/nightshift demo $(ARGS)

up: setup ## Start the platform: Spark, Airflow and the stage server
	@$(BIN)/nightshift up $(ARGS)

# What is not set up runs nothing: these three say so instead of setting up first.
down: ## Stop the platform
	@if [ -x $(BIN)/nightshift ]; then $(BIN)/nightshift down $(ARGS); else echo "$(NOT_SET_UP)"; fi

status: ## Tell which services run
	@if [ -x $(BIN)/nightshift ]; then $(BIN)/nightshift status $(ARGS); else echo "$(NOT_SET_UP)"; exit 3; fi

logs: ## List the services' logs; print the end of one with ARGS="spark --lines 20"
	@if [ -x $(BIN)/nightshift ]; then $(BIN)/nightshift logs $(ARGS); else echo "$(NOT_SET_UP)"; exit 3; fi

test: setup ## Run all tests, of each long sweep a short sample; narrow them with ARGS="tests/jobs -k sql"
	@$(PYTHON) -m tools.setup --services $(SET_UP_FOR)
	@$(BIN)/python -m pytest -n $(WORKERS) --no-loadscope-reorder --durations=15 $(ARGS)

check: lint ## Lint, types, import contracts, and the fast rules about the code
	$(BIN)/python -m pytest -q -m policy

lint: setup ## Lint, types and import contracts alone
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy $(foreach package,$(CODE),-p $(package)) -p tools -p bench
	$(BIN)/lint-imports

format: setup ## Format the code, and fix what the linter can fix
	@$(BIN)/ruff check --fix --exit-zero
	@$(BIN)/ruff format

bench: setup ## Measure ours beside its peers; one case with ONLY=scoring, small inputs with ARGS=--quick
	@$(BIN)/python -m bench $(ONLY) $(ARGS)

soak: setup ## Run the long sweeps in full
	@SOAK=1 $(BIN)/python -m pytest --timeout 7200 -m soak --durations=15 $(ARGS)

image: ## Build the image of the platform by Docker, Buildah or Podman; for GPUs with GPU=1, for tasks in Pods with KUBERNETES=1
	@docker/build $(ARGS)

image-test: setup ## Judge what lies in the image: its size, secrets, caches, rights; of the one for tasks in Pods with KUBERNETES=1
	@$(BIN)/python -m tools.image_test

compose-test: setup ## Run nights in containers (docker/compose.yaml) and compare them with the same on this machine
	@$(BIN)/python -m tools.compose_test

chart-test: setup ## Render the Helm chart in several ways and judge what it says; KUBECONFIG: install it, and train in Pods
	@$(BIN)/python -m tools.chart_test
	@if [ -n "$$KUBECONFIG" ]; then CHART_TEST=1 $(BIN)/python -m pytest -q tests/kubernetes; fi

lock: ## Resolve requirements.in and runtime.in anew into their locks
	@$(PYTHON) -m tools.setup --lock

clean: ## Stop the platform and remove everything generated, .venv too, but not its state (that is: rm -rf var)
	@if [ -x $(BIN)/nightshift ]; then $(BIN)/nightshift down; fi
	rm -rf .venv .tools build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf metastore_db derby.log spark-warehouse artifacts
	find . -name __pycache__ -not -path './var/*' -prune -exec rm -rf {} +

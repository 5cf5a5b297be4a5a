# Every verb sets up what it needs, from Python 3.11 to 3.13, make and the package registry alone.

# A question is data: it is taken as it was given, and reaches the program by the environment, so that neither make nor
# the shell reads quotes, dollars or line ends in it.
override QUESTION := $(value QUESTION)
export QUESTION

MINUTES ?= 60
# Files of tests that are run side by side, each by a process with servers of its own: half as many again as processors, because a
# test waits now and then, and at least three.
WORKERS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN); n=$$((n + n / 2)); [ "$$n" -gt 2 ] || n=3; [ "$$n" -lt 8 ] || n=8; echo $$n)
# Byte code is kept, whatever the machine says: thousands of tests start processes that would each compile all that they import.
PYTEST := env -u PYTHONDONTWRITEBYTECODE .venv/bin/pytest
TORCH ?= torch
ENVIRONMENT := scripts/environment.sh
SOURCES := src tests benchmarks migrations docs hatch_build.py

# The model file is installed only where a deliberation would ask it.
LLM_SETTINGS := CONCLAVE_LLM_BASE_URL CONCLAVE_LLM_API_KEY CONCLAVE_LOCAL_MODEL CONCLAVE_PROVIDERS_FILE OPENAI_API_KEY \
                OPENAI_BASE_URL
DELIBERATES_WITH := model
ifneq ($(strip $(foreach name,$(LLM_SETTINGS),$(value $(name)))),)
DELIBERATES_WITH := project
endif
ifneq ($(filter-out local,$(value CONCLAVE_ORCHESTRATOR)),)
DELIBERATES_WITH := project
endif
ifneq ($(filter-out 0,$(SIMULATED)),)
DELIBERATES_WITH := project
deliberate serve: export CONCLAVE_ORCHESTRATOR := simulated
endif

.DEFAULT_GOAL := help
.PHONY: deliberate demo test test-torch check serve bench campaign docs package lock format help clean

deliberate: ## Ask: make deliberate QUESTION="..." [SIMULATED=1] [ARGS="--agents 9 --json"]
	@test -n "$$QUESTION" || { echo 'What is the question? make deliberate QUESTION="..."' >&2; exit 2; }
	@$(ENVIRONMENT) $(DELIBERATES_WITH)
	@.venv/bin/conclave deliberate $(ARGS) -- "$$QUESTION"

serve: ## Run the server [SIMULATED=1] [ARGS="--port 8072"]
	@$(ENVIRONMENT) $(DELIBERATES_WITH)
	@.venv/bin/conclave serve $(ARGS)

test: ## Run all tests, those with CrewAI first in an environment of their own [WORKERS=3]; ARGS="tests/unit -k pool" picks some of the rest
	@$(ENVIRONMENT) model
	@$(ENVIRONMENT) openapi
	@$(ENVIRONMENT) build
	@$(ENVIRONMENT) browser
ifeq ($(strip $(ARGS)),)
	@$(ENVIRONMENT) crewai
	@status=0; .crewai-venv/bin/pytest tests/crewai || status=$$?; $(PYTEST) --numprocesses $(WORKERS) --dist loadfile && exit $$status
else
	@$(PYTEST) $(ARGS)
endif

test-torch: ## Run the tests with torch in an environment of their own [TORCH="torch==2.13.0"]
	@TORCH="$(TORCH)" $(ENVIRONMENT) torch
	@.torch-venv/bin/python -m pytest tests/torch $(ARGS)

check: ## Lint, formatting, types, layers and the locks
	@$(ENVIRONMENT) project
	@$(ENVIRONMENT) addresses
	.venv/bin/ruff check $(SOURCES)
	.venv/bin/ruff format --check $(SOURCES)
	.venv/bin/mypy
	.venv/bin/lint-imports

format: ## Format the sources and mend what the linter can
	@$(ENVIRONMENT) project
	.venv/bin/ruff check --fix-only $(SOURCES)
	.venv/bin/ruff format $(SOURCES)

bench: ## Measure ours beside its peers [ARGS="..."]
	@$(ENVIRONMENT) bench
	.bench-venv/bin/python -m benchmarks.fan_out $(ARGS)
	.bench-venv/bin/python -m benchmarks.http_fan_out $(ARGS)
	.bench-venv/bin/python -m benchmarks.limiter
	.bench-venv/bin/python -m benchmarks.bus
	.bench-venv/bin/python -m benchmarks.pantheon --uvloop
	.bench-venv/bin/python -m benchmarks.rules
	.bench-venv/bin/python -m benchmarks.analysis
	.bench-venv/bin/python -m benchmarks.population

campaign: ## Run all tests at the size of a release [MINUTES=60] [ARGS="..."]
	@$(ENVIRONMENT) model
	@$(ENVIRONMENT) openapi
	@$(ENVIRONMENT) build
	@$(ENVIRONMENT) browser
	@CONCLAVE_CAMPAIGN=1 CONCLAVE_CAMPAIGN_MINUTES=$(MINUTES) $(PYTEST) $(ARGS)

package: ## Build the wheel, the source distribution and the bill of materials into dist/
	@scripts/package.sh

docs: ## Build the documentation site into build/docs
	@$(ENVIRONMENT) project
	@.venv/bin/python docs/reference_pages.py
	@.venv/bin/sphinx-build -q -W --keep-going -b html docs build/docs
	@echo "build/docs/index.html"

demo: ## Open a room in the browser with recorded agents, no key and no model needed [ARGS="--port 8072 --once"]
	@$(ENVIRONMENT) project
	@.venv/bin/conclave demo $(ARGS)

lock: ## Write the locks anew, with the newest packages before the date in pyproject.toml
	@$(ENVIRONMENT) lock

clean: ## Remove environments, caches and builds, but no data
	rm -rf .venv .bench-venv .crewai-venv .build-venv .openapi-venv .torch-venv .tools .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

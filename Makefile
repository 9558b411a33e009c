# Everything a developer does. `make help` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
# uv from the PATH if there is one, else our own copy under .tools/.
UV := $(shell command -v uv 2>/dev/null || echo .tools/uv/bin/uv)
RUN := $(UV) run --frozen --no-sync
PYTHON := $(RUN) python
# Quick tiers first, so that a mistake shows early. Folders that are not named here come last.
TIERS := unit property golden package policy cluster_harness apiserver gateway local_nodes chart gitops fuzz \
  observability e2e_node browser cluster e2e
FOUND := $(filter-out fixtures __pycache__,$(notdir $(patsubst %/,%,$(wildcard tests/*/))))
TESTS := $(addprefix tests/,$(filter $(FOUND),$(TIERS)) $(filter-out $(TIERS),$(FOUND)))

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-17s %s\n", $$1, $$2}'

.tools/uv/bin/uv:
	@echo "Installing uv into .tools/ ..."
	@python3 -m venv .tools/uv
	@.tools/uv/bin/pip install --quiet --disable-pip-version-check --only-binary=:all: --require-hashes \
	  --requirement dev/image/uv.txt

.PHONY: install
install: $(if $(findstring .tools,$(UV)),$(UV)) ## Install the Python environment (and uv, if missing)
	@echo "Installing the Python environment ..."
	@$(UV) sync --frozen

# Asked before anything is installed: the remedy is the user's, so the answer must not come after minutes of work.
.PHONY: go
go:
	@command -v go >/dev/null || { echo "The local cluster is built from source with Go 1.26 or later, and there is no" \
	  "'go' on PATH: install it from https://go.dev/dl/ or your package manager."; exit 1; }

.PHONY: binaries
binaries: go install ## Build the Kubernetes programs of the local cluster (about 10 minutes the first time; cached)
	@$(PYTHON) -m dev.cluster build

.PHONY: demo
demo: binaries ## Watch real requests reach real models: local cluster, operator, Envoy, traffic, report (ARGS="--keep")
	@$(PYTHON) -m dev.demo $(ARGS)

.PHONY: check
check: install ## Lint, types, import contracts, generated files
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	$(RUN) lint-imports
	$(PYTHON) -m modelyard.api.crd --output crds --check
	$(PYTHON) -m dev.dashboards --check
	@test ! -e operator/__init__.py || { echo "operator/__init__.py would shadow the standard library"; exit 1; }

.PHONY: test
test: go check binaries ## All checks and all tests
	$(RUN) pytest $(TESTS) $(ARGS)

.PHONY: node-programs
node-programs: install
	@$(PYTHON) -m dev.realnode install

.PHONY: e2e
e2e: go install ## Test on real nodes: containerd, kubelet, Helm, a real model (as root; ARGS="-k drain")
	@$(PYTHON) -m dev.realnode install
	$(RUN) pytest tests/e2e_node $(ARGS)

# Not in `make test`: it installs 6 GB. Run it when the adapter of vLLM or the version of vLLM changes.
.PHONY: contract-vllm
contract-vllm: install ## Test against the real vLLM on this machine's CPU; UPDATE=1 writes its captures anew
	@UV="$(UV)" MODELYARD_UPDATE_CONTRACT=$(or $(UPDATE),0) $(RUN) pytest contracts/vllm $(ARGS)

.PHONY: fuzz
fuzz: binaries ## Try hostile objects and requests, ten times as many as the tests do (EFFORT=10)
	@MODELYARD_FUZZ=$(or $(EFFORT),10) $(RUN) pytest tests/fuzz tests/property $(ARGS)

.PHONY: sbom
sbom: install ## Write sbom.cdx.json: what the operator runs with, from the lock file
	@UV="$(UV)" $(PYTHON) -m dev.sbom sbom.cdx.json

.PHONY: cluster
cluster: binaries ## Start a local control plane in the foreground (ARGS="--nodes h100=2,l4=4 --kwok")
	@$(PYTHON) -m dev.cluster up $(ARGS)

.PHONY: crds
crds: install ## Write crds/ from the models in operator/modelyard/api
	@$(PYTHON) -m modelyard.api.crd --output crds

.PHONY: charts
charts: go crds ## Write what follows from crds/ and the chart: charts/modelyard-crds, deploy/, docs/permissions.md
	@$(PYTHON) -m dev.charts

.PHONY: dashboards
dashboards: install ## Write charts/modelyard/dashboards from dev/dashboards
	@$(PYTHON) -m dev.dashboards

.PHONY: screenshots
screenshots: install ## Write the pictures of docs/web.md again
	@MODELYARD_UPDATE_SCREENSHOTS=1 $(RUN) pytest tests/browser -k screenshots -q

.PHONY: dashboard-screenshots
dashboard-screenshots: binaries ## Write the pictures of docs/observability.md again, from a run of ten minutes (ARGS="--again")
	@$(PYTHON) -m dev.dashboards.screenshots $(ARGS)

.PHONY: golden
golden: install ## Write the expected manifests, the rendered charts and the table of metrics again
	@MODELYARD_UPDATE_GOLDEN=1 $(RUN) pytest tests/golden tests/chart/test_rendering.py \
	  tests/unit/runtime/test_observability_page.py -q

.PHONY: bench
bench: binaries ## Measure: time from Ready to the first byte of a held request
	@$(PYTHON) -m benchmarks.first_byte $(ARGS)

.PHONY: bench-gateway
bench-gateway: binaries ## Measure: what the gateway adds to a plain Envoy and an asyncio proxy, holds, large tables
	@$(PYTHON) -m benchmarks.gateway $(ARGS)

.PHONY: bench-gateway-filters
bench-gateway-filters: binaries ## Measure: what each filter of the gateway costs
	@$(PYTHON) -m benchmarks.gateway.filters $(ARGS)

.PHONY: bench-placement
bench-placement: install ## Measure: 50 models x 12 variants over 400 nodes, against the exact optimum
	@$(PYTHON) -m benchmarks.placement $(ARGS)

.PHONY: bench-speed
bench-speed: install ## Measure: the speed model against held-out measurements, by GPU and model
	@$(PYTHON) -m benchmarks.step_time $(ARGS)

.PHONY: bench-autoscaling
bench-autoscaling: install ## Measure: our decisions, every rival and the clairvoyant on real traffic (ARGS="--help")
	@$(PYTHON) -m benchmarks.autoscaling $(ARGS)

.PHONY: bench-breakeven
bench-breakeven: install ## Measure: days that cross the break-even twice, against the best of hindsight
	@$(PYTHON) -m benchmarks.breakeven $(ARGS)

.PHONY: bench-breakeven-changes
bench-breakeven-changes: install ## Measure: when a route changes its target, on many kinds of days
	@$(PYTHON) -m benchmarks.breakeven_changes $(ARGS)

.PHONY: bench-handover
bench-handover: binaries ## Measure: how long Envoy has no operator when one is replaced or dies
	@$(PYTHON) -m benchmarks.handover $(ARGS)

.PHONY: bench-loop
bench-loop: install ## Measure: how long a large fleet holds the event loop, before and beside it
	@$(PYTHON) -m benchmarks.event_loop $(ARGS)

.PHONY: models
models: install ## Write docs/models-and-gpus.md anew
	@$(PYTHON) -m benchmarks.models_and_gpus --write

.PHONY: clean
clean: ## Remove what was generated here (the cache of built programs stays)
	@rm -rf .venv .tools run report .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

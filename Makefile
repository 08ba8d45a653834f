# The only entry: `make` lists what there is. CI calls the same targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
E2E := cargo run --quiet --package matriarch-e2e --
NAME ?= dev
NODES ?= 1
SEEDS ?= 20000
CLUSTERS ?= 300
SIM := $(or $(CARGO_TARGET_DIR),target)/sim/matriarch-sim
# The majors take turns by commit; MAJOR=15 chooses one.
MAJORS := 15 16 18
MAJOR ?= $(word $(shell echo $$(( $$(git rev-list --count HEAD 2>/dev/null || echo 0) % 3 + 1 ))),$(MAJORS))

.PHONY: help
help: ## This list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: deps ## A real Kubernetes here, three PostgreSQL, the primary killed, a new one: with words (about 3 minutes, 15 the first time)
	$(E2E) demo

.PHONY: test
test: deps fmt-check lint unit wrong-specs simulate-quick bare-quick scenarios packaging scale ## Everything that CI runs: format, lints, unit tests, generated files, simulated clusters, scenarios outside of pods and on a real cluster, packages there, 300 clusters (50 minutes)

.PHONY: test-full
test-full: deps fmt-check lint unit simulate mutants ## Everything, on every PostgreSQL major, 20,000 simulated clusters; writes docs/mutants.md and docs/measured-MAJOR.md
	for major in 15 18; do $(E2E) bare --postgres $$major --report docs/measured-bare-$$major.md; done
	for major in 16 18; do bin=$$($(E2E) programs --postgres $$major); MATRIARCH_REQUIRE_POSTGRES=1 MATRIARCH_POSTGRES_BIN=$$bin cargo test --package matriarch-sidecar --test conformance; done
	MATRIARCH_FULL=1 cargo test --package matriarch-ha --test exhaustive -- --nocapture --test-threads 1
	for major in $(MAJORS); do $(E2E) test --postgres $$major --report docs/measured-$$major.md; done
	$(E2E) scale --clusters $(CLUSTERS) --report docs/measured-scale.md

.PHONY: deps
deps: ## Install what is needed: packages, Kubernetes from Go modules, images (nothing to do the second time)
	@./hack/packages.sh
	@$(E2E) deps

.PHONY: scenarios
scenarios: ## Only the scenarios on a real cluster (FILTER=name for some)
	$(E2E) test --postgres $(MAJOR) $(if $(FILTER),--filter $(FILTER)) $(ARGS)

.PHONY: packaging
packaging: deps ## Helm install, upgrade and uninstall, the quick start word by word, two operators side by side, on a real cluster
	$(E2E) packaging --postgres $(MAJOR) $(ARGS)

.PHONY: wrong-specs
wrong-specs: deps ## Specs that cannot work, against a real API server: each is refused with what to write instead
	$(E2E) with-api -- cargo test --quiet --package matriarch-operator --test apiserver -- --nocapture

.PHONY: scale
scale: deps ## What the operator costs with many clusters, whose pods are objects only (CLUSTERS=300)
	$(E2E) scale --clusters $(CLUSTERS) $(ARGS)

.PHONY: bare
bare: deps ## Only the scenarios outside of pods: three agents and PostgreSQL here, a real API server (FILTER=name for some)
	$(E2E) bare --postgres $(MAJOR) $(if $(FILTER),--filter $(FILTER)) $(ARGS)

.PHONY: bare-quick
bare-quick: deps
	$(E2E) bare --quick --postgres $(MAJOR)

.PHONY: unit
unit: ## Unit tests, with real PostgreSQL where a test needs one; stale generated files fail here
	MATRIARCH_REQUIRE_POSTGRES=1 cargo test --workspace --quiet

# One build, with the mistakes that can be made on purpose in it.
.PHONY: simulator
simulator:
	cargo build --quiet --profile sim --package matriarch-sim --features mutants

.PHONY: simulate
simulate: simulator ## Simulated clusters under faults, on all cores (SEEDS=20000)
	$(SIM) run --seeds $(SEEDS)

.PHONY: simulate-quick
simulate-quick: simulator
	$(SIM) run --seeds 5000 --twice
	$(SIM) mutants --replay

.PHONY: mutants
mutants: simulator ## Breaks every rule on purpose: does a promise notice? Writes docs/mutants.md and the kept plans
	$(SIM) mutants

.PHONY: fmt
fmt: ## Format the code
	cargo fmt --all

.PHONY: fmt-check
fmt-check: ## Is the code formatted?
	cargo fmt --all -- --check

.PHONY: lint
lint: ## clippy, warnings are errors
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	cargo clippy --package matriarch-sim --features mutants --all-targets --quiet -- -D warnings

.PHONY: generate
generate: ## Make the generated files anew: CRD, RBAC, chart, list of metrics, rules, the plugin's screens
	cargo run --quiet --package matriarch-crds --example generate
	MATRIARCH_GENERATE=1 cargo test --quiet --package matriarch-ha rules::
	MATRIARCH_GENERATE=1 cargo test --quiet --package matriarch-operator
	MATRIARCH_GENERATE=1 cargo test --quiet --package kubectl-matriarch

.PHONY: images
images: deps ## Build our images (static binaries, FROM scratch)
	$(E2E) cluster load-images --name $(NAME)

.PHONY: cluster-up
cluster-up: deps ## A Kubernetes on this machine (NAME=dev NODES=1); prints the KUBECONFIG line
	$(E2E) cluster up --name $(NAME) --nodes $(NODES)

.PHONY: cluster-down
cluster-down: ## Remove it: every process, mount, cgroup and namespace, also after a crash
	$(E2E) cluster down --name $(NAME)

.PHONY: clean
clean: ## Remove build output (the caches outside the work tree stay)
	cargo clean

# Commands of the project. `make` alone lists them.

BIN := .venv/bin
WORKERS ?= 2
SEED := $(or $(SEED),$(shell date +%s))
ROUNDS ?= 8
PROFILE ?= core
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
IMAGE_TAG ?= $(VERSION)
# The time in the image's labels, in seconds since 1970: that of the commit, so that a repeated build has the same labels
# (https://reproducible-builds.org/docs/source-date-epoch/).
SOURCE_DATE_EPOCH ?= $(or $(shell git log -1 --format=%ct 2>/dev/null),0)
OCI := org.opencontainers.image
COMPILE := $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header --no-annotate --quiet $(UPGRADE)

MANIFEST_TESTS := $(addprefix tests/deploy/test_,kubernetes.py network_policies.py generated_manifests.py \
	manifest_schemas.py)
DOCUMENT_TESTS := $(addsuffix ::test_served_document_is_up_to_date,tests/reference/test_document.py tests/reference/test_events.py)

.PHONY: help run run-services backing test test-slow faults stripe-contract check manifests format bench bench-quick bench-recovery profile performance \
	bench-overload bench-status bench-sizes bench-growth bench-scale-out bench-rolls reference sbom image image-local test-image lock clean install-run install-dev install-clients \
	install-typescript \
	install-kustomize try-apiserver
.PHONY: up down logs dashboards docs docs-serve test-docs install-docs

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

run: install-run ## run all of Nest on this machine, at 127.0.0.1:8080 (NEST_PORT=8081 for another port)
	@exec $(BIN)/nest up

run-services: install-run ## run the five services as separate processes, with interleaved logs
	@exec $(BIN)/nest services

backing: install-dev ## run a Kafka and a MongoDB for test runs; prints the two variables to set
	@exec $(BIN)/python -m tests.backing --folder .nest/backing

test: install-dev install-clients install-kustomize ## run all tests except the slow ones, on real Kafka and MongoDB (WORKERS=4 for more workers)
	$(BIN)/pytest -n $(WORKERS) -m "not slow"

test-slow: install-dev ## run the statistical, soak and load tests
	$(BIN)/pytest -m slow

faults: install-dev ## inject faults at random times; SEED=… repeats a run, ROUNDS=40 runs longer
	@echo "SEED=$(SEED) ROUNDS=$(ROUNDS)"
	NEST_FAULTS_SEED=$(SEED) NEST_FAULTS_ROUNDS=$(ROUNDS) $(BIN)/pytest tests/faults

stripe-contract: install-dev ## compare the Stripe double and Nest's requests with Stripe's OpenAPI specification and stripe-mock
	@tests/stripe_contract/install
	$(BIN)/pytest -p tests.stripe_contract.recorder -m "not slow" tests/stripe_double tests/billing \
		tests/stripe_contract/contract.py

check: install-dev install-kustomize install-typescript ## check formatting, lint, types, import rules, generated documents, manifests and known vulnerabilities; about a minute
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	clients/typescript/node_modules/.bin/tsc --noEmit --project clients/typescript
	$(BIN)/pytest -q tests/test_architecture.py tests/reference/test_settings_page.py $(DOCUMENT_TESTS) $(MANIFEST_TESTS)
	$(BIN)/python requirements/audit.py

manifests: install-dev install-kustomize ## render and validate the Kubernetes manifests; a part of make check
	$(BIN)/pytest -q $(MANIFEST_TESTS)

format: install-dev ## format the code and auto-fix lint errors
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

try-apiserver: ## apply the Kubernetes manifests to a kube-apiserver built from Go modules; the first build takes 8 minutes
	@exec python3 deploy/kubernetes/try_apiserver

bench: install-dev ## measure rates, latencies and CPU time beside the floors of this machine and the goals; below 20 minutes
	$(BIN)/python -m tests.bench --json build/bench.json --plot build/bench.svg

bench-quick: install-dev ## measure one short round of most rows; below 2 minutes
	$(BIN)/python -m tests.bench --quick

profile: install-dev ## show where the time of an operation goes (JOB=refresh; without JOB it lists them)
	$(BIN)/python -m tests.bench.profile $(JOB)

performance: install-dev ## measure everything that docs/performance.md shows, and write its tables and its plot; 25 minutes
	$(BIN)/python -m tests.bench --json docs/performance.json --plot docs/pictures/performance.svg
	$(BIN)/python -m tests.bench.profile link_known code refresh get_user applied --json docs/profile.json
	$(BIN)/python -m tests.bench.performance

bench-recovery: install-dev ## measure how long callers wait for a killed, restarted or replaced process
	$(BIN)/python -m tests.bench.recovery

bench-overload: install-dev ## measure goodput and latencies at three times the capacity
	$(BIN)/python -m tests.bench.overload

bench-telemetry: install-dev ## measure the CPU time that logs and traces cost
	$(BIN)/python -m tests.bench.telemetry

bench-status: install-dev ## measure the subscription status with a million records and during a storm of renewals
	$(BIN)/python -m tests.bench.subscription_status

bench-sizes: install-dev ## measure the bytes and the CPU time of each operation, and compute the tables of docs/scale.md
	$(BIN)/python -m tests.bench.sizes --json docs/scale.json
	$(BIN)/python -m tests.bench.scale

bench-growth: install-dev ## measure every operation with a million users, beside a small deployment; about an hour
	$(BIN)/python -m tests.bench.growth --soak 60 --document --json build/growth.json

bench-scale-out: install-dev ## measure two instances of each service beside one, and hot keys; needs root and control groups
	$(BIN)/python -m tests.bench.scale_out --document --json build/scale_out.json

bench-rolls: install-dev ## measure the pauses of a roll of 20 instances, and the connections of each process
	$(BIN)/python -m tests.bench.rebalance
	$(BIN)/python -m tests.bench.connections

reference: install-dev ## regenerate the HTTP API reference, docs/settings.md, deploy/example.env, manifests and dashboards
	$(BIN)/python -m services.reference

docs: install-docs ## build the site of the documents into dist/docs; open dist/docs/index.html
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet

docs-serve: install-docs ## serve the site of the documents at 127.0.0.1:8000, and rebuild it after each change
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs serve --strict

test-docs: install-dev install-clients docs ## run every command and sample of the documents, and check the site in a browser
	$(BIN)/pytest tests/docs

dashboards: install-dev ## run every query of the dashboards against a Nest with a little load; PICTURES=<folder> draws them
	$(BIN)/python -m tests.dashboards

sbom: install-dev ## write the software bill of materials of the image, dist/sbom.cdx.json (CycloneDX)
	@mkdir -p dist
	$(BIN)/python -m cyclonedx_py requirements requirements/run.txt --pyproject pyproject.toml --mc-type application \
		--output-reproducible --output-format JSON --output-file dist/sbom.cdx.json

image: ## build the image from a base image with a digest: make image PYTHON_IMAGE=python:3.13-slim@sha256:…
	@case "$(PYTHON_IMAGE)" in *@sha256:*) ;; *) echo "name PYTHON_IMAGE with a digest, python:3.13-slim@sha256:…" >&2; \
		exit 1;; esac
	@$(MAKE) --no-print-directory image-local

image-local: ## build the image from any base image, for tests: make image-local PYTHON_IMAGE=… (IMAGE_ARGS=… for docker)
	docker build -f deploy/Dockerfile -t "nest:$(IMAGE_TAG)" $(IMAGE_ARGS) \
		--build-arg PYTHON_IMAGE="$(PYTHON_IMAGE)" --build-arg VERSION="$(VERSION)" \
		--build-arg REVISION="$$(git describe --always --dirty --abbrev=40 --exclude='*')" \
		--build-arg CREATED="$$(date -u -d @$(SOURCE_DATE_EPOCH) +%Y-%m-%dT%H:%M:%SZ 2>/dev/null \
			|| date -u -r $(SOURCE_DATE_EPOCH) +%Y-%m-%dT%H:%M:%SZ)" \
		--label $(OCI).base.name="$(firstword $(subst @, ,$(PYTHON_IMAGE)))" \
		$(addprefix --label $(OCI).base.digest=,$(word 2,$(subst @, ,$(PYTHON_IMAGE)))) \
		$(addprefix --label $(OCI).source=,$(IMAGE_SOURCE)) .

up: ## run Nest in Docker Compose (PROFILE=observability: with Prometheus, Grafana and traces)
	@deploy/compose up $(PROFILE)

down: ## stop Nest in Docker Compose; the data stays
	@deploy/compose down $(PROFILE)

logs: ## follow the logs of Docker Compose (SERVICE=auth for one service)
	@deploy/compose logs $(PROFILE) $(SERVICE)

test-image: install-dev ## build the image, run Nest in containers and check both; needs a Docker engine; minutes
	$(BIN)/pytest -m slow tests/deploy/test_image_in_docker.py

lock: install-dev ## resolve all dependencies into lock files (UPGRADE=--upgrade for newer versions)
	$(COMPILE) pyproject.toml requirements/build.in --extra embedded --extra dev -o requirements/dev.txt
	$(COMPILE) pyproject.toml requirements/build.in --extra embedded -c requirements/dev.txt -o requirements/embedded.txt
	$(COMPILE) pyproject.toml -c requirements/dev.txt -o requirements/run.txt
	$(COMPILE) requirements/build.in -c requirements/dev.txt -o requirements/build.txt
	$(COMPILE) requirements/sbom.in -c requirements/dev.txt -o requirements/sbom.txt
	$(COMPILE) requirements/docs.in -c requirements/dev.txt -o requirements/docs.txt
	$(BIN)/python -m services.embedded.lock_jars
	tests/reference/clients/lock $(UPGRADE)

clean: ## remove caches and build output; .venv and the data in .nest stay
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find clients services shared tests -name __pycache__ -type d -prune -exec rm -rf {} +

install-run:
	@requirements/install embedded

install-dev:
	@requirements/install dev

install-docs:
	@requirements/install docs
	@docs/site/install_scripts

install-clients:
	@tests/reference/clients/install

install-typescript:
	@tests/reference/clients/install typescript-client

install-kustomize:
	@tests/deploy/kustomize/install

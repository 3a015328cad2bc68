# The two commands of the README are `demo` and `test`; everything they need, they get themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
# Of the container targets: the model that is packed; docker, podman or buildah, by default what is
# installed; another base image than the Containerfile's.
MODEL = $(DEMO)/model
CONTAINER :=
BASE :=
# Threads that wait for one another do not spin: other processes have work for the cores. Hundreds of
# processes import the same modules: what Python has compiled is kept, whatever is set around here.
PYTEST := env -u PYTHONDONTWRITEBYTECODE OMP_WAIT_POLICY=passive $(BIN)/python -m pytest
# Wheels only, each with a hash of the lock: nothing else is fetched, and nothing runs while it is installed.
# Python compiles what is imported when it first is, a third of the modules.
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check --no-compile
LOCKED := --require-hashes --only-binary :all: --requirement
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --only-binary :all: \
	--generate-hashes --no-annotate --no-emit-index-url --custom-compile-command 'make lock' $(UPGRADE)

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-durability test-load test-hostile test-fuzz test-schema check format install lock audit sbom bento chart container container-gpu container-check container-pin bench-serving bench-training bench-index bench-gallery bench-search bench-gpu bench-runtimes clean

help: ## what each target does
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 17

demo: install ## train, build a gallery and serve it, on Fashion-MNIST
	@scripts/system-packages dataset-fashion-mnist
	$(BIN)/lookalike demo --out $(DEMO)

# Three processes for two cores: many tests wait, for time-outs and for servers. One that dies ends
# the run with the name of its test; replaced, it would leave the others waiting.
test: install build/helm/helm ## the whole default test suite
	@scripts/system-packages dataset-fashion-mnist chromium nginx-light prometheus
	$(PYTEST) -n 3 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

test-slow: install ## the long forms: hundreds of steps of VGG-19
	$(PYTEST) -m slow

test-durability: install ## the long forms: hundreds of kills, power cuts (as root) and corruptions
	$(PYTEST) -m durability -rA

test-load: install ## the long forms: overload, slow clients, stops and a soak; wants a quiet machine
	$(PYTEST) -m load -rA

test-hostile: install ## the long form: hostile requests of every kind beside ordinary ones; wants a quiet machine
	$(PYTEST) -m hostile -rA

test-fuzz: install ## the long form: a hundred thousand mutated images over HTTP
	$(PYTEST) -m fuzz -rA

test-schema: install ## the long form: schemathesis, a hundred requests an operation, three times
	$(PYTEST) -m schema -rA

check: install ## formatting, lint, types, import direction
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m scripts.locks

format: install ## rewrite the code as `check` wants it
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

install: $(VENV)/installed ## the environment, in .venv

$(VENV)/installed: pyproject.toml requirements-dev.lock
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || scripts/system-packages python3-venv
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP_INSTALL) $(LOCKED) requirements-dev.lock
	$(BIN)/python $(PIP_INSTALL) --no-deps --no-build-isolation --no-index --editable .
	@touch $@

lock: install ## the lock files from pyproject.toml; UPGRADE=--upgrade takes the newest of everything
	$(LOCK) pyproject.toml --extra dev --output-file requirements-dev.lock
	$(LOCK) --group bento --constraint requirements-dev.lock --output-file requirements.lock
	$(LOCK) --group bento-cpu --constraint requirements-dev.lock --output-file requirements-cpu.lock
	$(LOCK) --group audit --output-file requirements-audit.lock
	$(BIN)/python -m scripts.locks

build/helm/helm: deploy/helm/requirements-helm.lock | install
	$(BIN)/python -m scripts.helm

chart: install build/helm/helm ## build/lookalike-VERSION.tgz: the Helm chart
	build/helm/helm lint --strict deploy/helm/lookalike
	build/helm/helm package deploy/helm/lookalike --destination build

build/audit/installed: requirements-audit.lock
	$(PYTHON) -m venv build/audit
	build/audit/bin/python $(PIP_INSTALL) $(LOCKED) requirements-audit.lock
	@touch $@

audit: install build/audit/installed ## known vulnerabilities of all that is locked; red if any was not looked up
	$(BIN)/python -m scripts.audit --pip-audit build/audit/bin/pip-audit

sbom: build/audit/installed ## build/sbom-cpu.json, build/sbom-gpu.json: all that the images hold, as CycloneDX
	build/audit/bin/python -m scripts.container.sbom --engine "$(CONTAINER)"

bento: install ## a bento of the demo's model
	$(BIN)/lookalike pack $(MODEL)
	$(BIN)/bentoml build

container: install ## the image lookalike:cpu, with the demo's model or MODEL=folder, which has an export
	$(BIN)/python -m scripts.container.build cpu --model $(MODEL) --engine "$(CONTAINER)" --base "$(BASE)"

container-gpu: install ## the image lookalike:gpu, with torch and CUDA
	$(BIN)/python -m scripts.container.build gpu --model $(MODEL) --engine "$(CONTAINER)" --base "$(BASE)"

# Where neither docker nor a registry is at hand, podman runs and debootstrap makes the base; a runtime
# that refuses two kinds of control groups side by side gets one of them, in a mount namespace of its own.
container-check: install build/audit/installed build/helm/helm ## builds lookalike:cpu, runs it and tests it
	@docker info >/dev/null 2>&1 || scripts/system-packages buildah podman crun debootstrap
	BUILDAH_ISOLATION=chroot $(MAKE) container BASE=$$($(BIN)/python -m scripts.container.debian_base $(CONTAINER))
	$(MAKE) sbom
	CONTAINER=$(CONTAINER) $(if $(wildcard /sys/fs/cgroup/unified),unshare --mount sh -c 'umount /sys/fs/cgroup/unified && exec "$$@"' sh) $(BIN)/python -m pytest -m container -rA

container-pin: ## the digest that the base image has today, into container/Containerfile
	@scripts/system-packages skopeo
	@name=$$(sed -n 's/^ARG BASE=\([^@]*\).*/\1/p' container/Containerfile) \
	&& digest=$$(skopeo inspect --format '{{.Digest}}' docker://$$name) \
	&& sed -i "s|^ARG BASE=.*|ARG BASE=$$name@$$digest|" container/Containerfile && grep '^ARG BASE' container/Containerfile

bench-serving: install ## requests per second beside other servers, which it installs; needs `make demo` once
	@scripts/system-packages wrk default-jre-headless
	$(BIN)/python -m benchmarks.serving --model $(DEMO)/model
	test -d build/models/vgg19 || $(BIN)/python -m benchmarks.vgg_model build/models/vgg19
	$(BIN)/python -m benchmarks.serving --model build/models/vgg19 --seconds 20

bench-training: install ## quality of `cnn` on Fashion-MNIST over three seeds
	$(BIN)/python -m benchmarks.training --seeds 0 1 2 -- --recipe cnn --data fashion-mnist

bench-index: install ## images per second of an index build beside the bare network
	$(BIN)/python -m benchmarks.index_build --model $(DEMO)/model

bench-runtimes: install ## the demo's model and VGG-19 on torch, OpenVINO and ONNX Runtime, on one core
	taskset -c 0 $(BIN)/python -m benchmarks.runtimes --model $(DEMO)/model --data fashion-mnist
	taskset -c 0 $(BIN)/python -m benchmarks.runtimes --vgg --data fashion-mnist --images 64

bench-gallery: install ## durable writes and restarts of galleries, and what their interface costs
	@scripts/system-packages dataset-fashion-mnist
	for what in adds restart interface; do \
		$(BIN)/python -m benchmarks.gallery --folder build/galleries $$what || exit 1; done

bench-search: install ## searches beside other libraries, which it installs
	@scripts/system-packages dataset-fashion-mnist
	$(BIN)/python -m pip install --quiet hnswlib usearch voyager scann rabitqlib qdrant-edge-py
	for what in fashion fashion-unit clustered; do \
		$(BIN)/python -m benchmarks.search --set $$what --cache build/sets || exit 1; done
	$(BIN)/python -m benchmarks.search --filtered --rows 200000 --cache build/sets

bench-gpu: install ## all that wants a GPU, in ten minutes: encoder, server, start, training
	@scripts/system-packages wrk dataset-fashion-mnist
	$(BIN)/python -m benchmarks.gpu_run --out build/gpu-run

clean: ## everything that the other targets made
	rm -rf $(VENV) $(DEMO) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

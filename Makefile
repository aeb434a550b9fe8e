# Each target works from nothing: the environment is made when it is missing and never twice.
# Another Python: make PYTHON=/path/to/python3.12 test. More test processes: make TEST_PROCESSES=8 test.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help demo test check ui bench bench-engine bench-exact bench-eval bench-verdict bench-certificate bench-gate fuzz clean

INSTALLED := .venv/.installed
BIN := $(CURDIR)/.venv/bin
TEST_PROCESSES ?= 2
PYTEST := "$(BIN)/python" -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

# Two processes of one thread each beat one process of two threads on models this small. The rest keeps other tools quiet and offline.
export PATH := $(BIN):$(PATH)
export OMP_NUM_THREADS := 1
export TOKENIZERS_PARALLELISM := false
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION := false
export MLFLOW_DISABLE_TELEMETRY := true
export DVC_NO_ANALYTICS := 1

help:
	@echo "make demo              a person is forgotten exactly, start to finish, in build/demo"
	@echo "                       STRATEGY=approximate: by a gradient method; DATA=path/to/tofu: the TOFU benchmark"
	@echo "make test              every test this machine can run"
	@echo "make check             ruff, mypy and the fast tests"
	@echo "make ui                MLflow with the gate on 127.0.0.1: the demo's models if there are any, else this repository's"
	@echo "make bench             the figures of docs/benchmarks.md, each against its baseline in the same run"
	@echo "make bench-engine      unlearning steps against plain code: speed, memory, same numbers; more where there is a CUDA device"
	@echo "make bench-exact       exact deletion against training everything again; what shards cost in accuracy"
	@echo "make bench-eval        scoring every metric in one pass against one pass a metric; what is remembered; the demo's quick audit"
	@echo "make bench-verdict     honest retrains and cheats through the real verdict (an hour or two; goes on where it stopped; TRIALS=4 for a taste)"
	@echo "make bench-certificate signing, verifying, hashing 1.6 GB of model, the gate over 20,000 versions"
	@echo "make bench-gate        the gate inside MLflow's server beside plain MLflow: aliases set and followed, a race of 16 clients, the start"
	@echo "make fuzz              a million damaged documents through every parser of what strangers hand us (COUNT=100000 for a taste)"
	@echo "make clean             removes build/ and caches; .venv, mlflow.db and .unlearn/ stay"

.venv: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@found=; for candidate in $(if $(PYTHON),"$(PYTHON)",python3.11 python3 python3.12 python3.13); do \
	    version=$$("$$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue; \
	    found="$${found:-$$candidate is Python $$version}"; \
	    "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || continue; \
	    python="$$candidate"; break; \
	done; \
	if [ -z "$$python" ]; then echo "Python 3.11 or newer is needed; found: $${found:-none}. Install one, or name it: make PYTHON=/path/to/python3.11" >&2; exit 2; fi; \
	.venv/bin/python -m pip --version >/dev/null 2>&1 || "$$python" -m venv --clear .venv  # one that was cut short has no pip
	@echo "Installing into .venv (minutes, once)"
	@.venv/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch "$@"

demo: $(INSTALLED)
	@"$(BIN)/python" pipelines/demo.py $(if $(DATA),--data "$(DATA)") $(if $(STRATEGY),--strategy "$(STRATEGY)")

test: $(INSTALLED)
	$(PYTEST)

check: $(INSTALLED)
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .
	"$(BIN)/mypy"
	$(PYTEST) -m "not e2e"

ui: $(INSTALLED)
	@cd "$(if $(wildcard build/demo/mlflow.db),build/demo,.)" && \
	test -f mlflow.db || { echo "There is no mlflow.db yet: run make demo first" >&2; exit 2; } && \
	exec env -u MLFLOW_TRACKING_URI "$(BIN)/mlflow-unlearn" ui

bench: $(INSTALLED)
	@"$(BIN)/python" benchmarks/run.py

bench-engine: $(INSTALLED)
	@"$(BIN)/python" benchmarks/engine.py

bench-exact: $(INSTALLED)
	@"$(BIN)/python" benchmarks/exact.py

bench-eval: $(INSTALLED)
	@"$(BIN)/python" benchmarks/evaluation.py

bench-verdict: $(INSTALLED)
	@"$(BIN)/python" benchmarks/verdict.py $(if $(TRIALS),--trials "$(TRIALS)")

bench-certificate: $(INSTALLED)
	@"$(BIN)/python" benchmarks/certificate.py

bench-gate: $(INSTALLED)
	@"$(BIN)/python" benchmarks/gate_server.py

fuzz: $(INSTALLED)
	@"$(BIN)/python" benchmarks/fuzz.py $(if $(COUNT),--count "$(COUNT)")

clean:
	rm -rf build .hypothesis .mypy_cache .ruff_cache .pytest_cache
	find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +

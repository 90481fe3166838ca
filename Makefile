# Thin: every line is a command that a person could type. `make lab` and `make test` do all the set-up.
# Windows without make: see README.md, "Without make".
PYTHON ?= python3
BIN := .venv/bin
MODEL ?= default
PROMPT ?=

.PHONY: lab chat test bench notebooks exercises

lab: .venv/course
	$(BIN)/python -m qwen2lite lab

chat: .venv/course
	$(BIN)/python -m qwen2lite fetch $(MODEL)
	$(BIN)/python -m qwen2lite chat $(if $(PROMPT),"$(PROMPT)")

test: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/make_exercises.py --check
	$(BIN)/python tools/run_notebooks.py --check
	$(BIN)/python -m qwen2lite fetch qwen2.5-coder-0.5b-instruct-gguf
	$(BIN)/python -m pytest tests
	$(BIN)/python -m pytest --nbval --nbval-current-env --nbval-cell-timeout=120 notebooks

bench: .venv/bench
	$(BIN)/python benchmarks/encode.py
	$(BIN)/python benchmarks/load.py
	$(BIN)/python benchmarks/generate.py

notebooks: .venv/course
	$(BIN)/python tools/run_notebooks.py

exercises: .venv/course
	$(BIN)/python tools/make_exercises.py

# One environment; each file says which extras are in it. The constraint keeps torch at the tried
# version, so that nothing pulls in a second copy.
.venv/course .venv/test .venv/bench: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[course$(if $(filter-out course,$(@F)),$(comma)$(@F))]"
	touch $@

comma := ,

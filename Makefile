# One command for each thing there is to do; `make` alone lists them.
PYTHON ?= python3
BIN := .venv/bin
KEY := $(shell cat requirements.lock pyproject.toml | cksum | tr -dc '0-9')
READY := .venv/.ready-$(KEY)
SUITABLE := import pip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
ifeq ($(origin PYTHON),file)
CANDIDATES := $(PYTHON) python3.13 python3.12 python3.11
else
CANDIDATES := $(PYTHON)
endif

.PHONY: help venv demo test slow bench format clean

help: ## list the commands
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' Makefile

venv: $(READY) ## make .venv from requirements.lock; at once when nothing has changed

$(READY): # its name holds a checksum of the lock and of pyproject.toml, so dates of files do not matter
	@if ! $(BIN)/python -c '$(SUITABLE)' 2>/dev/null; then \
		for candidate in $(CANDIDATES); do \
			if "$$candidate" -c '$(SUITABLE)' 2>/dev/null; then found=$$candidate; break; fi; \
		done; \
		if [ -z "$${found:-}" ]; then \
			echo "brinell needs Python 3.11, 3.12 or 3.13 with pip; tried $(CANDIDATES). Name one: make PYTHON=/path/to/python3.12 venv" >&2; \
			exit 1; \
		fi; \
		echo "making .venv with $$found; the first time takes some minutes"; \
		"$$found" -m venv --clear .venv; \
	fi
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-compile --requirement requirements.lock
	@$(BIN)/python -m compileall -qq -j 0 .venv/lib || true # on all cores, where pip takes one and a minute; some files are no Python
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	@rm -f .venv/.ready-*
	@touch $@

# Threads that wait let go of their core; spinning ones make training on a busy machine several times slower.
demo: export OMP_WAIT_POLICY ?= PASSIVE

demo: venv ## audit a small trained network with what is in the package; the report's path is the last line
	@$(BIN)/brinell demo --out demo

# One thread a process, and fast tests in a process for each core: two OpenMP threads on a busy machine wait for each other.
test slow: export OMP_NUM_THREADS ?= 1

test: venv ## lint, types, import directions, and every test that is not slow
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/pytest -m "not slow" --numprocesses auto --maxprocesses 8 --dist loadfile

slow: venv ## the tests marked slow
	@code=0; $(BIN)/pytest -m slow --numprocesses 2 --dist loadfile || code=$$?; \
	if [ $$code -eq 5 ] && ! grep -rqs 'mark\.slow' tests; then echo "no test is marked slow"; code=0; fi; \
	exit $$code

bench: venv ## every benchmark, one after the other; ARGS=--quick for a first look
	@failed=0; for file in $(filter-out benchmarks/peers.py benchmarks/timing.py,$(wildcard benchmarks/*.py)); do \
		echo "== $$file"; $(BIN)/python $$file $(ARGS) || failed=1; \
	done; exit $$failed

format: venv ## lay the code out and mend what the linter can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove what tools and the demo left; .venv, .peers and runs stay
	rm -rf build dist demo .hypothesis .import_linter_cache .ruff_cache src/*.egg-info
	find src tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +

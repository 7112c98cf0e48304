# make demo   a real reward model on a published benchmark, in minutes
# make test   the test suite
# make quick  the tests that are not marked slow, for the loop while developing
# make test-next   its tests of lm-eval, with lm-eval's next version
# make lint   style, types, import direction
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test quick test-next lint wheel clean

demo: $(VENV)/.installed
	$(BIN)/python scripts/demo.py out/demo

test: $(VENV)/.installed
	$(BIN)/python -m pytest

quick: $(VENV)/.installed
	$(BIN)/python -m pytest -m 'not gpu and not slow'

test-next: $(VENV)/.installed
	sh scripts/test_next.sh $(VENV)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy hooks
	$(BIN)/lint-imports

wheel: $(VENV)/.installed
	PYTHON=$(BIN)/python sh scripts/check_wheel.sh

$(VENV)/.installed: pyproject.toml constraints.txt scripts/install.sh
	PYTHON=$(PYTHON) sh scripts/install.sh $(VENV)

clean:
	rm -rf $(VENV) $(VENV)-next out build dist *.egg-info

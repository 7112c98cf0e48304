# make demo   a real reward model on a published benchmark, in minutes
# make test   the test suite
# make quick  the tests that are not marked slow, for the loop while developing
# make test-next   its tests of lm-eval, with lm-eval's next version
# make test-servers   models on servers, with real ones: vLLM and llama.cpp's (2 GB, minutes)
# make test-faults   processes killed again and again, at random moments (2 minutes)
# make test-ray   labels on a real Ray cluster of this machine (minutes)
# make test-pages   the report page in a real browser: Chromium, which is installed if need be
# make study  ten models of the demo model compared, into docs/study.md (HELPFUL=… HARMLESS=…, an hour)
# make lint   style, security, types, import direction
# make audit  whether what is installed has known vulnerabilities, says PyPI or OSV
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test quick test-next test-servers test-faults test-ray test-pages study lint audit wheel clean

demo: $(VENV)/.installed
	$(BIN)/python scripts/demo.py out/demo

test: $(VENV)/.installed
	$(BIN)/python -m pytest

quick: $(VENV)/.installed
	$(BIN)/python -m pytest -m 'not gpu and not slow and not servers and not faults and not ray and not pages'

test-next: $(VENV)/.installed
	sh scripts/test_next.sh $(VENV)

test-servers: $(VENV)/.installed
	PYTHON=$(BIN)/python sh scripts/install_servers.sh $(VENV)-servers
	$(BIN)/python scripts/demo_folder.py $(VENV)-servers/demo-model
	$(BIN)/python -m pytest -n 0 -m servers tests/models/test_real_servers.py tests/generation/test_real_vllm.py

test-faults: $(VENV)/.installed
	$(BIN)/python -m pytest -m faults --dist load

test-ray: $(VENV)/.installed
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[ray]' --group ray
	$(BIN)/python -m pytest -n 0 -m ray tests/annotate

test-pages: $(VENV)/.installed
	PYTHON=$(BIN)/python sh scripts/install_pages.sh $(VENV)-pages
	AXE=$(VENV)-pages/axe_playwright_python/axe.min.js \
	  $(BIN)/python -m pytest -n 0 -m pages tests/report

study: $(VENV)/.installed
	PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/study/run.sh $(HELPFUL) $(HARMLESS)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy hooks
	$(BIN)/lint-imports

audit: $(VENV)/.installed
	$(BIN)/python scripts/audit.py

wheel: $(VENV)/.installed
	PYTHON=$(BIN)/python sh scripts/check_wheel.sh

$(VENV)/.installed: pyproject.toml constraints.txt scripts/install.sh
	PYTHON=$(PYTHON) sh scripts/install.sh $(VENV)

clean:
	rm -rf $(VENV) $(VENV)-next $(VENV)-servers $(VENV)-pages out build dist *.egg-info

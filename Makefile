# `make` alone prints what there is.
DATASET ?= demo
PROFILE ?= quick
SEED ?= 0
JOBS ?= $(SER_JOBS)
ENGINE ?= $(or $(SER_ENGINE),local)
ROOT ?=
MODEL ?= facebook/hubert-base-ls960
FILE ?=
# the notebooks' own parameters
SPEAKERS ?=
DENOISE ?=
# how corpora are taken
STRICT ?=
LABELS ?=

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

export SER_JOBS := $(JOBS)
export SER_ENGINE := $(ENGINE)
export STRICT LABELS
export TF_CPP_MIN_LOG_LEVEL ?= 3
export PYTHONWARNINGS ?= ignore::SyntaxWarning
.DEFAULT_GOAL := help
# a variable as one word of a shell: $(call quoted,FILE)
quoted = '$(subst ','\'',$(value $(1)))'
ifneq ($(ROOT),$(firstword $(ROOT)))
$(error ROOT must have no spaces, make knows no such names. Received: ROOT=$(ROOT))
endif
BUILD := $(if $(ROOT),$(call quoted,ROOT)/)build
.DELETE_ON_ERROR:
.NOTPARALLEL:
NUMBERS := $(sort $(foreach path,$(wildcard notebooks/[0-9][0-9]_*.ipynb),$(firstword $(subst _, ,$(notdir $(path))))))
.PHONY: $(NUMBERS) help setup setup-extras lock notebooks data check-data weights reproduce verify rescore tables lab site serve test test-faults test-all test-jax lint bench search predict advisories clean

help: ## print this
	@echo "make reproduce DATASET=… PROFILE=… SEED=…    every figure, table and prototype sound of a corpus"
	@echo
	@awk -F ':.*## ' '/^[a-z0-9 -]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  $(firstword $(NUMBERS)) … $(lastword $(NUMBERS))        one notebook, and those it reads; several: make 04 05"
	@echo
	@echo "DATASET (demo)   emodb, ravdess, aesdd …, several as a+b, or path/to/table.csv"
	@echo "PROFILE (quick)  smoke: a minute or two each; quick: a laptop; paper: the published settings, ours where none are"
	@echo "SEED (0) JOBS (all cores) ENGINE (local or ray) ROOT (here) SPEAKERS (the profile's) DENOISE (0 or 1)"
	@echo "STRICT=1 refuses a partial corpus; LABELS=all keeps every emotion of several corpora, not the shared ones"
	@echo "SER_DATA_DIR (data/) is where corpora are looked for."

# --- environment ---------------------------------------------------------------------------------------

# the extras' lock holds all of the other: where they are installed, they stay
LOCK = $(if $(wildcard $(VENV)/lib/python3*/site-packages/opensmile),requirements-extras.lock,requirements.lock)

setup: $(READY) ## make .venv from the lock file, or renew it (with uv when there, else pip)

$(READY): requirements.lock $(LOCK)
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else f"Python 3.11 to 3.13 is needed, $(PYTHON) is {v[0]}.{v[1]}. Say PYTHON=/path/to/python3.12")'
	@if command -v uv >/dev/null 2>&1; then \
	  { $(BIN)/python -c '' 2>/dev/null || uv venv -q --clear --python "$$(command -v $(PYTHON))" $(VENV); } && \
	  uv pip sync -q --python $(BIN)/python --require-hashes $(LOCK); \
	else \
	  { $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV); } && \
	  $(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps -r $(LOCK); \
	fi
	@$(BIN)/python -c 'import sysconfig, pathlib; pathlib.Path(sysconfig.get_path("purelib"), "ser_companion.pth").write_text(f"{pathlib.Path.cwd()}\n")'
	@touch $@

setup-extras: setup ## add the optional packages: openSMILE, Ray, hub client
	@if command -v uv >/dev/null 2>&1; then uv pip install -q --python $(BIN)/python -r requirements-extras.lock; \
	else $(BIN)/python -m pip install -q -r requirements-extras.lock; fi

lock: ## renew requirements.lock from pyproject.toml (needs uv)
	uv pip compile pyproject.toml --extra test --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --quiet -o requirements.lock
	uv pip compile pyproject.toml --extra test --extra opensmile --extra ray --extra hub --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --quiet -c requirements.lock -o requirements-extras.lock

# --- notebooks -----------------------------------------------------------------------------------------

WHICH = --dataset $(call quoted,DATASET) --profile $(call quoted,PROFILE) --seed $(call quoted,SEED) --root $(call quoted,ROOT)
OWN = $(if $(SPEAKERS),--where-known speakers $(call quoted,SPEAKERS)) $(if $(DENOISE),--where-known denoise $(call quoted,DENOISE))
REPRODUCE = $(BIN)/python -m tools.reproduce $(WHICH) $(OWN)
ASKED := $(filter $(NUMBERS),$(MAKECMDGOALS))

reproduce: setup ## every notebook, independent ones side by side; only what is not up to date
	@$(REPRODUCE)

# several at once are one run: make 04 05
$(NUMBERS): setup
	@$(if $(filter $@,$(firstword $(ASKED))),$(REPRODUCE) $(ASKED),:)

notebooks: setup ## write notebooks/*.ipynb from notebooks/scripts/*.py
	@$(BIN)/python -m tools.notebooks sync

lab: setup ## open the notebooks in JupyterLab, on this machine only, with a token
	@$(BIN)/jupyter lab --ip=127.0.0.1 --notebook-dir=notebooks

# --- data, weights, one recording ----------------------------------------------------------------------

data: setup ## get a corpus, or say whom to ask: make data DATASET=emodb
	@$(BIN)/python -m ser_utils.corpora.download $(call quoted,DATASET)

check-data: setup ## what is there of a corpus, and what is wrong with it
	@$(BIN)/python -m ser_utils.corpora.check $(call quoted,DATASET)

weights: setup ## get a published speech encoder: make weights MODEL=facebook/hubert-base-ls960
	@$(BIN)/python -m ser_utils.systems.speech_transformer.pretrained $(call quoted,MODEL)

predict: setup ## emotion probabilities of a recording: make predict FILE=my.wav
	@$(BIN)/python -m ser_utils.predict $(call quoted,FILE) $(WHICH)

search: setup ## hyperparameter search with Ray Tune and ASHA (optional packages)
	@$(BIN)/python -m ser_utils.systems.sigwavnet.search $(WHICH)

# --- results -------------------------------------------------------------------------------------------

verify: setup ## train everything again and compare the scores with results/
	@$(BIN)/python -m tools.verify verify --dataset $(call quoted,DATASET) --root $(call quoted,ROOT)

rescore: setup ## make the scores again from the decisions that ship: seconds, no corpus needed
	@$(BIN)/python -m tools.verify rescore --dataset $(call quoted,DATASET) --root $(call quoted,ROOT)

tables: setup ## write README's and results/README.md's tables from results/
	@$(BIN)/python -m tools.verify readme

site: setup ## build the static site into build/site
	@$(BIN)/python -m tools.site --root $(call quoted,ROOT)

serve: setup ## show the site at http://127.0.0.1:8000
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory $(BUILD)/site 8000

bench: setup ## measure speed and memory, side by side with the literal versions
	@$(BIN)/python -m benchmarks

# --- tests ---------------------------------------------------------------------------------------------

test: setup ## unit tests, notebooks in profile smoke, real recordings where SER_DATA_DIR has them
	@$(BIN)/python -m pytest -q -m "not slow"

test-faults: setup ## kill, interrupt and race real runs; nothing may be lost (five minutes)
	@$(BIN)/python -m pytest -q -m slow tests/tools/test_faults.py

test-all: setup test-jax ## everything, the slow tests and the JAX backend too
	@$(BIN)/python -m pytest -q

MODEL_TESTS = tests/systems tests/explanation/test_attribution.py tests/training/test_fit.py

test-jax: setup ## the tests of every model, on Keras's JAX backend
	@KERAS_BACKEND=jax $(BIN)/python -m pytest -q -m "not notebook" $(MODEL_TESTS)

lint: setup ## what ruff thinks
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

advisories: ## look up known vulnerabilities of everything in the lock file (needs uv and the network)
	@uvx --quiet pip-audit --strict --disable-pip --require-hashes --progress-spinner off -r requirements.lock

clean: ## delete build/; results, figures and prototypes stay
	rm -rf -- $(BUILD)

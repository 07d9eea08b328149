# `make` alone lists all commands.
DATASET ?= demo
PROFILE ?= quick
SEED ?= 0
JOBS ?= $(SER_JOBS)
ENGINE ?= $(or $(SER_ENGINE),local)
ROOT ?=
MODEL ?=
FILE ?=
FILES ?=
# the notebooks' own parameters
SPEAKERS ?=
DENOISE ?=
# how corpora are taken
STRICT ?=
LABELS ?=
# a folder with a speech encoder that is there already
WEIGHTS ?=

# what a reader wrote is text: make would run a "$(shell …)" in it, and hand its result on
$(foreach name,DATASET PROFILE SEED JOBS ENGINE ROOT MODEL FILE FILES SPEAKERS DENOISE STRICT LABELS WEIGHTS,\
  $(if $(filter command environment,$(firstword $(origin $(name)))),$(eval override $(name) := $$(value $(name)))))

# the first Python from 3.11 to 3.13 that is there
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11; do \
  $$name -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$name && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
READY_TO_TEST := $(VENV)/.ready-dev
READY_TO_SHOW := $(VENV)/.ready-site

export SER_JOBS := $(JOBS)
export SER_ENGINE := $(ENGINE)
export STRICT WEIGHTS
export TF_CPP_MIN_LOG_LEVEL ?= 3
export PYTHONWARNINGS ?= ignore::SyntaxWarning
# many containers set it: each process would compile anew what it imports, which takes 1 to 7 s
unexport PYTHONDONTWRITEBYTECODE
.DEFAULT_GOAL := help
# a variable as one word of a shell: $(call quoted,FILE)
quoted = '$(subst ','\'',$(value $(1)))'
ifneq ($(filter-out all shared,$(LABELS)),)
$(error LABELS must be all or shared. Received: LABELS=$(LABELS))
endif
ifneq ($(filter-out local ray,$(ENGINE)),)
$(error ENGINE must be local or ray. Received: ENGINE=$(ENGINE))
endif
DATA = $(call quoted,DATASET)$(if $(filter all,$(LABELS)),+all)
ifneq ($(ROOT),$(firstword $(ROOT)))
$(error ROOT must have no spaces, make knows no such names. Received: ROOT=$(ROOT))
endif
BUILD := $(if $(ROOT),$(call quoted,ROOT)/)build
.DELETE_ON_ERROR:
.NOTPARALLEL:
NUMBERS := $(sort $(foreach path,$(wildcard notebooks/[0-9][0-9]_*.ipynb),$(firstword $(subst _, ,$(notdir $(path))))))
.PHONY: $(NUMBERS) help setup setup-dev setup-extras lock demo reproduce notebooks data check-data weights verify rescore tables lab site executed serve archive validate test test-slow test-all test-jax lint bench search predict advisories clean

help: ## list all commands and options
	@echo "Start here:"
	@echo
	@echo "  make demo          train one system on synthetic speech: pictures and sounds in a few minutes"
	@echo "  make reproduce     make every figure, table and prototype sound of a corpus"
	@echo
	@echo "The first command also installs everything into .venv. All commands:"
	@echo
	@awk -F ':.*## ' '/^[a-z0-9 -]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo "  $(firstword $(NUMBERS)) … $(lastword $(NUMBERS))        run one notebook and those it reads; several: make 04 05"
	@echo
	@echo "Add options as NAME=value, for example: make reproduce DATASET=emodb PROFILE=smoke"
	@echo
	@echo "  DATASET   demo (synthetic speech, the default), emodb, ravdess, aesdd …, several as a+b, or path/to/table.csv"
	@echo "  PROFILE   quick (for a laptop, the default), smoke (a first try: a minute or two per notebook) or paper (the"
	@echo "            published settings, and ours where none were published)"
	@echo "  SEED      default 0; results of other seeds stay in build/ and enter the tables as repeated runs"
	@echo "  JOBS      how many processes run at once; default: one per core; the scores do not depend on it"
	@echo "  ROOT      folder to which everything is written; default: this one"
	@echo "  ENGINE    local (the default), or ray for a cluster (after make setup-extras)"
	@echo "  SPEAKERS  speakers with a model of their own (notebooks 01 and 02)"
	@echo "  MODEL     ensemble, or networks of notebook 05 (make predict); a speech encoder's name (make weights)"
	@echo "  DENOISE=1 reduces noise before features are computed (notebook 00)"
	@echo "  STRICT=1  stops if files of a corpus are missing"
	@echo "  SLOW=1    runs the slow tests, too, in the same run (make test)"
	@echo "  LABELS=all keeps every emotion of joined corpora, not only the shared ones"
	@echo "  WEIGHTS   folder with the weights of a speech encoder, for notebooks 08 to 10"
	@echo "  SER_DATA_DIR, an environment variable, names the folder of the corpora; default: data/"

# --- environment ---------------------------------------------------------------------------------------

# Each longer lock holds all of requirements.lock; what is installed stays. Without --no-compile, pip spends half a
# minute and 300 MB on modules that nobody imports.
there = $(wildcard $(VENV)/lib/python3*/site-packages/$(1))
LOCKS = requirements.lock $(if $(call there,pytest),requirements-dev.lock) $(if $(call there,opensmile),requirements-extras.lock) $(if $(call there,furo),requirements-site.lock)
install = if command -v uv >/dev/null 2>&1; then \
	    uv pip install -q --python $(BIN)/python --require-hashes -r $(1); \
	  else $(BIN)/python -m pip install -q --disable-pip-version-check --no-compile --require-hashes --no-deps -r $(1); fi

# Compiled once, here, and not by every process that starts at the same time
IMPORTED = keras, librosa.effects, librosa.feature, matplotlib.pyplot, papermill, scipy.stats, seaborn, sklearn.svm, tensorflow

setup: $(READY) ## install or update what notebooks need in .venv (with uv if it is installed, else pip)

$(READY): $(LOCKS)
	@$(or $(PYTHON),python3) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else f"You need Python 3.11 to 3.13. $(or $(PYTHON),python3) is {v[0]}.{v[1]}. Say PYTHON=/path/to/python3.12")'
	@if command -v uv >/dev/null 2>&1; then \
	  { $(BIN)/python -c '' 2>/dev/null || uv venv -q --clear --python "$$(command -v $(PYTHON))" $(VENV); } && \
	  uv pip sync -q --python $(BIN)/python --require-hashes $(LOCKS); \
	else \
	  { $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV); } && \
	  $(BIN)/python -m pip install -q --disable-pip-version-check --no-compile --require-hashes --no-deps $(LOCKS:%=-r %); \
	fi
	@$(BIN)/python -c 'import sysconfig, pathlib; pathlib.Path(sysconfig.get_path("purelib"), "ser_companion.pth").write_text(f"{pathlib.Path.cwd()}\n")'
	@said=$$($(BIN)/python -c 'import $(IMPORTED)' 2>&1) || { echo "$$said"; exit 1; }
	@touch $@

setup-dev: $(READY_TO_TEST) ## also install what only tests need: pytest, JAX, Playwright, ruff

$(READY_TO_TEST): $(READY) requirements-dev.lock
	@$(call install,requirements-dev.lock)
	@touch $@

$(READY_TO_SHOW): $(READY) requirements-site.lock
	@$(call install,requirements-site.lock)
	@touch $@

setup-extras: setup ## also install the optional packages: openSMILE, Ray, hub client
	@$(call install,requirements-extras.lock)

COMPILE = uv pip compile pyproject.toml --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
  --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --quiet

lock: ## write the four lock files again from pyproject.toml (needs uv)
	$(COMPILE) -o requirements.lock
	$(COMPILE) --extra site -c requirements.lock -o requirements-site.lock
	$(COMPILE) --extra site --extra test -c requirements.lock -o requirements-dev.lock
	$(COMPILE) --extra opensmile --extra ray --extra hub -c requirements.lock -o requirements-extras.lock

# --- notebooks -----------------------------------------------------------------------------------------

WHICH = --dataset $(DATA) --profile $(call quoted,PROFILE) --seed $(call quoted,SEED) --root $(call quoted,ROOT)
OWN = $(if $(SPEAKERS),--where-known speakers $(call quoted,SPEAKERS)) $(if $(DENOISE),--where-known denoise $(call quoted,DENOISE))
REPRODUCE = $(BIN)/python -m tools.reproduce $(WHICH) $(OWN)
ASKED := $(filter $(NUMBERS),$(MAKECMDGOALS))

reproduce: setup ## run every notebook that is not up to date, independent ones in parallel
	@$(REPRODUCE)

# several at once are one run: make 04 05
$(NUMBERS): setup
	@$(if $(filter $@,$(firstword $(ASKED))),$(REPRODUCE) $(ASKED),:)

# in a place of its own: results that ship are not replaced
FIRST := build/first
PAGE := $(FIRST)/03_prototype_analysis.html

demo: setup ## train the prototype system on one synthetic voice: pictures and sounds in a few minutes
	@$(BIN)/python -m tools.reproduce 03 --root $(FIRST) --where-known speakers 51 --where-known brief 1
	@$(BIN)/python -m nbconvert --log-level ERROR --to html --no-input --output-dir $(FIRST) $(FIRST)/build/demo/quick/seed_0/notebooks/03_prototype_analysis.ipynb
	@echo "Look and listen: $(BIN)/python -m webbrowser -t $(PAGE)"
	@echo "Each picture and sound is a file in $(FIRST)/prototypes/demo."

notebooks: setup ## write notebooks/*.ipynb from notebooks/scripts/*.py
	@$(BIN)/python -m tools.notebooks sync

lab: setup ## open the notebooks in JupyterLab, on this machine only, with a token
	@$(BIN)/jupyter lab --ip=127.0.0.1 --notebook-dir=notebooks

# --- data, weights, one recording ----------------------------------------------------------------------

data: setup ## download a corpus, or say whom to ask for it: make data DATASET=emodb
	@$(BIN)/python -m tools.download $(DATA)

check-data: setup ## list missing, altered and suspicious files of a corpus
	@$(BIN)/python -m tools.check_data $(DATA)

weights: setup ## download the speech encoders of notebook 08, or one: make weights MODEL=facebook/hubert-base-ls960
	@$(BIN)/python -m tools.weights $(if $(WEIGHTS),$(call quoted,WEIGHTS),$(if $(MODEL),$(call quoted,MODEL)))

# no DATASET asks the model that ships
predict: setup ## print emotion probabilities: make predict FILE=my.wav; FILES=folder adds recordings of the same voice
	@$(BIN)/python -m tools.answer $(call quoted,FILE) --files $(call quoted,FILES) --model $(call quoted,MODEL) $(if $(filter file,$(origin DATASET)),$(subst --dataset 'demo',,$(WHICH)),$(WHICH))

search: setup ## search hyperparameters of the waveform networks with Ray Tune and ASHA (after make setup-extras)
	@$(BIN)/python -m tools.search $(WHICH)

# --- results -------------------------------------------------------------------------------------------

verify: setup ## train everything again and compare the scores with results/
	@$(BIN)/python -m tools.verify verify --dataset $(DATA) --root $(call quoted,ROOT)

rescore: setup ## compute the scores again from the stored answers of the models and compare: no corpus, no training
	@$(BIN)/python -m tools.verify rescore --dataset $(DATA) --root $(call quoted,ROOT)

tables: setup ## write the tables of README.md and results/README.md from results/
	@$(BIN)/python -m tools.verify readme

site: $(READY_TO_SHOW) ## build the site into build/site (installs Sphinx)
	@$(BIN)/python -m tools.site --root $(call quoted,ROOT)

executed: setup ## store executed notebooks (without sounds) and the network of "Try it" for the site: make executed DATASET=emodb
	@$(BIN)/python -m tools.site.notebooks --dataset $(DATA) --root $(call quoted,ROOT)

serve: setup ## show the built site at http://127.0.0.1:8000
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory $(BUILD)/site 8000

archive: setup ## pack the repository as an RO-Crate, for an archive that gives DOIs
	@$(BIN)/python -m tools.archive

validate: setup ## check CITATION.cff, Croissant and RO-Crate with their own validators (installs these into build/validators)
	@$(BIN)/python -m tools.validate

bench: setup-dev ## measure speed and memory, also of the published loops for comparison
	@$(BIN)/python -m benchmarks

# --- tests ---------------------------------------------------------------------------------------------

# files of tests side by side; see tests/conftest.py
PYTEST = $(BIN)/python -m pytest -q -n $(or $(JOBS),logical) --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: setup-dev ## run the tests, with notebooks in profile smoke and recordings in SER_DATA_DIR if there are any
	@$(PYTEST) $(if $(filter-out 0,$(SLOW)),,-m "not slow")

test-slow: setup-dev ## run the slow tests: interrupted and competing runs, measurements, long trainings
	@$(PYTEST) -m slow

test-all: test-jax ## run all tests, also the slow ones and those on the JAX backend
	@$(MAKE) --no-print-directory test SLOW=1

MODEL_TESTS = tests/systems tests/explanation/test_attribution.py tests/training/test_fit.py tests/tools/test_side_by_side.py

test-jax: setup-dev ## run the tests of all models on Keras's JAX backend
	@KERAS_BACKEND=jax $(PYTEST) -m "not notebook" $(MODEL_TESTS)

lint: setup-dev ## check the code with ruff
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

advisories: ## look up known vulnerabilities of the locked packages (needs uv and the internet)
	@uvx --quiet pip-audit --strict --disable-pip --require-hashes --progress-spinner off -r requirements.lock

clean: ## delete build/; results, figures and prototypes stay
	rm -rf -- $(BUILD)

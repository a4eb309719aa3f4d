# Needs Python 3.11-3.14 and make. Every target is safe to repeat; `make` alone lists them.
PYTHON ?= python3
EXTRAS ?= atari,book,test,dev
CONSTRAINTS ?= constraints.txt
GAME ?= Boxing
PRESET ?= laptop
STEPS ?= 100000
PARALLEL ?= -n 2 --dist loadscope

# Where torch comes from: PyTorch's CPU index on Linux (the default index would bring 2.6 GB of CUDA).
# Empty means the index as configured; for a GPU say `make TORCH_INDEX= book`.
ifeq ($(shell uname -s),Linux)
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
else
TORCH_INDEX ?=
endif

BIN := .venv/bin
TORCH := $(or $(shell grep '^torch==' $(CONSTRAINTS)),torch)
HASH := $(shell { sed '/^\[tool/,$$d' pyproject.toml; cat $(CONSTRAINTS); echo $(EXTRAS) $(TORCH_INDEX); } | cksum | tr -dc '[:alnum:]')
ENV := .venv/stamp-$(HASH)
SITE := .venv/stamp-site-$(HASH)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
export PIP_NO_INPUT := 1

.DEFAULT_GOAL := help
.PHONY: help env book notebooks student lab test test-slow mutants test-site pdf tex train doctor lint lock clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

env: $(ENV) ## .venv with everything below (again only when a dependency or its version changed)

# The name of the stamp holds a checksum of all that is installed, so git's time stamps do not matter.
$(ENV):
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' || \
	  { echo "$(PYTHON) must be Python 3.11 to 3.14; choose one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
	  { echo "Python lacks venv; on Debian: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv --clear .venv
ifneq ($(TORCH_INDEX),)
	$(PIP) --no-deps --index-url $(TORCH_INDEX) $(TORCH)
endif
	$(PIP) --constraint $(CONSTRAINTS) --editable '.[$(EXTRAS)]'
	@touch $@

$(SITE): $(ENV)
	$(PIP) --constraint $(CONSTRAINTS) --editable '.[$(EXTRAS),site]'
	@touch $@

book: $(ENV) ## run the notebooks (quick profile) and build the website: _build/html/index.html
	$(BIN)/python tools/run_book.py --html

notebooks: $(ENV) ## authors: run the notebooks whose text, code or data changed; store the outputs in book/
	$(BIN)/python tools/run_book.py --store

student: $(ENV) ## the notebooks without solutions: _build/student
	$(BIN)/python tools/student.py

lab: $(ENV) ## open the book in JupyterLab
	$(BIN)/jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/book/00-start.ipynb

test: $(ENV) ## every test that needs only Python
	$(BIN)/python -m dreamer_lite.doctor
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) tests/test_*.py book --durations=15 \
	  --nbval --nbval-current-env --nbval-sanitize-with tools/nbval.cfg

test-slow: $(ENV) ## V1, V2 and V3 learn two toys each (hours on one core)
	$(BIN)/python -m pytest tests/test_slow.py -m learning --durations=0 -rA

mutants: $(ENV) ## plants known bugs in a copy of the package; the tests must catch every one (minutes)
	$(BIN)/python tools/mutants.py

test-site: book $(SITE) ## the built website in a real browser (needs Chromium)
	$(BIN)/python -m pytest tests/site

pdf: tex book ## the book as PDF, _build/latex/book.pdf, also on the website (needs TeX)
	rm -rf _build/latex  # latexmk remembers a failure
	$(BIN)/jupyter-book build _build/book --builder pdflatex
	$(BIN)/python tools/run_book.py --html

tex:
	@for tool in latexmk xelatex; do command -v $$tool >/dev/null || { echo "make pdf needs $$tool; on Debian: \
	apt-get install latexmk texlive-xetex texlive-latex-extra texlive-fonts-recommended tex-gyre fonts-freefont-otf"; exit 1; }; done

train: $(ENV) ## train on an Atari game, or go on: make train GAME=Boxing (also PRESET=, STEPS=)
	$(BIN)/dreamer-lite train $(PRESET) --env ALE/$(GAME)-v5 --steps $(STEPS) --logdir runs/$(GAME)

doctor: $(ENV) ## can this machine run the book? (paste the answer into bug reports)
	$(BIN)/python -m dreamer_lite.doctor

lint: $(ENV) ## format, lint and check what git tracks, as the commit hook does
	$(BIN)/pre-commit run --all-files

lock: ## authors: write constraints.txt anew with the newest versions (torch stays), Python 3.11 or 3.12
	$(PYTHON) -m venv --clear _build/lock
	_build/lock/bin/pip install --quiet $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) \
	  $(TORCH) '.[atari,dmc,book,ray,tensorboard,test,site,dev]'
	{ grep '^#' constraints.txt; _build/lock/bin/pip freeze --exclude dreamer-lite | sed 's/+cpu$$//'; } > _build/lock.txt
	mv _build/lock.txt constraints.txt

clean: ## remove the environment and everything built
	rm -rf .venv _build *.egg-info .pytest_cache .ruff_cache

# Two commands for a fresh machine: `make demo` and `make test`. Each makes its own virtual environment first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test check bench fuzz clean

demo: $(VENV)/installed
	$(BIN)/heed demo --force

test: $(VENV)/installed-dev check
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Every speed figure, against the peers in an environment of their own; about two hours, in which nothing else may run.
# DATA is a folder with Multi30k's train, val and test_2016_flickr, .en and .de.
bench: $(VENV)/installed
	test -n "$(DATA)" || { echo "say where Multi30k lies: make bench DATA=DIR"; exit 1; }
	test -d runs/marian || $(BIN)/heed train marian "data.train=$(DATA)/train.{en,de}" "data.valid=$(DATA)/val.{en,de}" --to runs/marian
	$(BIN)/heed bench training "$(DATA)/train.{en,de}"
	$(BIN)/heed bench answering runs/marian "$(DATA)/test_2016_flickr.{en,de}"
	for name in language classifier attention lengths scale; do $(BIN)/heed bench $$name || exit 1; done
	$(BIN)/heed bench memory "$(DATA)/train.{en,de}"
	$(BIN)/heed bench saving "$(DATA)/train.{en,de}"
	$(BIN)/heed bench plan "$(DATA)/train.{en,de}"
	$(BIN)/heed bench quality "$(DATA)/train.{en,de}" "$(DATA)/val.{en,de}"
	$(BIN)/heed bench start runs/marian

# Some 100,000 mutated files through every reader; a few minutes.
fuzz: $(VENV)/installed-dev
	$(BIN)/python tests/fuzz.py

check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info

# torch comes first and pinned, so that every package after it accepts the build that is there.
$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) -e ".[tensorboard]"
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) -e ".[dev]"
	touch $@

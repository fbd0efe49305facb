# make run    the environment, then the main job in a size that ends within about two minutes on two cores, and its curve
# make game   a one-agent game, solved to its optimum by five seeds in half a minute, and its curve
# make figures  the paper's figures and a report, from the shipped curves
# make docs   the documentation as a web site, in build/site
# make setup  the environment alone: .venv, from requirements.lock
# make bench  the speed of updates, environments and training on this machine, in about three minutes of a free core
# make test   every test          make check  lint, format and types          make clean  forget .venv and the caches, keep data/

PYTHON ?= python3
BIN := .venv/bin
RUN_NAME ?= quick_2x3HalfCheetah
RUN_FLAGS ?= --epochs 6 --steps_per_epoch 1000 --start_steps 1000 --update_after 1000 --num_test_episodes 2

GAME_FLAGS := --num_runs 5 --epochs 8 --steps_per_epoch 1000 --update_after 1000 --updates 25 --uniform_every 2 \
  --hid 64 --gamma 0.9 --polyak 0.98 --num_test_episodes 20 --test_ep_len 50

.PHONY: run game figures docs bench setup test check format lock clean

run: setup
	$(BIN)/mpirun -np 5 $(BIN)/python i2q_ddpg.py --env 2x3HalfCheetah --exp_name $(RUN_NAME) $(RUN_FLAGS)
	$(BIN)/python plot.py data/$(RUN_NAME) --out data/$(RUN_NAME).png
	@echo "The curve of these five seeds: $(CURDIR)/data/$(RUN_NAME).png"

game: setup
	$(BIN)/python iddpg.py --env DifferentialGame-1 --exp_name game $(GAME_FLAGS)
	$(BIN)/python plot.py data/game --out data/game.png

# From results/ alone, nothing is trained; panels whose runs are missing say so.
figures: setup
	$(BIN)/python plot.py --all-figures
	$(BIN)/python plot.py --report

# The lock as a constraint: the site's tools must not move a version that is tested.
docs: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) --constraint requirements.lock '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bench: setup
	$(BIN)/python -m bench

setup: .venv/.made-from-lock

# The stamp comes last: a set-up that was cut off starts again, and a changed lock is installed over the old one.
# torch: where pip is offered a CPU build of the pinned version (2.13.0+cpu) it takes that one; else the build is the
# CUDA one, which runs on a CPU too but is some gigabytes larger. To offer one: make setup PIP_FLAGS="--find-links DIR".
.venv/.made-from-lock: requirements.lock
	@command -v $(PYTHON) >/dev/null || { echo "make setup: no $(PYTHON) on PATH; install Python 3.10 or newer, or name one: make setup PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 10) or sys.exit(f"make setup: {sys.executable} is Python {v[0]}.{v[1]}, too old: 3.10 or newer is needed; name one: make setup PYTHON=/path/to/python3")'
	@echo "Building .venv: a minute or two, longer where torch comes as its CUDA build"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) --requirement requirements.lock
	@touch $@

test: setup
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# For maintainers, with uv on PATH: one lock for Python 3.10 to 3.13 on every system, and one with the extra "smax" for 3.11 and
# newer. A CUDA build of torch pins its own CUDA packages exactly, and the CPU build has none, so they stay out. So does the
# extra "docs": no test needs it. JAX is held at the version that made the shipped runs of smax:, whatever the Python.
UV_COMPILE := uv pip compile --universal --no-header --no-annotate --quiet --extra video --extra tensorboard --extra dev pyproject.toml
NO_CUDA := grep -Ev '^(cuda-|nvidia-|triton)'

lock:
	{ echo "# The versions that are tested; pyproject.toml has the ranges. Made by: make lock"; \
	  echo torch==2.13.0 | $(UV_COMPILE) --python-version 3.10 --constraints - | $(NO_CUDA); } > requirements.lock.new
	mv requirements.lock.new requirements.lock
	{ echo "# requirements.lock and the extra smax, for Python 3.11 and newer. Made by: make lock"; \
	  printf '%s\n' torch==2.13.0 jax==0.10.2 | cat - requirements.lock | \
	  $(UV_COMPILE) --extra smax --python-version 3.11 --constraints - | $(NO_CUDA); } > requirements-smax.lock.new
	mv requirements-smax.lock.new requirements-smax.lock

clean:
	rm -rf .venv .pytest_cache .ruff_cache build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

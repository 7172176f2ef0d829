# make repro · make test · make check · make plan · make doctor · make gate
# make schema · make lock · make extras · make peers
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: repro test lint check plan doctor gate schema lock extras peers

repro: .venv/installed
	dvc repro
	@echo "Now open reports/index.html"

# Its longest file takes a quarter of the time that all take: more than four processes gain nothing.
test: .venv/installed
	pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: .venv/installed
	ruff check .
	ruff format --check .
	mypy
	lint-imports

check: lint
	pytest -m "not slow"

# Can this be merged? Whether dvc.lock is that of this code and these params, and the remote has what it names.
gate: .venv/installed
	python -m stages.tools.gate

# What params.yaml will cost; make plan ARGS="--params recipes/sd15-full.yaml --pictures 5000", ARGS=--calibrate.
plan: .venv/installed
	@python -m stages.tools.plan $(ARGS)

# Is this machine fit for it, and if not what to do.
doctor: .venv/installed
	@python -m stages.tools.doctor

schema: .venv/installed
	python -m stages.tools.schema

# Everything that is installed, at one version each. torch is fixed: a range draws several GB of CUDA where it need not.
lock: .venv/installed
	echo "torch==2.13.0" > .venv/constraints.txt
	pip-compile --quiet --upgrade --strip-extras --extra dev --no-emit-index-url --no-emit-find-links --no-header \
		--no-annotate --constraint .venv/constraints.txt --output-file requirements.lock pyproject.toml
	sed -i 's/^\(torch==[0-9.]*\)+.*/\1/' requirements.lock
	python -m stages.tools.versions

# Ray and what else is optional, into .venv.
extras: .venv/installed
	pip install --quiet --disable-pip-version-check --constraint requirements.lock --requirement extras.lock

# The public tools that benchmarks compare with, each in an environment of its own.
peers: $(patsubst benchmarks/peers/%.txt,.peers/%/installed,$(wildcard benchmarks/peers/*.txt))

.peers/%/installed: benchmarks/peers/%.txt
	python3 -m venv .peers/$*
	.peers/$*/bin/pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

.venv/installed: requirements.lock
	python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: python3: is older than 3.11; install Python 3.11")'
	python3 -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check --requirement requirements.lock
	touch $@

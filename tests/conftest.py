"""Settings that every test shares: threads, hypothesis profiles, a matplotlib that needs no screen."""

import gc
import os
from collections import Counter
from collections.abc import Generator, Iterator
from functools import cache

import pytest

# Read when Numba, BLAS, OpenMP and torch are first imported, so they are set before that. Two Numba threads keep the
# kernels' parallel paths under test. The linear algebra of the tests is too small for a second BLAS thread, which
# beside other processes costs ten times what it could save.
os.environ.setdefault("NUMBA_NUM_THREADS", "2")
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ["MPLBACKEND"] = "Agg"

from hypothesis import HealthCheck, settings  # noqa: E402

settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--require-gpu", action="store_true", help="a missing GPU is a failure, not a reason to skip")


def pytest_configure(config: pytest.Config) -> None:
    """Let the workers of pytest-xdist take files in the order below, not by how many tests they have."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Have the garbage collector pass rarely over what collection leaves (five thousand tests, SymPy, torch).

    All that stays to the end, and passes over it again and again take a twentieth of the suite's time. (With gc.freeze,
    which takes it out of them, Hypothesis 6.100 finds examples that do not repeat.)
    """
    gc.disable()
    found = yield
    gc.enable()
    gc.set_threshold(20_000, 20, 20)
    return found


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with tests marked `slow` first, most of them first, so that no worker is left with a long last file."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@cache
def gpu_missing() -> str:
    """Why there is no GPU to test on, or nothing."""
    from badmm_kernels.gpu.device import current

    try:
        current()
    except RuntimeError as error:
        return str(error)
    return ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test marked gpu is skipped with the reason where there is no GPU; with --require-gpu it fails with it."""
    if item.get_closest_marker("gpu") and gpu_missing():
        if item.config.getoption("--require-gpu"):
            pytest.fail(f"--require-gpu: {gpu_missing()}", pytrace=False)
        pytest.skip(gpu_missing())


@pytest.fixture(params=["host", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Iterator[object]:
    """What the CUDA kernels run on: the host (the same text, compiled by g++), and a GPU where there is one."""
    if request.param == "gpu":
        from badmm_kernels.gpu.device import current

        yield current()
        return
    from tests.kernels.host_device import on_host

    with on_host() as found:
        yield found

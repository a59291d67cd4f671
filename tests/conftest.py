"""Settings that every test shares: threads, hypothesis profiles, a matplotlib that needs no screen."""

import os

# Read when Numba, BLAS, OpenMP and torch are first imported, so they are set before that. Two Numba threads keep
# the kernels' parallel paths under test; beside other pytest workers each process does its work on one.
_THREADS = "2" if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) == 1 else "1"
os.environ.setdefault("NUMBA_NUM_THREADS", "2")
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, _THREADS)
os.environ["MPLBACKEND"] = "Agg"

import numba  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

numba.set_num_threads(min(int(_THREADS), numba.config.NUMBA_NUM_THREADS))

settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

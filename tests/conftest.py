"""Settings that every test shares: threads, hypothesis profiles, a matplotlib that needs no screen."""

import os

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

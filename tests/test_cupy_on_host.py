"""The CUDA whose device is the host (cupy_on_host) is as strict as a device, or what it shows would be worth little."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from tests.test_gpu_hardware import ROOT, SMALL_CASE, keep_busy

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif("CUPY_ON_HOST" not in os.environ, reason="for CuPy on the host: make cupy-on-host"),
]
OUTSIDE = """
import cupy as cp
past = cp.RawKernel("extern \\"C\\" __global__ void past(const float *x, float *y) { *y = x[4]; }", "past")
past((1,), (1,), (cp.ones(SIZE, "float32"), cp.zeros(1, "float32")))
cp.cuda.get_current_stream().synchronize()
print("went on")
"""
FREED = """
import cupy as cp
x = cp.ones(4, "float32")
address = x.data.ptr
del x
print(int(cp.ndarray(4, "float32", cp.cuda.MemoryPointer(cp.cuda.UnownedMemory(address, 16, None, 0), 0)).sum()))
"""


def cupy() -> Any:
    return pytest.importorskip("cupy")


def guarded(code: str) -> subprocess.CompletedProcess[str]:
    """Python code on memory that ends where it ends, without CuPy's pool."""
    code = f"import cupy\ncupy.cuda.set_allocator(None)\n{code}"
    environment = os.environ | {"CUPY_ON_HOST_GUARD": "1"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment)


def test_what_nobody_waits_for_is_not_there_yet() -> None:
    cp = cupy()
    first, second = cp.cuda.Stream(non_blocking=True), cp.cuda.Stream(non_blocking=True)
    array = cp.zeros(10)
    array += 1.0  # compiled
    array -= array.copy()
    keep_busy(first)
    cp.cuda.runtime.deviceSynchronize()
    keep_busy(first)
    with first:
        array += 1.0
    with second:
        early = array.copy()
    second.wait_event(first.record())
    with second:
        late = array.copy()
    cp.cuda.runtime.deviceSynchronize()
    assert (float(early.sum()), float(late.sum())) == (0.0, 10.0)


def test_the_default_stream_waits_for_blocking_streams_alone() -> None:
    cp = cupy()
    for blocking in (True, False):
        stream, array = cp.cuda.Stream(non_blocking=not blocking), cp.zeros(10)
        cp.cuda.runtime.deviceSynchronize()
        keep_busy(stream)
        with stream:
            array += 1.0
        seen = array.copy()
        cp.cuda.runtime.deviceSynchronize()
        assert float(seen.sum()) == (10.0 if blocking else 0.0)


def test_memory_is_not_zero_and_grids_have_limits() -> None:
    cp = cupy()
    cp.get_default_memory_pool().free_all_blocks()
    assert cp.asnumpy(cp.empty(1 << 20, "uint8")).any()
    kernel = cp.RawKernel('extern "C" __global__ void nothing() { }', "nothing")
    for grid, block in (((1, 65536), (1,)), ((1,), (1025,)), ((1,), (1, 1, 65))):
        with pytest.raises(cp.cuda.driver.CUDADriverError):
            kernel(grid, block, ())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("lead", [(), (3,)])
def test_linear_algebra_agrees_with_numpys(lead: tuple[int, ...], dtype: str) -> None:
    cp = cupy()
    from cupyx.scipy.linalg import solve_triangular

    rng = np.random.default_rng(0)
    half, right = (rng.standard_normal((*lead, 5, n)).astype(dtype) for n in (5, 2))
    matrix = half @ half.swapaxes(-1, -2) + np.eye(5, dtype=dtype)
    close: Any = {"rtol": 50 * np.finfo(dtype).eps, "atol": 50 * np.finfo(dtype).eps}
    factor = cp.linalg.cholesky(cp.asarray(matrix))
    np.testing.assert_allclose(cp.asnumpy(factor), np.linalg.cholesky(matrix), **close)
    np.testing.assert_allclose(cp.asnumpy(cp.linalg.eigvalsh(cp.asarray(matrix))), np.linalg.eigvalsh(matrix), **close)
    np.testing.assert_allclose(cp.asnumpy(cp.asarray(half) @ cp.asarray(right)), half @ right, **close)
    for trans in ("N", "T"):
        solved = cp.asnumpy(solve_triangular(factor, cp.asarray(right), trans=trans, lower=True))
        system = cp.asnumpy(factor if trans == "N" else factor.swapaxes(-1, -2))
        np.testing.assert_allclose(system @ solved, right, **close)


def test_kernels_stay_inside_their_memory() -> None:
    done = guarded(SMALL_CASE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "shape: expected positive, got -1.0 at index 0" in done.stdout


@pytest.mark.parametrize("code", [OUTSIDE.replace("SIZE", "4"), FREED], ids=["outside", "freed"])
def test_a_kernel_outside_its_memory_ends_the_process(code: str) -> None:
    assert guarded(code).returncode == -signal.SIGSEGV
    assert guarded(OUTSIDE.replace("SIZE", "5")).stdout == "went on\n"

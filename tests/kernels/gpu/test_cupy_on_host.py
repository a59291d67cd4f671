"""The CUDA whose device is the host (cupy_on_host) is as strict as a device, or what it shows would be worth little."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import badmm_kernels
from tests.kernels.gpu.test_gpu_hardware import ROOT, SMALL_CASE, ByDLPack, keep_busy

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


def test_every_thread_finds_the_same_record_of_errors() -> None:
    from badmm_kernels.gpu.cupy_device import CuPyDevice

    device, found = CuPyDevice(), list[int]()
    threads = [threading.Thread(target=lambda: found.append(device.status())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len(set(found)) == 1


def test_an_old_cupy_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from badmm_kernels.gpu.cupy_device import CuPyDevice

    monkeypatch.setattr(cupy(), "__version__", "13.6.0")
    with pytest.raises(RuntimeError, match=r"got CuPy 13\.6\.0, older than 14; install the extra"):
        CuPyDevice()


PER_THREAD = """
import cupy as cp, numpy as np, badmm_kernels
from tests.kernels.gpu.test_gpu_hardware import ByInterface, arrays, keep_busy
ns = badmm_kernels.load("diagonal_gaussian", device="gpu")
mean, precision = arrays(2)
expected = cp.asnumpy(mean * precision)
other = cp.cuda.Stream(non_blocking=True)
late = cp.zeros_like(mean)
late[...] = mean * 0.0
ns.natural_from_standard(late, precision)  # compiled
cp.cuda.runtime.deviceSynchronize()
keep_busy(other)
with other:
    late[...] = mean
assert cp.cuda.get_current_stream().ptr == 2
xi, _ = ns.natural_from_standard(ByInterface(late, other.ptr), precision, stream=0)
cp.cuda.runtime.streamSynchronize(1)  # the legacy default stream, by its own name
np.testing.assert_array_equal(cp.asnumpy(xi), expected)
"""


def test_handle_0_where_every_thread_has_a_default_stream() -> None:
    environment = os.environ | {"CUPY_CUDA_PER_THREAD_DEFAULT_STREAM": "1"}
    command = [sys.executable, "-c", PER_THREAD]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr


def test_the_benchmark_runs(tmp_path: Path) -> None:
    from benchmarks import gpu

    assert gpu.main(["--coordinates", "4096", "--repeats", "2", "--out", str(tmp_path / "gpu.md")]) == 0
    text = (tmp_path / "gpu.md").read_text()
    assert text.startswith("# CUDA kernels on the host\n") and ", CUDA runtime 13.0, driver 13.0, torch " in text
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| ivon update_sample, normals stored")]
    assert len(rows) == 2 and all(float(row[-2]) > 0 for row in rows)  # CuPy's own step beside ours


@pytest.fixture
def on_torchs_stream(monkeypatch: pytest.MonkeyPatch) -> Any:
    """(torch tensors that say they are on a GPU, as a function of NumPy arrays; torch's current stream, busy)."""
    cp, torch = cupy(), pytest.importorskip("torch")
    stream = cp.cuda.Stream(non_blocking=True)
    empty, kept = torch.empty, list[Any]()

    class OnGPU(torch.Tensor):  # type: ignore[name-defined]
        is_cuda, device = True, torch.device("cuda:0")

        @property
        def __cuda_array_interface__(self) -> dict[str, Any]:
            kind = {torch.float32: "<f4", torch.float64: "<f8"}[self.dtype]
            return {"shape": tuple(self.shape), "typestr": kind, "data": (self.data_ptr(), False), "version": 2}

    def made(*args: Any, device: str, **options: Any) -> Any:
        assert device == "cuda:0"
        kept.append(empty(*args, **options).as_subclass(OnGPU))
        return kept[-1]

    monkeypatch.setattr(torch, "empty", made)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=stream.ptr))

    @contextmanager
    def current(handle: int) -> Iterator[None]:
        with monkeypatch.context() as patch:
            patch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=handle))
            yield

    allocated: list[int] = []

    def external(handle: int, device: str) -> int:
        allocated.append(handle)
        return handle

    monkeypatch.setattr(torch.cuda, "ExternalStream", external)
    monkeypatch.setattr(torch.cuda, "stream", current)
    monkeypatch.setattr(OnGPU, "record_stream", lambda self, other: allocated.append(other.cuda_stream), raising=False)

    def sent(*values: Any) -> list[Any]:
        found = [torch.from_numpy(np.full_like(v, np.nan)).as_subclass(OnGPU) for v in values]
        kept.append((found, values))  # torch's allocator reuses memory in its stream's order
        keep_busy(stream)
        for tensor, value in zip(found, values, strict=True):
            cp.cuda.runtime.memcpyAsync(tensor.data_ptr(), value.ctypes.data, value.nbytes, 0, stream.ptr)
        return found

    return sent, stream, allocated


def test_torchs_tensors_are_used_on_torchs_stream(on_torchs_stream: Any) -> None:
    cp, (sent, stream, allocated) = cupy(), on_torchs_stream
    ns, full, ivon = (badmm_kernels.load(n, "gpu") for n in ("diagonal_gaussian", "full_gaussian", "ivon"))
    rng = np.random.default_rng(0)
    mean, precision = rng.uniform(0.5, 2.0, (2, 1001))
    # late arrays in, torch's own out, on torch's stream: nothing waits, and nothing is read too early
    results = ns.natural_from_standard(*sent(mean, precision))
    assert {type(r).__name__ for r in results} == {"OnGPU"} and not stream.done
    stream.synchronize()
    np.testing.assert_array_equal(results[0].numpy(), mean * precision)
    # CuPy's arrays out: its stream waits as well
    tensors, out = sent(mean, precision), (cp.zeros(1001), cp.zeros(1001))
    assert ns.natural_from_standard(*tensors, out=out)[0] is out[0]
    np.testing.assert_array_equal(cp.asnumpy(out[0]), mean * precision)
    # CuPy's arrays in, torch's out: written after torch's own work, which comes before them on torch's stream
    tensors = sent(np.zeros(1001), np.zeros(1001))
    ns.natural_from_standard(cp.asarray(mean), cp.asarray(precision), out=tuple(tensors))
    stream.synchronize()
    np.testing.assert_array_equal(tensors[0].numpy(), mean * precision)
    # the same by DLPack, which knows no stream but CuPy's current one
    out = (cp.zeros(1001), cp.zeros(1001))
    ns.natural_from_standard(*sent(mean, precision), out=tuple(ByDLPack(array) for array in out))
    np.testing.assert_array_equal(cp.asnumpy(out[0]), mean * precision)
    # on a stream of its own: what torch allocates is free there
    own, tensors = cp.cuda.Stream(non_blocking=True), sent(mean, precision)
    own.wait_event(stream.record())
    assert allocated == []
    results = ns.natural_from_standard(*tensors, stream=own)
    assert allocated == [own.ptr, stream.ptr] * 2
    own.synchronize()
    np.testing.assert_array_equal(results[0].numpy(), mean * precision)
    # matrices, and a sweep
    vector, matrix = rng.standard_normal((3, 4)), np.stack([np.eye(4)] * 3)
    entropy = full.entropy(*sent(vector, matrix), axis=-1)
    given = (precision, *(np.ones(1001) for _ in range(3)))
    rest = ((0.0, 1e-3), 1e3, 0.1, 0.9, 0.999)
    state = ivon.update(*sent(*given), *rest, seed=1, step=2)
    stream.synchronize()
    np.testing.assert_allclose(entropy.numpy(), badmm_kernels.load("full_gaussian").entropy(vector, matrix, axis=-1))
    expected = badmm_kernels.load("ivon").update(*given, *rest, seed=1, step=2)
    for ours, cpus in zip(state, expected, strict=True):
        np.testing.assert_allclose(ours.numpy(), cpus, rtol=1e-12)

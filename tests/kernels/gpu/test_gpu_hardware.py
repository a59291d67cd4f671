"""What only a GPU can show: streams, other libraries' arrays, several devices, compute-sanitizer. `pytest -m gpu`."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import badmm_kernels

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).resolve().parents[3]
SIZE = 1 << 20
BUSY = r"""
extern "C" __global__ void busy(long long cycles, long long *out)
{
    const long long start = clock64();
    while (clock64() - start < cycles) { }
    *out = start;
}
"""


def cupy() -> Any:
    return pytest.importorskip("cupy", reason="CuPy is not installed")


def keep_busy(stream: Any, milliseconds: float = 200.0) -> None:
    """A kernel that runs for about so long."""
    cp = cupy()
    with stream:
        out = cp.zeros(1, cp.int64)
        clock = cp.cuda.Device().attributes["ClockRate"]  # kHz
        cp.RawKernel(BUSY, "busy")((1,), (1,), (int(clock * milliseconds), out))


def arrays(count: int, size: int = SIZE) -> list[Any]:
    cp = cupy()
    rng = np.random.default_rng(0)
    return [cp.asarray(rng.uniform(0.5, 2.0, size)) for _ in range(count)]


def product() -> tuple[Any, Any, Any, Any, Any]:
    """(CuPy; a family; a mean and a precision on the GPU; their product, natural_from_standard's first result)."""
    cp = cupy()
    mean, precision = arrays(2)
    return cp, badmm_kernels.load("diagonal_gaussian", device="gpu"), mean, precision, cp.asnumpy(mean * precision)


def everything(ns: Any, full: Any, ivon: Any, a: list[Any], matrix: Any, vector: Any) -> None:
    """One call of every kind that does not return a float."""
    pair, stack = (a[0], a[1]), tuple(x.reshape(4, -1) for x in a[:2])
    ns.round_update(pair, (a[2], a[3]), pair, 0.3, 0.7, 0.4, 2)
    ns.server_total(stack, stack, 0.4)
    ns.kl(pair, (a[2], a[3]), axis=-1)
    full.expectation_from_natural(vector, matrix)
    full.kl((vector, matrix), (vector, matrix), axis=-1)
    full.kl((vector[0], matrix[0]), (vector[1], matrix[1]), axis=-1)  # not batched
    rest = ((0.0, 1e-3), 1e3, 0.1, 0.9, 0.999)
    ivon.update_sample(*a, *rest, seed=1, step=2, next_step=3)
    rows = [x.reshape(4, -1) for x in a]  # with numbers a row each, which go to the device as tables
    ivon.update_sample(*rows, rest[0], [1e3, 2e3, 3e3, 4e3], *rest[2:], seed=[1, 2, 3, 4], step=2, next_step=3)


def test_calls_do_not_wait_for_the_device() -> None:
    cp = cupy()
    ns, full, ivon = (badmm_kernels.load(n, "gpu") for n in ("diagonal_gaussian", "full_gaussian", "ivon"))
    a, vector = arrays(4), cp.ones((3, 5))
    matrix = cp.asarray(np.stack([np.eye(5)] * 3))
    everything(ns, full, ivon, a, matrix, vector)  # compiled, memory pooled
    badmm_kernels.synchronize()
    stream = cp.cuda.Stream(non_blocking=True)
    with stream:
        everything(ns, full, ivon, a, matrix, vector)
    stream.synchronize()
    keep_busy(stream)
    start = time.perf_counter()
    with stream:
        everything(ns, full, ivon, a, matrix, vector)
    took, done = time.perf_counter() - start, stream.done
    stream.synchronize()
    assert not done, f"the calls took {took:.3f} s and came back after the kernel before them"
    start = time.perf_counter()
    keep_busy(stream)
    with stream:
        ns.entropy(a[0], a[1])
    assert stream.done and time.perf_counter() - start > 0.05  # a float waits


@pytest.mark.parametrize("kind", ["current", "stream", "handle", "object"])
def test_work_is_ordered_on_the_stream_it_is_given(kind: str) -> None:
    cp, ns, mean, precision, expected = product()
    stream = cp.cuda.Stream(non_blocking=True)
    late = [cp.zeros_like(mean), cp.zeros_like(precision)]
    with stream:
        ns.natural_from_standard(mean, precision)  # loaded: that may wait for the device
        late[0][...], late[1][...] = mean * 0.0, precision * 0.0
    badmm_kernels.synchronize()
    keep_busy(stream)
    with stream:
        late[0][...], late[1][...] = mean, precision
    if kind == "current":
        with stream:
            xi, _ = ns.natural_from_standard(*late)
    else:
        holder = type("Holder", (), {"cuda_stream": stream.ptr})()
        given = {"stream": stream, "handle": stream.ptr, "object": holder}[kind]
        xi, _ = ns.natural_from_standard(*late, stream=given)
    assert not stream.done
    stream.synchronize()
    np.testing.assert_array_equal(cp.asnumpy(xi), expected)


def test_torch_tensors_in_and_out_without_a_copy() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch was built without CUDA or sees no GPU")
    ns = badmm_kernels.load("diagonal_gaussian", device="gpu")
    mean, precision = (torch.rand(1001, device="cuda") + 0.5 for _ in range(2))
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        late = mean * 2.0
        xi, s = ns.natural_from_standard(late, precision)  # on torch's current stream, behind the product
        assert isinstance(xi, torch.Tensor) and xi.is_cuda and xi.device == mean.device
        torch.testing.assert_close(xi, late * precision, rtol=0.0, atol=0.0)
    out = (torch.empty_like(mean), torch.empty_like(mean))
    assert all(a is b for a, b in zip(ns.natural_from_standard(mean, precision, out=out), out, strict=True))
    torch.testing.assert_close(out[0], mean * precision, rtol=0.0, atol=0.0)
    assert isinstance(ns.entropy(xi, s, axis=-1), torch.Tensor)
    inplace = (mean.clone(), precision.clone())
    addresses = [t.data_ptr() for t in inplace]
    ns.natural_from_standard(*inplace, out=inplace)
    assert [t.data_ptr() for t in inplace] == addresses
    torch.testing.assert_close(inplace[0], mean * precision, rtol=0.0, atol=0.0)
    for wrong, words in (
        (mean.half(), "mean: expected dtype float32 or float64, got float16"),
        (mean.cpu(), "mean: expected an array in GPU memory, got one on cpu"),
        (mean.clone().requires_grad_(), "mean: expected a tensor that does not require a gradient"),
    ):
        with pytest.raises(TypeError, match=words):
            ns.natural_from_standard(wrong, precision)


class ByInterface:
    """An array that only has __cuda_array_interface__, with the stream it is ready on."""

    def __init__(self, array: Any, stream: int | None = None, read_only: bool = False) -> None:
        self.array = array
        found = dict(array.__cuda_array_interface__)
        found["data"] = (found["data"][0], read_only)
        self.__cuda_array_interface__ = found | {"stream": stream}


class ByDLPack:
    """An array that only has DLPack, in a library of its own."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()

    def __array_namespace__(self) -> Any:
        return cupy()


@pytest.mark.parametrize("wrap", [ByInterface, ByDLPack])
def test_interface_and_dlpack_without_a_copy(wrap: Any) -> None:
    cp = cupy()
    ns = badmm_kernels.load("diagonal_gaussian", device="gpu")
    mean, precision, first, second = arrays(4, 1001)
    expected = cp.asnumpy(mean * precision)
    ns.natural_from_standard(wrap(mean), wrap(precision), out=(wrap(first), wrap(second)))
    badmm_kernels.synchronize()
    np.testing.assert_array_equal(cp.asnumpy(first), expected)
    xi, _ = ns.natural_from_standard(wrap(mean), wrap(precision))
    np.testing.assert_array_equal(cp.asnumpy(cp.asarray(getattr(xi, "array", xi))), expected)


def test_an_interface_names_its_stream_and_whether_it_may_be_written() -> None:
    cp, ns, mean, precision, expected = product()
    stream = cp.cuda.Stream(non_blocking=True)
    late = cp.zeros_like(mean)
    cp.cuda.get_current_stream().synchronize()
    keep_busy(stream)
    with stream:
        late[...] = mean
    xi, _ = ns.natural_from_standard(ByInterface(late, stream.ptr), precision)
    cp.cuda.get_current_stream().synchronize()
    np.testing.assert_array_equal(cp.asnumpy(cp.asarray(xi)), expected)
    out = (ByInterface(late, read_only=True), precision.copy())
    with pytest.raises(ValueError, match=r"out\[0\]: expected a writable array, got a read-only one"):
        ns.natural_from_standard(mean, precision, out=out)


def test_outputs_on_another_stream_are_ordered_there() -> None:
    cp, ns, mean, precision, expected = product()
    stream = cp.cuda.Stream(non_blocking=True)
    out = [cp.empty_like(mean), cp.empty_like(mean)]
    cp.cuda.get_current_stream().synchronize()
    keep_busy(stream)
    with stream:
        for array in out:
            array[...] = 0.0  # must not come after the call
    keep_busy(cp.cuda.get_current_stream())
    ns.natural_from_standard(mean, precision, out=tuple(ByInterface(array, stream.ptr) for array in out))
    with stream:
        seen = out[0].copy()  # must not come before it
    stream.synchronize()
    np.testing.assert_array_equal(cp.asnumpy(seen), expected)
    cp.cuda.get_current_stream().synchronize()
    np.testing.assert_array_equal(cp.asnumpy(out[0]), expected)


class Broken(ByDLPack):
    """An array whose library meets an error of CUDA's."""

    def __dlpack__(self, **_options: Any) -> Any:
        raise cupy().cuda.runtime.CUDARuntimeError(400)


def test_cudas_errors_are_told_as_they_are() -> None:
    ns = badmm_kernels.load("diagonal_gaussian", device="gpu")
    with pytest.raises(cupy().cuda.runtime.CUDARuntimeError):
        ns.natural_from_standard(*(Broken(a) for a in arrays(2, 10)))


def test_an_empty_tensor_stays_on_its_device() -> None:
    cp = cupy()
    from badmm_kernels.gpu.arrays import _wrapped

    last = cp.cuda.runtime.getDeviceCount() - 1
    empty = _wrapped(None, {"shape": (3, 0), "typestr": "<f4", "data": (0, False)}, last)
    assert (empty.device.id, empty.shape, empty.dtype) == (last, (3, 0), np.float32)


def test_arrays_elsewhere_are_refused_by_name() -> None:
    cp = cupy()
    ns = badmm_kernels.load("diagonal_gaussian", device="gpu")
    with pytest.raises(TypeError, match="precision: expected an array in GPU memory, got one on cpu"):
        ns.natural_from_standard(cp.ones(3), np.ones(3))
    with pytest.raises(TypeError, match=r"stream: expected a CuPy stream, .* got str"):
        ns.natural_from_standard(cp.ones(3), cp.ones(3), stream="0")
    if cp.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("mixed devices need two GPUs")
    with cp.cuda.Device(1):
        other = cp.ones(3)
    with pytest.raises(ValueError, match="precision: expected device 0 like mean, got device 1"):
        ns.natural_from_standard(cp.ones(3), other)
    with cp.cuda.Device(1):
        negative = -other
    ns.natural_from_standard(other, negative)
    with pytest.raises(ValueError, match="precision: expected positive"):
        badmm_kernels.synchronize(1)


def test_a_call_runs_where_its_arrays_are() -> None:
    cp = cupy()
    if cp.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("needs two GPUs")
    ns, full, ivon = (badmm_kernels.load(n, "gpu") for n in ("diagonal_gaussian", "full_gaussian", "ivon"))
    for index in (1, 0, 1):
        with cp.cuda.Device(index):
            a, vector, matrix = arrays(4, 1000), cp.ones((3, 5)), cp.stack([cp.eye(5)] * 3)
            stream = cp.cuda.Stream(non_blocking=True)
            cp.cuda.get_current_stream().synchronize()
        for call in (ns.natural_from_standard, ns.expectation_from_natural, ns.standard_from_natural):
            assert {part.device.id for part in call(a[0], a[1])} == {index}
        assert full.entropy(vector, matrix, axis=-1).device.id == index
        assert isinstance(ns.entropy(a[0], a[1], stream=stream), float)
        noise = (a[0].reshape(4, -1), [1, 2, 3, 4])  # seeds, one a row, go to the device as a table
        assert ivon.noise(noise[1], 0, out=noise[0]).device.id == index
        with cp.cuda.Stream(non_blocking=True):  # of device 0, which is no stream of the arrays' device
            assert ns.natural_from_standard(ByDLPack(a[0]), ByDLPack(a[1]))[0].device.id == index
        assert cp.cuda.runtime.getDevice() == 0
    with cp.cuda.Device(0):
        here = arrays(2, 1000)
        out = (ByInterface(a[0], stream.ptr), ByInterface(a[1], stream.ptr))
    with pytest.raises(ValueError, match=r"out\[0\]: expected device 0 like mean, got device 1"):
        ns.natural_from_standard(*here, out=out)
    badmm_kernels.synchronize()


def test_sums_are_the_same_on_every_run() -> None:
    ns = badmm_kernels.load("diagonal_gaussian", device="gpu")
    a = arrays(4, 10_000_019)
    assert len({ns.kl((a[0], a[1]), (a[2], a[3])) for _ in range(5)}) == 1


SMALL_CASE = """
import cupy as cp, badmm_kernels
ns, full, ivon = (badmm_kernels.load(n, "gpu") for n in ("gamma", "full_gaussian", "ivon"))
for size in (5, 1001, 5000):
    for dtype in ("float32", "float64"):
        a = [cp.linspace(0.5, 2.0, size + 1, dtype=dtype)[k:][:size] for k in (0, 1)]
        ns.round_update(tuple(a), tuple(a), tuple(a), 0.3, 0.7, 0.4, 2)
        ns.expectation_from_natural(*a)
        ns.entropy(*a)
        rows = [cp.ones((3, size), dtype) for _ in range(2)]
        ns.server_total(tuple(rows), tuple(rows), 0.4)
        ns.kl(tuple(rows), tuple(a), axis=-1)
        ivon.update_sample(a[0], a[0], a[0], a[0], (0.0, 1.0), 1e3, 0.1, 0.9, 0.9, seed=1, step=2, next_step=3)
full.kl((cp.ones((2, 3)), cp.stack([cp.eye(3)] * 2)), (cp.ones(3), cp.eye(3)))
ns.natural_from_standard(-cp.ones(5000), cp.ones(5000))
try:
    badmm_kernels.synchronize()
except ValueError as error:
    print(error)
"""


@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_compute_sanitizer_finds_nothing(tool: str) -> None:
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        pytest.skip("compute-sanitizer (of the CUDA toolkit) is not on the path")
    command = [sanitizer, "--tool", tool, "--error-exitcode", "7", sys.executable, "-c", SMALL_CASE]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "shape: expected positive, got -1.0 at index 0" in done.stdout

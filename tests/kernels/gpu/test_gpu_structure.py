"""What the GPU side promises without a GPU: layouts that agree, sums that ignore the grid, one clear error at load,
CuPy's names."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import badmm_kernels
from badmm_kernels.gpu import launch, source as gpu_source
from badmm_kernels.gpu.source import HERE, source_text
from tests.kernels.host_device import compiled, on_host

ROOT = Path(__file__).resolve().parents[3]
HAS_CUPY = importlib.util.find_spec("cupy") is not None


def test_python_and_cuda_agree_on_the_layout() -> None:
    library = compiled(source_text("common"))
    sizes = [library.host_size(which) for which in range(3)]
    assert sizes == [launch.CALL.itemsize, launch.SLOT.itemsize, launch.STATUS.itemsize]
    text = (HERE / "loops.cuh").read_text()
    numbers = (
        f"INPUTS = {launch.INPUTS}, OUTPUTS = {launch.OUTPUTS}, SLOTS = {launch.SLOTS}, SCALARS = {launch.SCALARS};"
    )
    assert numbers in text
    assert f"constexpr Index CHUNK = {launch.CHUNK};" in text
    assert launch.CALL.itemsize <= 4096  # the most that every CUDA version takes as arguments


@pytest.mark.parametrize("family", badmm_kernels.FAMILIES + badmm_kernels.OPTIMIZERS)
def test_names_and_signatures_are_the_cpus_with_a_stream(family: str) -> None:
    cpu = badmm_kernels.load(family)
    gpu = __import__(f"badmm_kernels.gpu.{family}", fromlist=["*"])
    for name in gpu.__all__:
        ours = inspect.signature(getattr(gpu, name)).parameters
        theirs = inspect.signature(getattr(cpu, name)).parameters
        assert list(ours) == [*theirs, "stream"], name
        assert "Source:" in getattr(gpu, name).__doc__
    missing = set(cpu.__all__) - set(gpu.__all__)
    assert all(hasattr(getattr(cpu, n), "py_func") for n in missing)  # scalar functions for a user's own @njit code


def test_sums_do_not_depend_on_the_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "BLOCKS_PER_PROCESSOR", 2)
    rng = np.random.default_rng(0)
    mean, precision = rng.normal(size=200_001), rng.uniform(0.1, 9.0, 200_001)
    rows = mean[:200_000].reshape(40, 5000), precision[:200_000].reshape(40, 5000)
    totals, sums, grids = set(), set(), set()
    for processors in (1, 3, 132):
        with on_host(processors=processors) as device:
            ns = badmm_kernels.load("diagonal_gaussian", device="gpu")
            totals.add(ns.log_partition(mean, precision))
            sums.add(ns.log_partition(*rows, axis=-1).tobytes())
            grids |= {grid for _, name, grid, _ in device.launched if name.startswith("log_partition")}
    assert len(totals) == len(sums) == 1
    assert len(grids) > 2


def test_maps_do_not_depend_on_the_grid() -> None:
    rng = np.random.default_rng(0)
    prior, client = rng.normal(size=301), rng.normal(size=(50, 301))
    results = set()
    for processors in (1, 2, 64):
        with on_host(processors=processors):
            ns = badmm_kernels.load("isotropic_gaussian", device="gpu")
            (out,) = ns.dual_update((client,), (prior,), (client,), 0.3, 0.7)
            results.add(out.tobytes())
    assert len(results) == 1


@pytest.mark.parametrize("rows", [1, 2, 70_000])
@pytest.mark.parametrize("width", [1, 3, 257, 10**6])
def test_a_grid_is_one_that_cuda_accepts(rows: int, width: int) -> None:
    for loop in ("map", "sum", "client_sum"):
        slots = [launch.Slot([16], [width], [16], rows, width)]
        for processors in (1, 132):
            grid, block = launch.grid_and_block(slots, 4, loop, processors)
            assert 1 <= grid[0] < 2**31 and 1 <= grid[1] <= 65535 and grid[2] == 1
            assert np.prod(block) == 256 and all(b >= 1 for b in block)
            assert np.prod(grid) <= max(1, 32 * processors)


def test_16_bytes_move_as_one_only_where_every_row_allows() -> None:
    single = np.dtype(np.float32)

    def wide(address: int, rows: int, width: int, loop: str) -> int:
        return launch.pack_size([launch.Slot([address], [width], [32], rows, width)], single, loop)

    assert wide(16, 1, 7, "map") == 4  # the tail is the loop's
    assert wide(16, 2, 7, "map") == 1 and wide(16, 2, 8, "map") == 4
    assert wide(20, 1, 8, "map") == 1
    assert wide(16, 5, 7, "client_sum") == 1 and wide(16, 5, 8, "client_sum") == 4
    assert wide(16, 1, 7, "client_sum") == 1


WITHOUT_CUPY = """
import sys
sys.modules["cupy"] = None
import badmm_kernels
try:
    badmm_kernels.load("gamma", device="gpu")
except RuntimeError as error:
    print(error)
"""


def test_without_cupy_load_says_what_to_install() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_CUPY], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "device: expected CuPy for device='gpu', got" in done.stdout
    assert "bayesian-admm[cuda12] or bayesian-admm[cuda13] (never both)" in done.stdout


def test_import_of_the_gpu_side_loads_neither_cupy_nor_torch() -> None:
    code = (
        "import sys, badmm_kernels, badmm_kernels.gpu.gamma, badmm_kernels.gpu.full_gaussian;"
        "print([m for m in ('cupy', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_the_text_that_cupy_caches_changes_with_what_it_includes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "badmm").mkdir()
    header = tmp_path / "badmm" / "special.h"
    monkeypatch.setattr(gpu_source, "INCLUDE", tmp_path)
    texts = []
    for content in ("one", "two"):
        header.write_text(content)
        texts.append(source_text.__wrapped__("common"))
    assert texts[0] != texts[1] and texts[0].splitlines()[1:] == texts[1].splitlines()[1:]


@pytest.mark.skipif(not HAS_CUPY, reason="CuPy is not installed")
class TestCuPyWithoutAGPU:
    def test_load_says_that_there_is_no_gpu(self) -> None:
        import cupy

        try:
            count = cupy.cuda.runtime.getDeviceCount()
        except cupy.cuda.runtime.CUDARuntimeError:
            count = 0
        if count:
            pytest.skip("there is a GPU")
        with pytest.raises(RuntimeError, match=r"device: expected an NVIDIA GPU with its driver for device='gpu', got"):
            badmm_kernels.load("gamma", device="gpu")

    @pytest.mark.parametrize("module", ["arrays", "cupy_device"])
    def test_every_name_used_of_cupy_exists(self, module: str) -> None:
        import cupy

        used = cupy_names(HERE / f"{module}.py", "cupy")
        used |= {f"cupy.{n.removeprefix('xp.')}" for path in ("linalg", "matrix", "runtime") for n in xp_names(path)}
        assert len(used) > 10
        for name in sorted(used - {"cupy.cuda.ExternalStream"}):
            found: Any = cupy
            for part in name.split(".")[1:]:
                found = getattr(found, part)

    def test_cupyx_solves_triangular_systems_in_batches(self) -> None:
        found = importlib.util.find_spec("cupyx")
        assert found is not None and found.origin is not None
        text = (Path(found.origin).parent / "scipy" / "linalg" / "_solve_triangular.py").read_text()
        assert "def solve_triangular(a, b, trans=0, lower=False" in text
        assert "supports batches" in text

    def test_streams_and_their_handles(self) -> None:
        from badmm_kernels.gpu.streams import stream_handle

        class Torch:
            cuda_stream = 12

        class CuPy:
            ptr = 7

        assert [stream_handle(s) for s in (Torch(), CuPy(), 0, 1, 2, np.int64(9))] == [12, 7, 0, 0, 2, 9]
        for wrong in ("7", True, -3, None, object()):
            with pytest.raises(TypeError, match=r"stream: expected a CuPy stream, .* got"):
                stream_handle(wrong)

    def test_arrays_that_are_not_on_a_gpu_are_refused_by_name(self) -> None:
        import torch

        from badmm_kernels.gpu.arrays import view

        for value in (np.ones(3), torch.ones(3)):
            with pytest.raises(TypeError, match=r"mean: expected an array in GPU memory, got one on cpu; load"):
                view("mean", value)
        with pytest.raises(TypeError, match=r"mean: expected a GPU array of float32 or float64, got list"):
            view("mean", [1.0])


def cupy_names(path: Path, root: str) -> set[str]:
    """Dotted names below `root` that a file uses."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            text = ast.unparse(node)
            if text.startswith(f"{root}.") and "(" not in text and "[" not in text:
                found.add(text)
    longest = {n for n in found if not any(o.startswith(f"{n}.") for o in found)}
    return {n for n in longest if n.split(".")[-1] not in ("id", "ptr", "attributes")}


def xp_names(module: str) -> set[str]:
    """Functions of the array library that a module uses as xp.name, _xp().name or memory.xp.name."""
    text = (HERE / f"{module}.py").read_text()
    tree, found = ast.parse(text), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            base = ast.unparse(node.value)
            if base in ("xp", "_xp()") or base.endswith(".memory.xp"):
                found.add(f"xp.{node.attr}")
    return found

"""Every CUDA kernel through NVRTC for three architectures, without a GPU: it compiles, nothing spills, 16 bytes move as
one."""

from __future__ import annotations

import re

import pytest

import badmm_kernels
from badmm_kernels.gpu.source import HERE, OPTIONS, source_text
from tests.kernels import nvrtc
from tests.kernels.representative import REPRESENTATIVE

SOURCES = sorted(str(path.relative_to(HERE).with_suffix("")) for path in HERE.rglob("*.cu"))
OTHERS = {*badmm_kernels.FAMILIES} - {*REPRESENTATIVE, "beta"}  # beta: the longest kernels of all
pytestmark = pytest.mark.skipif(
    nvrtc.library_path() is None, reason=f"{nvrtc.WHEEL} is not installed (it is in the extra `test`)"
)


def entries(source: str) -> dict[str, int]:
    """The kernels, and the registers per thread that launch bounds leave: 65536 per multiprocessor, at most 255."""
    found = re.findall(r"__launch_bounds__\((\d+), (\d+)\) (\w+)\(", source_text(source))
    return {name: min(65536 // (int(threads) * int(blocks)), 255) for threads, blocks, name in found}


@pytest.mark.parametrize("architecture", nvrtc.ARCHITECTURES)
@pytest.mark.parametrize("source", [s for s in SOURCES if s not in OTHERS])
def test_no_kernel_spills(source: str, architecture: str) -> None:
    found = nvrtc.usage_of(source, architecture)
    allowed = entries(source)
    assert found.keys() == allowed.keys()
    wrong = {name: u for name, u in found.items() if u.stack or u.spill_stores or u.spill_loads}
    assert wrong == {}
    assert all(0 < u.registers <= allowed[name] for name, u in found.items())


def test_there_are_kernels_for_every_family() -> None:
    losses = {f"likelihoods/{name}" for name in badmm_kernels.LIKELIHOODS}
    assert set(SOURCES) >= {*badmm_kernels.FAMILIES, *badmm_kernels.OPTIMIZERS, *losses, "common"}
    assert all(len(entries(s)) >= 3 for s in SOURCES)


SPILLING = """
extern "C" __global__ void __launch_bounds__(256) spills(const int *order, double *out)
{
    double kept[64];
    for (int k = 0; k < 64; ++k) kept[k] = out[k] * k;
    double sum = 0.0;
    for (int k = 0; k < 64; ++k) sum += kept[order[k] & 63];
    out[threadIdx.x] = sum;
}
"""


def test_the_check_sees_local_memory() -> None:
    _, log = nvrtc.compile_text(SPILLING, "sm_90")
    assert nvrtc.usages(log)["spills"].stack > 0


def test_a_wrong_text_is_an_error_with_the_log() -> None:
    with pytest.raises(RuntimeError, match=r"identifier .*nothing.* is undefined"):
        nvrtc.compile_text("__global__ void k() { nothing(); }", "sm_90")


@pytest.mark.parametrize("source", ["diagonal_gaussian", "ivon"])
def test_vector_kernels_move_16_bytes_as_one(source: str) -> None:
    text = nvrtc.ptx(source_text(source), "compute_90", OPTIONS)
    kernels = re.split(r"\.entry ", text)[1:]
    bodies = {re.match(r"\w+", k).group(): k for k in kernels}  # type: ignore[union-attr]
    for name, body in bodies.items():
        inputs = len(re.findall(r"ld\.global\.(?:nc\.)?v[24]\.", body))
        outputs = len(re.findall(r"st\.global\.wb\.v[24]\.", body))
        if name.endswith("x1"):
            assert inputs == outputs == 0, name
        else:
            assert inputs > 0, name
            assert outputs > 0 or name.split("_f")[0] in ("kl", "entropy", "log_partition"), name

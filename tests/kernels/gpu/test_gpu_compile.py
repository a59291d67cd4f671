"""Every CUDA kernel through NVRTC for three architectures, without a GPU: it compiles, nothing spills, 16 bytes move as
one.

tests/kernels/registers.json has the registers of every kernel and the digest of the code that it is compiled from. Here
the kernels whose code has changed since are compiled, and of every representative family the one that takes the most
registers, which shows that the table is what NVRTC gives.
"""

from __future__ import annotations

import re

import pytest

import badmm_kernels
from badmm_kernels.gpu.source import OPTIONS, source_text
from tests.kernels import cuda_text, nvrtc, registers
from tests.kernels.cuda_text import SOURCES, allowed, digests, kernels
from tests.kernels.representative import REPRESENTATIVE

pytestmark = pytest.mark.skipif(
    nvrtc.library_path() is None, reason=f"{nvrtc.WHEEL} is not installed (it is in the extra `test`)"
)


@pytest.mark.parametrize("source", SOURCES)
def test_no_kernel_spills(source: str) -> None:
    rows, limits = registers.kept().get(source, {}), allowed(source)
    stale = registers.changed(source, rows)
    assert list(registers.faults(source, registers.compiled(source, stale))) == []
    assert {*stale, *rows} >= limits.keys() == kernels(source).keys()
    for name in limits.keys() - {*stale}:
        assert all(0 < count <= limits[name] for count in rows[name][1:]), name


@pytest.mark.slow
@pytest.mark.parametrize("source", [*REPRESENTATIVE, "round", "ivon", "likelihoods/logistic"])
def test_the_table_is_what_the_compiler_gives(source: str) -> None:
    rows = registers.kept().get(source, {})
    if not rows:
        pytest.skip(f"registers.json is of another NVRTC than {registers.version()}: all kernels are compiled")
    heaviest = max(rows, key=lambda name: rows[name][1:])
    (usages,) = registers.compiled(source, [heaviest]).values()
    assert [u.registers for u in usages] == rows[heaviest][1:]


def test_the_table_is_of_this_compiler_and_of_the_kernels_there_are() -> None:
    if registers.version() == "13.0.88":  # the one that constraints.txt names
        assert {source: rows.keys() for source, rows in registers.kept().items()} == {
            source: kernels(source).keys() for source in SOURCES
        }


def test_a_change_anywhere_in_a_kernels_code_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    before = digests("gamma")
    changed = dict(cuda_text.functions())
    changed["badmm_digamma"] = changed["badmm_digamma"].replace("0.5", "0.25")
    with monkeypatch.context() as patch:
        patch.setattr(cuda_text, "functions", lambda: changed)
        after = digests("gamma")
    moved = {name for name in before if before[name] != after[name]}
    assert {name.rpartition("_")[0] for name in moved} >= {"expectation_from_natural"}
    assert "standard_from_natural_f32x1" not in moved
    whole = cuda_text.loops()
    monkeypatch.setattr(cuda_text, "loops", lambda: whole.replace("+=", "-=", 1))
    assert all(before[name] != digest for name, digest in digests("gamma").items())


def test_there_are_kernels_for_every_family() -> None:
    losses = {f"likelihoods/{name}" for name in badmm_kernels.LIKELIHOODS}
    assert set(SOURCES) >= {"round", *badmm_kernels.FAMILIES, *badmm_kernels.OPTIMIZERS, *losses, "common"}
    assert all(len(allowed(s)) >= 2 for s in SOURCES)


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
    entries = re.split(r"\.entry ", text)[1:]
    bodies = {re.match(r"\w+", k).group(): k for k in entries}  # type: ignore[union-attr]
    for name, body in bodies.items():
        inputs = len(re.findall(r"ld\.global\.(?:nc\.)?v[24]\.", body))
        outputs = len(re.findall(r"st\.global\.wb\.v[24]\.", body))
        if name.endswith("x1"):
            assert inputs == outputs == 0, name
        else:
            assert inputs > 0, name
            assert outputs > 0 or name.split("_f")[0] in ("kl", "entropy", "log_partition"), name

"""Every CUDA kernel through NVRTC for three architectures, without a GPU: it compiles, nothing spills, 16 bytes move as
one.

What families share in the same words is compiled once, and every kernel for sm_90. By the registers that all kernels of
the representative families take, sm_80 shows those that come near their bound on sm_90, than which it takes at most two
more; sm_100, which takes up to thirty more, shows those that move 16 bytes as one, which take more than those of one
element, but for four far from their bound.
"""

from __future__ import annotations

import re
from functools import cache

import pytest

import badmm_kernels
from badmm_kernels.gpu.source import OPTIONS, source_text
from tests.kernels import cuda_text, nvrtc
from tests.kernels.cuda_text import ENTRY, SOURCES, kernels, own_kernels, with_kernels
from tests.kernels.representative import REPRESENTATIVE

NEAR = 4  # registers: twice what was measured
OTHERS = {*badmm_kernels.FAMILIES} - {*REPRESENTATIVE, "beta"}  # beta: the longest kernels of all
ORDER = sorted(SOURCES, key=lambda source: source in OTHERS)  # what the others share, a representative family shows
CASES = [(s, a) for s in ORDER for a in nvrtc.ARCHITECTURES if s not in OTHERS or a == "sm_90"]
pytestmark = pytest.mark.skipif(
    nvrtc.library_path() is None, reason=f"{nvrtc.WHEEL} is not installed (it is in the extra `test`)"
)


def entries(source: str) -> dict[str, int]:
    """The kernels, and the registers per thread that launch bounds leave: 65536 per multiprocessor, at most 255."""
    found = ((int(match[1]) * int(match[2]), match[3]) for match in ENTRY.finditer(source_text(source)))
    return {name: min(65536 // threads, 255) for threads, name in found}


@cache
def usage(source: str, architecture: str, names: frozenset[str]) -> dict[str, nvrtc.Usage]:
    """What the named kernels of a source take."""
    text = with_kernels(source, names)
    return nvrtc.usages(nvrtc.compile_text(text, architecture)[1]) if names else {}


def shown(source: str, architecture: str) -> frozenset[str]:
    """The kernels that an architecture has to compile."""
    own, allowed = frozenset(own_kernels(source, ORDER)), entries(source)
    if architecture == "sm_90":
        return own
    if architecture == "sm_100":
        return frozenset(name for name in own if name.endswith(("x4", "x2")))
    return frozenset(n for n, u in usage(source, "sm_90", own).items() if u.registers > allowed[n] - NEAR)


@pytest.mark.slow
@pytest.mark.parametrize(("source", "architecture"), CASES)
def test_no_kernel_spills(source: str, architecture: str) -> None:
    names, allowed = shown(source, architecture), entries(source)
    found = usage(source, architecture, names)
    assert found.keys() == names <= allowed.keys()
    wrong = {name: u for name, u in found.items() if u.stack or u.spill_stores or u.spill_loads}
    assert wrong == {}
    assert all(0 < u.registers <= allowed[name] for name, u in found.items())


def test_every_kernel_is_compiled_once() -> None:
    codes = [kernels(source)[name] for source in ORDER for name in own_kernels(source, ORDER)]
    assert {*codes} == {code for source in SOURCES for code in kernels(source).values()}
    assert all(kernels(source).keys() == entries(source).keys() for source in SOURCES)
    with_lines = [source for source in ORDER if "dual_update_f32x4" in kernels(source)]
    assert len(with_lines) >= 5 and with_lines[0] not in OTHERS
    assert [source for source in with_lines if "dual_update_f32x4" in own_kernels(source, ORDER)] == with_lines[:1]


def test_a_line_in_other_words_is_compiled_too(monkeypatch: pytest.MonkeyPatch) -> None:
    last = [source for source in ORDER if "dual_update_f32x4" in kernels(source)][-1]
    changed = dict(cuda_text.functions())
    name = f"badmm_{last}_dual_update_f32"
    changed[name] = changed[name].replace("natural_global - natural_client", "natural_client - natural_global")
    monkeypatch.setattr(cuda_text, "functions", lambda: changed)
    monkeypatch.setattr(cuda_text, "kernels", cuda_text.kernels.__wrapped__)
    assert {"dual_update_f32x4", "dual_update_f32x1"} == {
        n for n in own_kernels(last, ORDER) if n.startswith("dual_update_f32")
    }


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

"""The IVON kernels on what the CUDA kernels run on: the CPU's bits, normals included, and its words for errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import badmm_kernels
from badmm_kernels.gpu import sweep
from badmm_kernels.gpu.source import source_text
from tests.kernels.gpu.test_gpu_errors import told
from tests.kernels.host_device import HostDevice, compiled
from validation.on_device import HostArrayNamespace

CPU = badmm_kernels.load("ivon")
DTYPES = ("float32", "float64")
HYPER: dict[str, Any] = {"ess": 1e4, "lr": 0.1, "beta1": 0.9, "beta2": 0.999, "debias": 0.1, "clip": 1e-2}
STATE = ("gradient", "mean", "precision", "momentum")


def state(shape: tuple[int, ...], dtype: str, names: tuple[str, ...] = STATE) -> dict[str, Any]:
    rng = np.random.default_rng(len(shape) + sum(shape))
    found = {}
    for name in names:
        values = rng.uniform(0.5, 2.0, shape) if name in ("precision", "total_square") else rng.normal(size=shape)
        found[name] = values.astype(dtype)
    return found


def hyper(*names: str, **changes: Any) -> dict[str, Any]:
    return {n: v for n, v in (HYPER | {"samples": 3} | changes).items() if n in names}


ALL = ("ess", "lr", "beta1", "beta2", "debias", "clip")


def calls(shape: tuple[int, ...], dtype: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every kernel with noise drawn, read and kept; cavities that are arrays, shared arrays, numbers, numbers a row."""
    rng = np.random.default_rng(7)
    normals = rng.normal(size=shape).astype(dtype)
    whole = state(shape, dtype)
    rows = shape[0] if len(shape) > 1 else 1
    cavity = (rng.normal(size=shape).astype(dtype), rng.uniform(0.5, 1.0, shape).astype(dtype))
    shared = tuple(a[0].copy() for a in cavity) if len(shape) > 1 else cavity
    numbers: dict[str, Any] = {"mean": whole["mean"], "precision": whole["precision"]}
    yield "sample", numbers | hyper("ess") | {"seed": 3, "step": 5}
    yield "sample", numbers | hyper("ess") | {"noise": normals}
    yield "sample", numbers | hyper("ess") | {"seed": 2**63, "step": 9, "noise": np.zeros(shape, dtype)}
    for given in (cavity, shared, (0.0, 1e-3), (0.25, cavity[1])):
        yield "update", whole | hyper(*ALL) | {"cavity": given, "seed": 3, "step": 5}
    yield "update", whole | hyper(*ALL, clip=None) | {"cavity": cavity, "noise": normals}
    drawn = {"seed": 3, "step": 5, "next_step": 6}
    yield "update_sample", whole | hyper(*ALL) | drawn | {"cavity": cavity}
    yield "update_sample", whole | hyper(*ALL) | drawn | {"cavity": (0.0, 1e-3), "next_noise": np.zeros(shape, dtype)}
    yield (
        "update_sample",
        whole | hyper(*ALL) | {"cavity": cavity, "noise": normals, "next_noise": normals[::-1].copy()},
    )
    if rows > 1:
        per_row = {n: [v * (1 + 0.01 * k) for k in range(rows)] for n, v in HYPER.items() if n in ("ess", "lr", "clip")}
        columns = tuple(np.ascontiguousarray(a.reshape(rows, -1)[:, :1]) for a in cavity)
        own = {"seed": list(range(rows)), "step": 5, "next_step": [6 + k for k in range(rows)]}
        yield "update_sample", whole | hyper(*ALL, **per_row) | own | {"cavity": columns if len(shape) == 2 else cavity}
    totals = state(shape, dtype, ("gradient", "total_gradient", "total_price", "total_square"))
    sums = {n: totals[n] for n in ("total_gradient", "total_price")}
    squares = {n: totals[n] for n in ("total_gradient", "total_square")}
    rest = {n: whole[n] for n in ("mean", "precision", "momentum")}
    member = {n: whole[n] for n in ("gradient", "mean", "precision")}
    for given in (cavity, (0.0, 1e-3)):
        yield "update_precision", member | hyper("ess", "beta2") | {"cavity": given, "noise": normals}
    yield "update_precision", member | hyper("ess", "beta2") | {"cavity": shared, "seed": 3, "step": 5}
    yield "accumulate", sums | {"gradient": totals["gradient"], "seed": 1, "step": 2}
    yield "accumulate_squares", squares | {"gradient": totals["gradient"]}
    yield "update_precision_averaged", sums | numbers | hyper("samples", "ess", "beta2") | {"cavity": cavity}
    yield "update_averaged", sums | rest | hyper("samples", *ALL) | {"cavity": cavity}
    yield "update_averaged_squares", squares | rest | hyper("samples", *ALL[1:]) | {"cavity": (0.0, 1.0)}


def both(function: str, arguments: dict[str, Any]) -> tuple[list[bytes], list[bytes]]:
    """The results on the device and on the CPU, with the noise that was kept."""
    found = []
    for namespace in (HostArrayNamespace(badmm_kernels.load("ivon", device="gpu")), CPU):
        given = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in arguments.items()}
        results = getattr(namespace, function)(**given)
        kept = [given[n] for n in ("noise", "next_noise") if isinstance(given.get(n), np.ndarray)]
        found.append([a.tobytes() for a in (*results, *kept)])
    return found[0], found[1]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1,), (127,), (4096,), (3, 50), (2, 129), (5, 1), (2, 4, 40)], ids=str)
def test_every_step_has_the_cpus_bits(device: Any, shape: tuple[int, ...], dtype: str) -> None:
    seen = set()
    for function, arguments in calls(shape, dtype):
        got, expected = both(function, arguments)
        assert got == expected, (function, sorted(arguments))
        seen.add(function)
    assert seen | {"noise"} == set(CPU.__all__)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1,), (127,), (129,), (5000,), (3, 100), (2, 3, 50)], ids=str)
def test_normals_have_the_cpus_bits(device: Any, shape: tuple[int, ...], dtype: str) -> None:
    ns = HostArrayNamespace(badmm_kernels.load("ivon", device="gpu"))
    seeds: Any = [0, 1, 2**64 - 1][: shape[0]] if len(shape) > 1 else 2**64 - 1
    for seed, step in ((0, 0), (seeds, 2**33)):
        got, expected = (np.zeros(shape, dtype) for _ in range(2))
        ns.noise(seed, step, out=got)
        CPU.noise(seed, step, out=expected)
        assert got.tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_state_is_updated_in_place_and_out_of_unaligned_memory(device: Any, dtype: str) -> None:
    xp, ns = device.memory.xp, badmm_kernels.load("ivon", device="gpu")
    for size in (1, 33, 128, 1001):
        whole = state((size,), dtype)
        normals = np.random.default_rng(size).normal(size=size).astype(dtype)
        for shift in (0, 1):
            for noise in ({"noise": normals}, {"seed": 3, "step": 4}):
                extra = hyper(*ALL) | {"cavity": (0.0, 0.5)}
                expected = CPU.update(**whole, **extra, **noise)

                def placed(values: Any, size: int = size, shift: int = shift) -> Any:
                    view = xp.zeros(size + 8, dtype=dtype)[4 + shift : 4 + shift + size]
                    view[...] = xp.asarray(values)
                    return view

                there = {n: placed(a) for n, a in whole.items()}
                given = {n: placed(a) if n == "noise" else a for n, a in noise.items()}
                out = (there["mean"], there["precision"], there["momentum"])
                result = ns.update(**there, **extra, **given, out=out)
                badmm_kernels.synchronize()
                assert all(a is b for a, b in zip(result, out, strict=True))
                assert [device.read(a).tobytes() for a in out] == [a.tobytes() for a in expected]
    if isinstance(device, HostDevice):
        assert {name[-2:] for _, name, _, _ in device.launched} == {"x1", "x4" if dtype == "float32" else "x2"}


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_next_sample_may_take_the_gradients_place(device: Any, dtype: str) -> None:
    xp, ns = device.memory.xp, badmm_kernels.load("ivon", device="gpu")
    for size in (1, 33, 1001):
        whole, extra = state((size,), dtype), hyper(*ALL) | {"cavity": (0.0, 0.5), "seed": 3, "step": 4, "next_step": 5}
        expected = CPU.update_sample(**whole, **extra)
        there = {name: xp.asarray(array) for name, array in whole.items()}
        out = tuple(there[name] for name in ("mean", "precision", "momentum", "gradient"))
        ns.update_sample(**there, **extra, out=out)
        badmm_kernels.synchronize()
        for got, wanted in zip(out[:3], expected, strict=False):
            assert device.read(got).tobytes() == wanted.tobytes()
        np.testing.assert_allclose(device.read(out[3]), expected[3], rtol=1e-5 if dtype == "float32" else 1e-13)


def spoiled(name: str, value: float) -> dict[str, Any]:
    whole = state((7,), "float64")
    return whole | {name: np.where(np.arange(7) == 4, value, whole[name])}


CAVITY = {"cavity": (0.0, 0.5), "noise": np.ones(7)}
BAD: list[tuple[str, dict[str, Any]]] = [
    ("update", spoiled("gradient", np.nan) | hyper(*ALL) | CAVITY),
    ("update", spoiled("mean", np.inf) | hyper(*ALL) | CAVITY),
    ("update", spoiled("precision", -1.0) | hyper(*ALL) | CAVITY),
    ("update", spoiled("gradient", -1e300) | hyper(*ALL, beta2=0.0) | CAVITY),
    ("update", state((7,), "float64") | hyper(*ALL) | CAVITY | {"noise": np.where(np.arange(7) == 4, np.nan, 1.0)}),
    ("sample", {n: spoiled("precision", 0.0)[n] for n in ("mean", "precision")} | {"ess": 1.0, "seed": 1, "step": 1}),
]
REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("update", state((7,), "float64") | hyper(*ALL, ess=-1.0) | CAVITY),
    ("update", state((7,), "float64") | hyper(*ALL) | {"cavity": (0.0, 0.5)}),
    ("update", state((7,), "float64") | hyper(*ALL) | {"cavity": (np.inf, 0.5), "noise": np.ones(7)}),
    ("update", state((7,), "float64") | hyper(*ALL) | {"cavity": (0.0, np.ones(3)), "noise": np.ones(7)}),
    ("update", state((7,), "float32") | hyper(*ALL) | {"cavity": (0.0, np.ones(7)), "noise": np.ones(7, "f4")}),
    ("update", state((7,), "float64") | hyper(*ALL, lr=[0.1, 0.2]) | CAVITY),
    ("update", state((7,), "float64") | hyper(*ALL) | {"cavity": (0.0, 0.5), "step": 3}),
    ("sample", {n: state((7,), "float64")[n] for n in ("mean", "precision")} | {"ess": 1.0, "seed": -1, "step": 1}),
]


def there(device: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """Arrays on the device."""

    def sent(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(sent(v) for v in value)
        return device.memory.xp.array(value) if isinstance(value, np.ndarray) else value

    return {k: sent(v) for k, v in arguments.items()}


@pytest.mark.parametrize("number", range(len(BAD)))
def test_a_bad_value_is_named_in_the_cpus_words(device: Any, number: int) -> None:
    function, arguments = BAD[number]
    with np.errstate(all="ignore"):
        cpu = told(lambda: getattr(CPU, function)(**arguments))
    getattr(badmm_kernels.load("ivon", device="gpu"), function)(**there(device, arguments))
    assert told(badmm_kernels.synchronize) == cpu
    badmm_kernels.synchronize()


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_a_bad_call_is_refused_at_once(device: Any, number: int) -> None:
    function, arguments = REFUSED[number]
    cpu = told(lambda: getattr(CPU, function)(**arguments))
    assert told(lambda: getattr(badmm_kernels.load("ivon", device="gpu"), function)(**there(device, arguments))) == cpu


def test_python_and_cuda_agree_on_the_layout_of_a_sweep() -> None:
    text = source_text("ivon") + '\nextern "C" unsigned long long sweep_size() { return sizeof(badmm::Sweep); }\n'
    assert compiled(text, "-O1").sweep_size() == sweep.SWEEP.itemsize <= 4096
    assert sweep.STEPS == 2

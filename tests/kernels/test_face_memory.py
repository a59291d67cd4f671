"""What a call asks of the memory of its device: one place for its arrays, outputs, a context around the kernel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

import badmm_kernels
from badmm_kernels.cpu import ivon
from badmm_kernels.face import arrays as ar, exchange
from badmm_kernels.face.calls import MapCall, MatrixCall
from badmm_kernels.face.sweeps import SweepCall


class Device(ar.Memory):
    """NumPy's memory, that notes which names are compared in place, for which library it allocates, and when."""

    def __init__(self) -> None:
        self.placed: list[dict[str, int]] = []
        self.libraries: list[Any] = []
        self.notes: list[Any] = []

    def check_place(self, names: Sequence[str], arrays: Sequence[Any]) -> None:
        assert all(type(name) is str for name in names) and len(names) == len(arrays)
        self.placed.append({name: self.address(array) for name, array in zip(names, arrays, strict=True)})

    def empty(self, library: exchange.Library, shape: tuple[int, ...], dtype: Any) -> Any:
        self.libraries.append(library.module)
        self.notes.append("allocate")
        return super().empty(library, shape, dtype)

    @contextmanager
    def selected(self, stream: Any) -> Iterator[None]:
        self.notes.append(("enter", stream))
        yield
        self.notes.append("leave")

    def compared(self, **addresses: int) -> bool:
        """Whether every pair of the named arrays was compared, directly or through others, each at its own address."""
        groups = [{(name, at) for name, at in placed.items()} for placed in self.placed]
        joined = next(group for group in groups if next(iter(addresses.items())) in group)
        for _ in groups:
            joined = joined.union(*(group for group in groups if group & joined))
        return set(addresses.items()) <= joined


@dataclass(frozen=True)
class Halves(MapCall):
    """x ↦ (x/2, ρ x) on some device."""

    device: Device

    def memory(self) -> ar.Memory:
        return self.device

    def on(self, inputs: Sequence[ar.Batch], stream: Any) -> AbstractContextManager[Any]:
        assert all(type(batch) is ar.Batch for batch in inputs) and len(inputs) > 0
        return self.device.selected(stream)

    def run(self, batches: Sequence[ar.Batch], numbers: Any, outputs: Any) -> None:
        self.device.notes.append("run")
        for batch, (half, scaled) in zip(batches, outputs, strict=True):
            np.divide(batch.arrays[0], 2, out=half)
            np.multiply(batch.arrays[0], numbers[0][0], out=scaled)


def halves(device: Device) -> Halves:
    operands = (("x", "real"), ("y", "real"))
    return Halves("halves", operands, (("rho", "positive"),), lambda rho: (rho,), ("real",) * 2, ((), ()), device)


def at(value: Any) -> int:
    return ar.address(exchange.view("value", value)[0])


@pytest.mark.parametrize("make", [np.ones, torch.ones])
def test_a_map_allocates_and_runs_on_the_device_and_the_stream_of_the_call(make: Any) -> None:
    device, given = Device(), (make(3), make(3))
    library = torch if make is torch.ones else None
    results = halves(device)(given, (4.0,), None, stream="seven")
    assert device.notes == [("enter", "seven"), "allocate", "allocate", "run", "leave"]
    assert device.libraries == [library] * 2 and [type(r) for r in results] == [type(given[0])] * 2
    assert results[0].tolist() == [0.5] * 3 and results[1].tolist() == [4.0] * 3
    assert device.compared(x=at(given[0]), y=at(given[1]))
    device.notes.clear()
    slots = ((given[0], make(3)), (given[1], make(3)))
    found = halves(device).slotwise(("a", "b"), (("p", slots[0]), ("q", slots[1])), (4.0,), None, stream="eight")
    assert device.notes == [("enter", "eight"), *["allocate"] * 4, "run", "leave"]
    assert device.libraries[2:] == [library] * 4 and found[1][1].tolist() == [4.0] * 3
    assert device.compared(**{f"{p}.{s}": at(slots[i][j]) for i, p in enumerate("pq") for j, s in enumerate("ab")})


def test_outputs_are_in_one_place_with_the_inputs() -> None:
    device, given, out = Device(), (np.ones(3), np.ones(3)), (np.ones(3), np.ones(3))
    halves(device)(given, (4.0,), out)
    places = {"x": at(given[0]), "y": at(given[1]), "out[0]": at(out[0]), "out[1]": at(out[1])}
    assert device.compared(**places) and not device.libraries
    assert not device.compared(**{"x": at(given[0]), "out[1]": at(out[0])})


def test_a_matrix_function_allocates_for_the_library_of_its_first_input() -> None:
    call = MatrixCall("both", (("mean", "real"), ("precision", "spd")), lambda: None, reduction=False)
    for value, module in ((torch.ones(2), torch), (np.ones(2), None)):
        device = Device()
        views = ar.Views(device)
        members = call.inputs((value, np.eye(2) if module is None else torch.eye(2)), None, views)
        assert [o.shape for o in call.outputs(members, None, views)] == [(2,), (2, 2)]
        assert device.libraries == [module] * 2
        assert set(device.placed[0]) == {"mean", "precision"} and device.placed[0]["mean"] == at(value)


@dataclass(frozen=True)
class Sweep(SweepCall):
    """The checks of a step of IVON on some device."""

    device: Device

    def memory(self) -> ar.Memory:
        return self.device


def test_a_sweep_compares_operands_normals_and_outputs_and_allocates_for_its_library() -> None:
    kernel = ivon._SAMPLE
    fields = (kernel.operands, kernel.normals, kernel.scalars, kernel.uniforms, kernel.results)
    for make, module in ((np.ones, None), (torch.ones, torch)):
        device = Device()
        sweep = Sweep(kernel.name, *fields, device)
        mean, precision, noise, out = (make(4) for _ in range(4))
        sweep.check((mean, precision), (2.0,), None, [None], [noise], None)
        assert device.libraries == [module] and device.compared(mean=at(mean), precision=at(precision), noise=at(noise))
        sweep.check((mean, precision), (2.0,), None, [None], [noise], (mean,))  # a result may replace its operand
        with pytest.raises(
            ValueError, match=r"^out\[0\]: expected memory of its own or exactly an input's of the same"
        ):
            sweep.check((mean, precision), (2.0,), None, [None], [noise], (precision,))
        again = Device()
        Sweep(kernel.name, *fields, again).check((mean, precision), (2.0,), 1, [3], [noise], (out,))
        assert again.compared(**{"mean": at(mean), "noise": at(noise), "out[0]": at(out)}) and not again.libraries


class Foreign:
    """An array of a library with DLPack, without a dtype, whose export fails."""

    device = "cpu"

    def __array_namespace__(self) -> Any:
        return np

    def __dlpack__(self, **_: Any) -> Any:
        raise BufferError("no such type")

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


def test_an_array_that_names_no_device_is_in_cpu_memory() -> None:
    class Plain(Foreign):
        """A float64 array of one element."""

        def __getattribute__(self, name: str) -> Any:
            if name == "device":
                raise AttributeError(name)
            return super().__getattribute__(name)

        def __dlpack__(self, **options: Any) -> Any:
            return np.full(1, 3.0).__dlpack__(**options)

    found = badmm_kernels.load("diagonal_gaussian").natural_from_standard(Plain(), np.ones(1))
    assert [float(slot[0]) for slot in found] == [3.0, 1.0]


class Lost:
    """An array with DLPack of a library that cannot be found."""

    device, __dlpack__ = "cpu", Foreign.__dlpack__


def test_an_export_that_fails_is_told_with_the_dtype_or_with_the_librarys_words() -> None:
    ns, value = badmm_kernels.load("diagonal_gaussian"), Foreign()
    with pytest.raises(TypeError, match=r"^mean: expected dtype float32 or float64, got no such type$"):
        ns.natural_from_standard(value, np.ones(1))
    with pytest.raises(TypeError, match=r"^precision: expected an array whose library has from_dlpack, got Lost$"):
        ns.natural_from_standard(np.ones(1), Lost())
    value.dtype = "int3"  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=r"^mean: expected dtype float32 or float64, got int3$"):
        ns.natural_from_standard(value, np.ones(1))


@pytest.mark.parametrize(
    ("domain", "inside", "outside"),
    [
        ("real", [-2.0, 0.0, 2.0], ["nan", "inf", "-inf"]),
        ("positive", [1e-300, 0.5, 2.0], ["0.0", "-0.5", "inf", "nan"]),
        ("negative", [-1e-300, -0.5, -2.0], ["0.0", "0.5", "-inf", "nan"]),
    ],
)
def test_the_first_value_outside_a_domain_is_named_by_value_and_index(
    domain: str, inside: list[float], outside: list[str]
) -> None:
    ar.refuse("x", domain, np.array(inside))
    assert ar.first_outside(np.array(inside), domain) is None
    for text in outside:
        value = float(text)
        expected = domain if np.isfinite(value) else "finite"
        for shape, index in (((6,), "4"), ((3, 2), r"\(2, 0\)")):
            array = np.array([*inside, inside[0], value, value]).reshape(shape)
            with pytest.raises(ValueError, match=rf"^x: expected {expected}, got {text} at index {index}$"):
                ar.refuse("x", domain, array)
            assert ar.first_outside(array, domain) == 4

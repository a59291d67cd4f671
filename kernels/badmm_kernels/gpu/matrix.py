"""Calls of the full Gaussian's functions on a GPU: stacks of vectors and matrices, and checks that do not wait."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from badmm_kernels.face import arrays as ar
from badmm_kernels.face.calls import MatrixCall
from badmm_kernels.gpu import linalg, status
from badmm_kernels.gpu.device import current
from badmm_kernels.gpu.launch import EntryPoint, Slot, launch
from badmm_kernels.gpu.runtime import DOUBLE, PARTIAL_SUMS, total

REPORT = EntryPoint("common", "report", "map", packs=False)
Explain = Callable[[status.Failure], None]


@dataclass(frozen=True)
class FunctionKernel:
    """A scalar function of the header, applied to every element of a float64 array."""

    name: str
    source: str

    def __call__(self, values: Any) -> Any:
        """Return the function's values; no domain is tested."""
        device = current()
        address, whole = device.memory.address, device.memory.xp.ascontiguousarray(values)
        result = device.memory.xp.empty_like(whole)
        slot = Slot([address(whole)], [whole.size], [address(result)], 1, whole.size)
        launch(device, EntryPoint(self.source, self.name, "map"), [slot], DOUBLE, (), 0)
        return result


@dataclass
class MatrixChecks:
    """The checks of one call; the error of an earlier check takes precedence."""

    names: list[str]
    shapes: list[tuple[int, ...]]
    lead: tuple[int, ...]
    stacked: frozenset[str]
    explanations: list[Explain] = field(default_factory=list)
    number: int = 0

    def explain(self, failure: status.Failure) -> None:
        """Raise the error of the check that failed."""
        self.explanations[failure.operand](failure)

    def report(self, found: Any, values: Any, explain: Explain) -> None:
        """Record the smallest index >= 0 in `found` with its two values; `explain` raises its error."""
        device = current()
        xp, address = device.memory.xp, device.memory.address
        found = xp.ascontiguousarray(found, dtype="int64").reshape(-1)
        values = xp.ascontiguousarray(values, dtype="float64").reshape(-1, 2)
        slot = Slot([address(found), address(values)], [], [], 1, found.size)
        launch(device, REPORT, [slot], DOUBLE, [len(self.explanations)], self.number)
        self.explanations.append(explain)

    def finite(self, k: int, array: Any) -> None:
        """Check that all numbers of argument k are finite."""
        xp, name, shape, dtype = current().memory.xp, self.names[k], self.shapes[k], array.dtype
        flat = array.reshape(-1)
        wrong = ~xp.isfinite(flat)
        at = wrong.argmax()
        value = flat.take(at)

        def explain(failure: status.Failure) -> None:
            ar.refuse_value(name, "real", dtype.type(failure.values[0]), ar.where(failure.index, shape))

        self.report(xp.where(wrong.any(), at, -1), xp.stack([value, value]), explain)

    def symmetric(self, k: int, array: Any) -> None:
        """Check that argument k is symmetric to 8 d ulp of its largest entry, as on a CPU."""
        xp, name, shape, dtype = current().memory.xp, self.names[k], self.shapes[k], array.dtype
        flipped = xp.swapaxes(array, -1, -2)
        scale = xp.abs(array).max(axis=(-1, -2), keepdims=True)
        excess = (xp.abs(array - flipped) - 8 * array.shape[-1] * xp.finfo(dtype).eps * scale).reshape(-1)
        at = excess.argmax()
        pair = [array.reshape(-1).take(at), xp.ascontiguousarray(flipped).reshape(-1).take(at)]

        def explain(failure: status.Failure) -> None:
            values = " and ".join(str(dtype.type(v)) for v in failure.values[:2])
            at = ar.where(failure.index, shape)
            raise ValueError(f"{name}: expected a symmetric matrix, got {values} at index {at} and its mirror")

        self.report(xp.where(excess.take(at) > 0, at, -1), xp.stack(pair), explain)

    def factor(self, argument: str, expected: str, orders: Any) -> None:
        """Check that every member has a Cholesky factor; `orders`: see `linalg.CheckRecorder.factor`."""
        xp = current().memory.xp

        def explain(failure: status.Failure) -> None:
            index = np.unravel_index(failure.index, self.lead) if self.lead else ()
            at = f"{argument}{[int(i) for i in index]}" if argument in self.stacked and self.lead else argument
            order = int(failure.values[0])
            raise ValueError(f"{at}: expected {expected}, got a leading minor of order {order} that is not positive")

        members = xp.where(orders > 0, xp.arange(orders.size), -1)
        self.report(members, xp.stack([orders, orders], axis=-1), explain)

    def result(self, name: str, array: Any) -> None:
        """Check that a result is finite."""
        xp, dtype = current().memory.xp, array.dtype

        def explain(_failure: status.Failure) -> None:
            raise ValueError(f"{name}: the result overflows {dtype}")

        self.report(xp.where(xp.isfinite(array).all(), -1, 0), xp.zeros(2), explain)


@dataclass(frozen=True)
class MatrixKernel(MatrixCall):
    """A function of vectors and matrices in stacked calls of linalg.py."""

    def __call__(self, values: Sequence[Any], _scalars: Sequence[Any], option: Any, stream: Any = None) -> Any:
        """Run the function; `option` is `out` for a map and `axis` for a reduction."""
        device = current()
        views = ar.Views(device.memory)
        member = self.inputs(values, option, views)
        with device.on(member.libraries, member.arrays, stream):
            outputs = self.outputs(member, option, views)
            if math.prod(member.lead) == 0:
                return self._empty_result(member, outputs, option)
            checks, results = self._compute(member)
            if self.reduction:
                return self._sums(member, results, option, checks.number)
            for out, part in zip(outputs, results, strict=True):
                whole = device.memory.xp.broadcast_to(part, (math.prod(member.lead), *part.shape[1:]))
                out[...] = whole.reshape(out.shape)
                checks.result(self.name, out)
            return member.library.wrap(outputs, option)

    def _compute(self, member: ar.Members) -> tuple[MatrixChecks, Any]:
        """Check the inputs and run the function on flat stacks; a shared input is a stack of one."""
        xp = current().memory.xp
        ranks = zip(self.names, member.arrays, member.ranks, strict=True)
        stacked = frozenset(n for n, a, rank in ranks if a.ndim > rank)
        checks = MatrixChecks(self.names, [a.shape for a in member.arrays], member.lead, stacked)
        checks.number = status.register(self.name, checks.explain)
        stacks = []
        for k, ((_, domain), array, rank) in enumerate(zip(self.operands, member.arrays, member.ranks, strict=True)):
            stack = xp.ascontiguousarray(array).reshape(-1, *array.shape[array.ndim - rank :])
            checks.finite(k, stack)
            if domain in ("spd", "symmetric"):
                checks.symmetric(k, stack)
            stacks.append(stack)
        token = linalg.checks.set(checks)
        try:
            return checks, self.one(*stacks)
        finally:
            linalg.checks.reset(token)

    def _empty_result(self, member: ar.Members, outputs: list[Any], option: Any) -> Any:
        """Return the result of a call without members."""
        if not self.reduction:
            return member.library.wrap(outputs, option)
        empty = current().memory.empty(member.library, member.lead, DOUBLE)
        return 0.0 if option is None else member.library.wrap([empty], None)[0]

    def _sums(self, member: ar.Members, values: Any, axis: int | None, number: int) -> Any:
        """Return one value per member on the device, or their sum on the host."""
        device, count = current(), math.prod(member.lead)
        xp = device.memory.xp
        whole = xp.ascontiguousarray(xp.broadcast_to(values, (count,)), dtype=DOUBLE)
        if axis is None:
            return total(PARTIAL_SUMS, Slot([device.memory.address(whole)], [count], [], 1, count), DOUBLE, (), number)
        result = device.memory.empty(member.library, member.lead, DOUBLE)
        result[...] = whole.reshape(member.lead)
        return member.library.wrap([result], None)[0]

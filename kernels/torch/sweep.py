"""What stands between a caller's tensors and an optimizer's torch functions: checks, rows and their scalars, normals.

The same arguments, results and errors as `kernels.cpu.sweep`. float32 products are fused in float64, so that they
differ from the compiled kernels by double rounding alone; float64 ones are not fused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kernels import arrays as ar
from kernels import rows

__all__ = ["Generator", "NoiseKernel", "SweepKernel", "fma", "pair", "shift", "word"]

TYPES: dict[torch.dtype, Any] = {torch.float32: np.float32, torch.float64: np.float64}


def fma(a: Any, b: Any, c: Any) -> Any:
    """a·b + c."""
    single = any(isinstance(x, Tensor) and x.dtype == torch.float32 for x in (a, b, c))
    if not single:
        return a * b + c
    wide = [x.double() if isinstance(x, Tensor) else x for x in (a, b, c)]
    return (wide[0] * wide[1] + wide[2]).float()


def word(value: int, width: int = 64) -> int:
    """An unsigned literal as torch's signed integers hold it."""
    return value - (1 << width) if value >> (width - 1) else value


def shift(value: Tensor, by: int) -> Tensor:
    """A logical shift to the right of torch's signed integers."""
    width = 32 if value.dtype == torch.int32 else 64
    return (value >> by) & ((1 << (width - by)) - 1)


def pair(name: str, value: Any) -> Sequence[Any]:
    """A tuple argument of two slots, checked."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ValueError(f"{name}: expected a tuple of 2 arrays (precision_mean, precision), got {value!r}")
    return value


@dataclass(frozen=True)
class Generator:
    """Normals of blocks: (seed, step, block) as words to one tensor a number, in either precision."""

    lanes: int
    single: Callable[..., tuple[Tensor, ...]]
    double: Callable[..., tuple[Tensor, ...]]

    def fill(self, seed: Any, step: Any, like: Tensor) -> Tensor:
        """Normals (rows, width) at a row's seed and step."""
        count, width = like.shape
        draw, numbers = (self.single, 4) if like.dtype == torch.float32 else (self.double, 2)
        blocks = -(-width // (numbers * self.lanes)) * self.lanes
        block = torch.arange(blocks, device=like.device).view(1, -1)
        columns = []
        for name, value in (("seed", seed), ("step", step)):
            given = rows.integer(name, value, count)
            words = [word(x) for x in (given if isinstance(given, list) else [given] * count)]
            columns.append(torch.tensor(words, dtype=torch.int64, device=like.device).view(-1, 1))
        drawn = torch.stack([x.expand(count, blocks) for x in draw(*columns, block)], dim=1)
        tiles = drawn.view(count, numbers, -1, self.lanes).transpose(1, 2)
        return tiles.reshape(count, -1)[:, :width]


def _tensor(name: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a torch tensor of float32 or float64, got {type(value).__name__}")
    if value.dtype not in TYPES:
        raise TypeError(f"{name}: expected dtype float32 or float64, got {value.dtype}")
    if not value.is_contiguous():
        raise ValueError(f"{name}: expected a C-contiguous array, got strides {value.stride()}")
    return value


def _refuse(name: str, domain: str, value: Tensor) -> None:
    inside = value.isfinite().all() & ((value > 0).all() if domain == "positive" else torch.tensor(True))
    if not bool(inside):
        ar.refuse(name, domain, value.detach().cpu().numpy())


@dataclass(frozen=True)
class SweepKernel:
    """One pass, as `kernels.cpu.sweep.SweepKernel`; `body` maps tensors (rows, width) to the results."""

    name: str
    operands: tuple[tuple[str, str, bool], ...]
    normals: tuple[tuple[str, str, bool], ...]
    scalars: tuple[tuple[str, str], ...]
    uniforms: Callable[..., tuple[Any, ...]]
    results: tuple[tuple[str, str, str], ...]
    body: Callable[..., tuple[Tensor, ...]]
    generator: Generator

    def __call__(
        self,
        values: Sequence[Any],
        scalars: Sequence[Any],
        seed: Any,
        steps: Sequence[Any],
        noise: Sequence[Any],
        out: Any,
    ) -> tuple[Any, ...]:
        """Run it; returns the tuple of results."""
        with torch.no_grad():
            named = list(zip(self.operands, values, strict=True))
            plain = [_tensor(name, value) for (name, _, scalar), value in named if not scalar]
            whole = max(plain, key=lambda tensor: tensor.dim())
            flat = whole.reshape(rows.extent(tuple(whole.shape)))
            operands = [self._operand(name, value, whole, flat, scalar) for (name, _, scalar), value in named]
            normals = self._normals(seed, steps, noise, whole, flat)
            found = self.body(*self._uniforms(scalars, flat), *operands, *normals)
            for (name, domain, _), tensor in zip(self.operands, operands, strict=True):
                _refuse(name, domain, tensor)
            for (name, domain, replaced), tensor in zip(self.results, found, strict=True):
                _refuse(f"{replaced or self.name}: a new {name}", domain, tensor)
            shaped = [tensor.expand(flat.shape).reshape(whole.shape) for tensor in found]
            if out is None:
                return tuple(shaped)
            ar.check_out_tuple(out, len(shaped))
            for number, (target, tensor) in enumerate(zip(out, shaped, strict=True)):
                _same(f"out[{number}]", _tensor(f"out[{number}]", target), whole, (tuple(whole.shape),))
                target.copy_(tensor)
            return tuple(out)

    def _operand(self, name: str, value: Any, whole: Tensor, flat: Tensor, scalar: bool) -> Tensor:
        if scalar and isinstance(value, (int, float)) and not isinstance(value, bool):
            return flat.new_tensor(value).view(1, 1)
        shape, count = tuple(whole.shape), len(flat)
        tensor = _tensor(name, value)
        _same(name, tensor, whole, (shape, shape[1:], (count, 1)) if scalar else (shape, shape[1:]))
        if tuple(tensor.shape) == shape:
            return tensor.reshape(flat.shape)
        return tensor.reshape(1, -1) if tuple(tensor.shape) == shape[1:] else tensor

    def _normals(self, seed: Any, steps: Sequence[Any], noise: Sequence[Any], whole: Tensor, flat: Tensor) -> Any:
        """Given ones, or drawn ones, which a given array keeps once all are there."""
        found, kept = [], []
        for (argument, step_name, keeps), step, value in zip(self.normals, steps, noise, strict=True):
            shape = tuple(whole.shape)
            if step is None:
                if value is None:
                    raise ValueError(f"{argument}: expected an array where {step_name} is None, got None")
                _same(argument, _tensor(argument, value), whole, (shape, shape[1:]))
                found.append(value.reshape(flat.shape if tuple(value.shape) == shape else (1, -1)))
                continue
            if value is not None and not keeps:
                raise ValueError(f"{argument}: expected None beside a {step_name} to draw at, got an array")
            if seed is None:
                raise ValueError("seed: expected an integer beside a step to draw at, got None")
            found.append(self.generator.fill(seed, step, flat))
            if value is not None:
                _same(argument, _tensor(argument, value), whole, (shape,))
                kept.append((value, len(found) - 1))
        if kept:  # one array may hold the normals read and receive those drawn
            found = [normal.clone() for normal in found]
        for value, place in kept:
            value.copy_(found[place].reshape(value.shape))
        return found

    def _uniforms(self, scalars: Sequence[Any], flat: Tensor) -> list[Tensor]:
        """A row's coefficients, formed in float64 and rounded once, (rows, 1) each."""
        count = len(flat)
        given = [rows.scalar(n, domain, v, count) for (n, domain), v in zip(self.scalars, scalars, strict=True)]
        if any(isinstance(x, list) for x in given):
            given = [np.array(x) for x in given]  # type: ignore[misc]
        exact = rows.table(self.uniforms(*given), count, np.float64)
        table = torch.from_numpy(exact.astype(TYPES[flat.dtype])).to(flat.device).reshape(count, -1)
        return [column.reshape(-1, 1) for column in table.T]


def _same(name: str, tensor: Tensor, whole: Tensor, shapes: Sequence[tuple[int, ...]]) -> None:
    if tuple(tensor.shape) not in shapes:
        raise ValueError(f"{name}: expected shape {' or '.join(map(str, shapes))}, got {tuple(tensor.shape)}")
    if (tensor.dtype, tensor.device) != (whole.dtype, whole.device):
        raise TypeError(f"{name}: expected {whole.dtype} on {whole.device}, got {tensor.dtype} on {tensor.device}")


@dataclass(frozen=True)
class NoiseKernel:
    """Normals alone."""

    generator: Generator

    def __call__(self, seed: Any, step: Any, out: Any) -> Any:
        """Fill `out` and return it."""
        tensor = _tensor("out", out)
        count, width = rows.extent(tuple(tensor.shape))
        flat = tensor.view(count, width)
        flat.copy_(self.generator.fill(seed, step, flat))
        return out

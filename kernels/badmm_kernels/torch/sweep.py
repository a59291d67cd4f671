"""Calls of an optimizer's torch functions: scalars per row, normals, domains.

float32 products and sums are computed in float64, so that they differ from the fused ones of the compiled kernels by
double rounding alone; those in float64 are not fused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from badmm_kernels.face import arrays as ar, rows
from badmm_kernels.face.outputs import checked_out
from badmm_kernels.face.sweeps import NormalSource, SweepCall, pair
from badmm_kernels.torch.arrays import TENSORS, View

__all__ = ["Generator", "NoiseKernel", "SweepKernel", "fma", "pair", "shift"]


def fma(a: Any, b: Any, c: Any) -> Any:
    """Return a·b + c, computed in float64 if an argument is a float32 tensor."""
    single = any(isinstance(x, Tensor) and x.dtype == torch.float32 for x in (a, b, c))
    if not single:
        return a * b + c
    wide = [x.double() if isinstance(x, Tensor) else x for x in (a, b, c)]
    return (wide[0] * wide[1] + wide[2]).float()


def shift(value: Tensor, by: int) -> Tensor:
    """Return the logical right shift of a signed integer tensor, which torch lacks."""
    width = 32 if value.dtype == torch.int32 else 64
    return (value >> by) & ((1 << (width - by)) - 1)


def columns(table: ar.Array, count: int, device: torch.device) -> list[Tensor]:
    """Return the columns of a table with one row per client, (count, 1) each."""
    return list(torch.from_numpy(table.reshape(count, -1)).to(device).unsqueeze(-1).unbind(1))


@dataclass(frozen=True)
class Generator:
    """Normals of blocks: functions of the words (seed, step, block) that return one tensor per normal of a block."""

    lanes: int
    single: Callable[..., tuple[Tensor, ...]]
    double: Callable[..., tuple[Tensor, ...]]

    def normals(self, seed: Tensor, step: Tensor, like: Tensor) -> Tensor:
        """Return normals (rows, width) from the seed and step of each row, (rows, 1) each."""
        count, width = like.shape
        draw, numbers = (self.single, 4) if like.dtype == torch.float32 else (self.double, 2)
        blocks = -(-width // (numbers * self.lanes)) * self.lanes
        block = torch.arange(blocks, device=like.device).view(1, -1)
        drawn = torch.stack([x.expand(count, blocks) for x in draw(seed, step, block)], dim=1)
        tiles = drawn.view(count, numbers, -1, self.lanes).transpose(1, 2)
        return tiles.reshape(count, -1)[:, :width]


def _is_inside(domain: str, value: Tensor) -> bool:
    inside = value.isfinite()
    return bool((inside & (value > 0) if domain == "positive" else inside).all())


@dataclass(frozen=True)
class SweepKernel(SweepCall):
    """A sweep as torch operations; `body` maps tensors (rows, width), (1, width) or (rows, 1) to the results."""

    body: Callable[..., tuple[Tensor, ...]]
    generator: Generator

    def memory(self) -> ar.Memory:
        """Return the memory of torch tensors."""
        return TENSORS

    def number(self, value: Any) -> Any:
        """Return the number as a tensor of one element."""
        return View(torch.from_numpy(np.array([value])))

    @torch.no_grad()
    def __call__(
        self,
        values: Sequence[Any],
        scalars: Sequence[Any],
        seed: Any,
        steps: Sequence[Any],
        noise: Sequence[Any],
        out: Any,
    ) -> tuple[Any, ...]:
        """Run the sweep; return the tuple of results. Domains are tested before anything is overwritten."""
        call = self.check(values, scalars, seed, steps, noise, out)
        batch, normals, count, width = call.batch, call.normals, call.row_count, call.width
        if count * width:
            whole: Any = max(batch.arrays, key=lambda array: len(array.shape))
            flat = whole.tensor.view(count, width)
            read = self._normals(batch, normals, call.address, flat)
            operands = [_rows(array, batch, flat) for array in call.arrays]
            found = self.body(*columns(call.uniforms, count, flat.device), *operands, *read)
            self._refuse(batch, call.arrays, normals, found)
            for normal, drawn in zip(normals, read, strict=True):
                if normal.kept:
                    _store(normal.array, drawn)
            for output, result in zip(call.outputs, found, strict=True):
                _store(output, result.expand(count, width))
        return batch.library.wrap(call.outputs, out)

    def _normals(
        self, batch: ar.Batch, normals: Sequence[NormalSource], address: ar.Array, flat: Tensor
    ) -> list[Tensor]:
        """Return the normals, read or drawn."""
        seed, *steps = columns(address.view(np.int64), len(flat), flat.device)
        return [
            self.generator.normals(seed, step, flat) if normal.drawn else _rows(normal.array, batch, flat)
            for normal, step in zip(normals, steps, strict=True)
        ]

    def _refuse(
        self, batch: ar.Batch, arrays: Sequence[Any], normals: Sequence[NormalSource], found: Sequence[Tensor]
    ) -> None:
        """Raise the error of the first input, else of the first result, outside its domain."""
        inputs = [(name, domain, array) for (name, domain, _), array in zip(self.operands, arrays, strict=True)]
        inputs += [(n.name, "real", n.array) for n in normals if not n.drawn]
        for name, domain, array in inputs:
            if not _is_inside(domain, array.tensor):
                ar.refuse(name, domain, array.host())
        for k in self.in_order():
            if not _is_inside(self.results[k][1], found[k]):
                result = found[k].expand(rows.extent(batch.shape)).cpu().numpy().reshape(-1)
                index = ar.first_outside(result, self.results[k][1])
                if index is not None:
                    self.refuse_result(k, result[index], ar.where(index, batch.shape), overwritten=False)


def _rows(array: Any, batch: ar.Batch, flat: Tensor) -> Tensor:
    """Return an input as (rows, width), or as (1, width) or (rows, 1) if it is shared along an axis."""
    tensor: Tensor = array.tensor.to(flat.device)
    if array.shape == batch.shape:
        return tensor.view(flat.shape)
    return tensor.view(-1, 1) if rows.is_alone(array, batch) else tensor.view(1, -1)


def _store(target: Any, values: Tensor) -> None:
    target.tensor.copy_(values.reshape(target.shape))


@dataclass(frozen=True)
class NoiseKernel:
    """The normals of a sweep without the sweep."""

    generator: Generator

    @torch.no_grad()
    def __call__(self, seed: Any, step: Any, out: Any) -> Any:
        """Fill `out` with normals and return it."""
        views = ar.Views(TENSORS)
        array: Any = views.view("out", out)[0]
        array = checked_out("out", out, array.shape, array.dtype, views)
        count, width = rows.extent(array.shape)
        words = rows.table([rows.integer("seed", seed, count), rows.integer("step", step, count)], count, np.uint64)
        if count * width:
            flat = array.tensor.view(count, width)
            seeds, steps = columns(words.view(np.int64), count, flat.device)
            flat.copy_(self.generator.normals(seeds, steps, flat))
        return out

"""Which kernels an optimizer on torch tensors runs on."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

import badmm_kernels
from badmm_kernels.face.exchange import view

if TYPE_CHECKING:
    import torch
    from torch import Tensor

BACKENDS = ("auto", "kernels", "torch")
Scalars = tuple[float, ...]  # ess, lr, β₁, β₂, debias, clip
Address = tuple[int, int]  # of normals: seed, number of the draw


def load(name: str, device: torch.device, backend: str = "auto") -> Any:
    """The optimizer's namespace for tensors of a device; a GPU's kernels run on torch's current stream.

    backend: "kernels", compiled by Numba or CuPy; "torch", the same steps as torch operations; "auto": the first where
    its compiler is installed. ValueError for another.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(BACKENDS)}, got {backend!r}")
    compiler = "cupy" if device.type == "cuda" else "numba"
    if backend == "torch" or (backend == "auto" and find_spec(compiler) is None):
        return importlib.import_module(f"badmm_kernels.torch.{name}")
    return badmm_kernels.load(name, "gpu" if device.type == "cuda" else "cpu")


class Sweeps:
    """The optimizer's calls of every step, on flat arrays that it made and checked itself.

    On a CPU they go around the checks of a public call, which take 30 to 50 µs of it, and the arrays are NumPy's.
    """

    def __init__(self, namespace: Any) -> None:
        self.namespace = namespace
        self._trusted = getattr(namespace, "__name__", "").endswith("cpu.ivon")
        self._known: dict[str, tuple[Any, Any]] = {}

    def array(self, tensor: Tensor) -> Any:
        """A tensor's memory in the form that the calls take."""
        return view("tensor", tensor)[0] if self._trusted else tensor

    def sampler(self, mean: Any, precision: Any, noise: Any) -> Callable[[Any, float], None]:
        """A call (theta, ess) that writes m + ε/√(ess s) into `theta`."""
        if not self._trusted:
            return lambda theta, ess: self.namespace.sample(mean, precision, ess, noise=noise, out=(theta,))
        sweep = self.namespace._SAMPLE
        sources = sweep.sources((mean, precision), noise)
        return lambda theta, ess: sweep.trusted(sources, self._uniforms(sweep, (ess,), mean), (theta,))

    def drawer(self, mean: Any, precision: Any, noise: Any) -> Callable[[Any, float, Address], None]:
        """The same of normals that the call draws at a seed and a counter, and keeps in `noise`."""
        if not self._trusted:
            sample = self.namespace.sample
            return lambda theta, ess, at: sample(
                mean, precision, ess, seed=at[0], step=at[1], noise=noise, out=(theta,)
            )
        sweep = self.namespace._SAMPLE
        sources = sweep.sources((mean, precision), noise, drawn=True)

        def draw(theta: Any, ess: float, at: Address) -> None:
            sweep.trusted(sources, self._uniforms(sweep, (ess,), mean), (theta,), np.array(at, np.uint64))

        return draw

    def updater(self, state: Sequence[Any], cavity: Sequence[Any], noise: Any) -> Callable[[Any, Scalars], None]:
        """A call (gradient, scalars) of the step from one sample, in place in (mean, precision, momentum)."""
        if not self._trusted:
            update = self.namespace.update
            return lambda gradient, scalars: update(gradient, *state, cavity, *scalars, noise=noise, out=state)
        sweep = self.namespace._UPDATE
        sources = sweep.sources((noise, *state, *cavity), noise)

        def step(gradient: Any, scalars: Scalars) -> None:
            sources[0] = gradient
            sweep.trusted(sources, self._uniforms(sweep, scalars, noise), state)

        return step

    def _uniforms(self, sweep: Any, scalars: Scalars, like: Any) -> Any:
        """The scalars as loops take them; they change once per step at most."""
        known = self._known.get(sweep.name)
        if known is None or known[0] != scalars:
            known = self._known[sweep.name] = (scalars, sweep.coefficients(scalars, like.dtype, 1)[1])
        return known[1]

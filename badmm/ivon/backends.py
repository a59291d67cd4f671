"""Which kernels an optimizer on torch tensors runs on."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import badmm_kernels
from badmm_kernels.face.exchange import view

if TYPE_CHECKING:
    import torch
    from torch import Tensor

BACKENDS = ("auto", "kernels", "torch")


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
        self._known: dict[Any, Any] = {}

    def array(self, tensor: Tensor) -> Any:
        """A tensor's memory in the form that the calls take."""
        return view("tensor", tensor)[0] if self._trusted else tensor

    def sample(self, mean: Any, precision: Any, noise: Any, theta: Any, ess: float) -> None:
        """θ = m + ε/√(ess s) into `theta`."""
        if self._trusted:
            self._run("_SAMPLE", (mean, precision), (ess,), noise, (theta,))
        else:
            self.namespace.sample(mean, precision, ess, noise=noise, out=(theta,))

    def update(self, gradient: Any, state: Sequence[Any], tilt: Sequence[Any], noise: Any, scalars: Any) -> None:
        """The step from one sample, in place in (mean, precision, momentum); scalars: ess, lr, β₁, β₂, debias, clip."""
        if self._trusted:
            self._run("_UPDATE", (gradient, *state, *tilt), scalars, noise, state)
        else:
            self.namespace.update(gradient, *state, tilt, *scalars, noise=noise, out=state)

    def _run(
        self, name: str, values: Sequence[Any], scalars: tuple[float, ...], noise: Any, out: Sequence[Any]
    ) -> None:
        sweep, dtype = getattr(self.namespace, name), out[0].dtype
        known = self._known.get(name)
        if known is None or known[0] != scalars:  # they change once per step at most
            known = self._known[name] = (scalars, sweep.coefficients(scalars, dtype, 1)[1])
        sweep.trusted(values, known[1], noise, out)

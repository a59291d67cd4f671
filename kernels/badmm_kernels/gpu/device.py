"""Which device is in use: CuPy's, or a test's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from badmm_kernels.gpu.protocol import MISSING, Device

_device: Device | None = None


def current() -> Device:
    """The device in use; CuPy's unless a test put another in its place. Raises RuntimeError where there is none."""
    global _device
    if _device is None:
        try:
            from badmm_kernels.gpu.cupy_device import CuPyDevice
        except ImportError as error:
            raise RuntimeError(MISSING.format(error=error)) from error
        _device = CuPyDevice()
    return _device


@contextmanager
def using(device: Device) -> Iterator[Device]:
    """Another device in the place of CuPy's."""
    global _device
    before, _device = _device, device
    try:
        yield device
    finally:
        _device = before

"""The device in use: CuPy's, or one that a test supplies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from badmm_kernels.gpu.protocol import MISSING, Device

_device: Device | None = None


def current() -> Device:
    """Return the device in use, CuPy's by default; raise RuntimeError if there is none."""
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
    """Within the context, use another device."""
    global _device
    before, _device = _device, device
    try:
        yield device
    finally:
        _device = before

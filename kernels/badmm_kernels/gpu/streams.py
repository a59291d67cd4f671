"""The stream of a call, and its order relative to the streams on which the arrays are ready."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import cupy
import numpy as np

from badmm_kernels.face import exchange

LEGACY = 1  # CUDA's other name for the default stream, whose handle is 0
# Within a call, the function that makes it wait for an array viewed after the call has begun: one of `out`.
late_arrays: ContextVar[Callable[[Any, exchange.Library], None] | None] = ContextVar("late_arrays", default=None)


def stream_handle(stream: Any) -> int:
    """Return a stream as an integer handle."""
    if not isinstance(stream, (bool, str)):
        for number in (stream, getattr(stream, "ptr", None), getattr(stream, "cuda_stream", None)):
            if isinstance(number, (int, np.integer)) and number >= 0:
                return 0 if int(number) == LEGACY else int(number)
    raise TypeError(
        "stream: expected a CuPy stream, an object with .cuda_stream or .ptr, or an integer handle, "
        f"got {type(stream).__name__}"
    )


class _Handle:
    """A stream handle in the form of the CUDA stream protocol."""

    def __init__(self, handle: int) -> None:
        self.handle = handle

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.handle


def _stream(handle: int) -> Any:
    """Return CuPy's object of a stream handle."""
    current = cupy.cuda.get_current_stream()
    if handle == current.ptr:
        return current
    return cupy.cuda.Stream.from_external(_Handle(handle))


class _Order:
    """The stream of a call, `chosen`, and the other streams on which its arrays are ready."""

    def __init__(self, handle: int, current: int, only_explicit: bool) -> None:
        self.chosen = _stream(handle)
        self._handle, self._current, self._only_explicit = handle, current, only_explicit
        self._others: dict[int, Any] = {}

    def wait_for(self, stream: int | None, explicit: bool) -> None:
        """Make the call wait for a stream; None is CuPy's current one."""
        handle = self._current if stream is None else stream
        if handle == self._handle or handle in self._others or (self._only_explicit and not explicit):
            return
        self._others[handle] = other = _stream(handle)
        self.chosen.wait_event(other.record())

    def wait_for_late(self, array: Any, library: Any) -> None:
        """Make the call wait for an array viewed during it; `Memory.check_place` refuses one on another device."""
        if array.device.id != cupy.cuda.runtime.getDevice():
            return
        self.wait_for(library.stream, library.explicit)
        if library.explicit:  # through DLPack it is ready on the call's own stream, but it is read on CuPy's
            self.wait_for(None, False)

    def release(self) -> None:
        """Make the other streams wait for the call, which may have written to their arrays."""
        if self._others:
            done = self.chosen.record()
            for other in self._others.values():
                other.wait_event(done)


@contextmanager
def running(libraries: Sequence[Any], index: int, stream: Any) -> Iterator[None]:
    """Within the context, select a device and a stream: `stream`, else that of the first library, else CuPy's current.

    libraries: those of the inputs (`arrays.Ready`). The call waits, on the device, for arrays that are ready on other
    streams, `out` included, and those streams wait for the call. If `stream` is given, the caller is responsible for
    that order, except for arrays that name their stream.
    """
    with cupy.cuda.Device(index):
        current = cupy.cuda.get_current_stream().ptr
        first = libraries[0]
        home = current if first.explicit or first.stream is None else first.stream
        order = _Order(home if stream is None else stream_handle(stream), current, stream is not None)
        for library in libraries:
            order.wait_for(library.stream, library.explicit)
        token = late_arrays.set(order.wait_for_late)
        try:
            with order.chosen:
                yield
        finally:
            late_arrays.reset(token)
            order.release()

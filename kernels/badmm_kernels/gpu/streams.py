"""The stream that a call runs on, and the order between it and the streams that its arrays are ready on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import cupy
import numpy as np

from badmm_kernels.face import exchange

LEGACY = 1  # CUDA's other name for the default stream, whose handle is 0
# What a call that has begun does with an array that it meets then: one of `out`.
meeting: ContextVar[Callable[[Any, exchange.Library], None] | None] = ContextVar("meeting", default=None)


def stream_handle(stream: Any) -> int:
    """A stream as an integer handle."""
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
    """CuPy's object for a stream handle."""
    current = cupy.cuda.get_current_stream()
    if handle == current.ptr:
        return current
    return cupy.cuda.Stream.from_external(_Handle(handle))


class _Order:
    """The stream that a call runs on, `chosen`, and the others that its arrays are ready on."""

    def __init__(self, handle: int, current: int, only_carried: bool) -> None:
        self.chosen = _stream(handle)
        self._handle, self._current, self._only_carried = handle, current, only_carried
        self._others: dict[int, Any] = {}

    def behind(self, stream: int | None, carried: bool) -> None:
        """The call waits for a stream; None is CuPy's current one."""
        handle = self._current if stream is None else stream
        if handle == self._handle or handle in self._others or (self._only_carried and not carried):
            return
        self._others[handle] = other = _stream(handle)
        self.chosen.wait_event(other.record())

    def meet(self, array: Any, library: Any) -> None:
        """The call waits for an array that it meets late; one on another device will be refused by name."""
        if array.device.id != cupy.cuda.runtime.getDevice():
            return
        self.behind(library.stream, library.carried)
        if library.carried:  # by DLPack it is ready on the call's own stream, but it is read on CuPy's
            self.behind(None, False)

    def release(self) -> None:
        """The other streams wait for the call: what it wrote may be theirs."""
        if self._others:
            done = self.chosen.record()
            for other in self._others.values():
                other.wait_event(done)


@contextmanager
def running(libraries: Sequence[Any], index: int, stream: Any) -> Iterator[None]:
    """A device, and on it the given stream, or that of the first library: torch's current one, else CuPy's.

    libraries: those of the inputs (`arrays.Ready`). Arrays that are ready on other streams, `out` among them, are
    waited for, on the device, and their streams wait for the call. With `stream` given, the caller has ordered them,
    except those that carry a stream themselves.
    """
    with cupy.cuda.Device(index):
        current = cupy.cuda.get_current_stream().ptr
        first = libraries[0]
        home = current if first.carried or first.stream is None else first.stream
        order = _Order(home if stream is None else stream_handle(stream), current, stream is not None)
        for library in libraries:
            order.behind(library.stream, library.carried)
        token = meeting.set(order.meet)
        try:
            with order.chosen:
                yield
        finally:
            meeting.reset(token)
            order.release()

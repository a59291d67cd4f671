"""A GPU namespace for checks that are written for NumPy: it copies arrays to the device and back and raises at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import badmm_kernels
from badmm_kernels.gpu.device import current

WRITTEN = ("out", "noise", "next_noise")  # keywords whose arrays a function may write


class HostArrayNamespace:
    """A family's GPU functions on NumPy arrays; every call waits and raises its own domain error."""

    def __init__(self, namespace: Any) -> None:
        self.namespace = namespace

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.namespace, name)
        return self._function(value) if callable(value) else value

    def _function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            device = current()
            there: dict[int, Any] = {}  # by id, so that an output that is an input is one array on the device, too

            def send(value: Any) -> Any:
                if isinstance(value, (tuple, list)):
                    return type(value)(send(v) for v in value)
                if not isinstance(value, np.ndarray):
                    return value
                return there.setdefault(id(value), device.memory.xp.array(value))

            def fetch(value: Any) -> Any:
                if isinstance(value, tuple):
                    return tuple(fetch(v) for v in value)
                return value if isinstance(value, (float, int)) else np.array(device.read(value))

            def copy_back(value: Any) -> None:
                if isinstance(value, np.ndarray):
                    value[...] = device.read(there[id(value)])
                else:
                    for part in value:
                        copy_back(part)

            result = function(*send(args), **{k: send(v) for k, v in kwargs.items()})
            badmm_kernels.synchronize()
            for name in WRITTEN:
                if kwargs.get(name) is not None:
                    copy_back(kwargs[name])
            return fetch(result) if kwargs.get("out") is None else kwargs["out"]

        return call

"""Anderson acceleration of a fixed-point map (Walker & Ni, SIAM J. Numer. Anal. 2011), one vector at a time."""

from __future__ import annotations

from collections import deque

import numpy as np
from scipy.linalg import lstsq

from badmm.checks import Array


class Anderson:
    """Type-II Anderson mixing with memory: x⁺ = x + f − (ΔX + ΔF) c, c = argmin ‖f − ΔF c‖, f = map(x) − x."""

    def __init__(self, memory: int = 8) -> None:
        self._points: deque[Array] = deque(maxlen=memory)
        self._changes: deque[Array] = deque(maxlen=memory)
        self._last: tuple[Array, Array] | None = None

    def reset(self) -> None:
        """Forget every earlier point."""
        self._points.clear()
        self._changes.clear()
        self._last = None

    def propose(self, x: Array, f: Array) -> Array:
        """The next point, from x, its step f = map(x) − x, and what was proposed before."""
        if self._last is not None:
            self._points.append(x - self._last[0])
            self._changes.append(f - self._last[1])
        self._last = (x, f)
        if not self._points:
            return np.asarray(x + f)
        dx, df = np.stack(self._points, axis=1), np.stack(self._changes, axis=1)
        # columns scaled to length 1 so that the cut-off means linear dependence, not size
        size = np.linalg.norm(df, axis=0)
        size[size == 0] = 1.0
        weights = lstsq(df / size, f, cond=1e-10, lapack_driver="gelsy", check_finite=False)[0] / size
        return np.asarray(x + f - (dx + df) @ weights)

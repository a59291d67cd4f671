"""Anderson acceleration of a fixed-point map (Walker & Ni, SIAM J. Numer. Anal. 2011), one vector at a time."""

from __future__ import annotations

import numpy as np

from badmm.checks import Array

CUT = 1e-13
"""Eigenvalues of the scaled Gram matrix below this are rounding: directions equal to about 3e-7."""
TINY = 1e-100
"""In place of the length of a change that is 0; its square is in the number range."""


class Anderson:
    """Type-II Anderson mixing with memory: x⁺ = x + f − (ΔX + ΔF) c, c = argmin ‖f − ΔF c‖, f = map(x) − x (size,).

    The least squares are solved by their normal equations, scaled to unit columns: vectors have d² entries, and a QR
    of eight of them costs as much as a client's evaluation. The weights need few digits.
    """

    def __init__(self, size: int, memory: int = 8) -> None:
        self.memory, self._count = memory, 0
        self._points, self._changes = np.empty((2, memory, size))
        self._last: tuple[Array, Array] | None = None

    @property
    def remembers(self) -> bool:
        """Whether the last proposal was more than a plain step."""
        return self._count > 0

    def reset(self) -> None:
        """Forget every earlier point."""
        self._count, self._last = 0, None

    def propose(self, x: Array, f: Array) -> Array:
        """The next point, from x, its step f = map(x) − x, and what was proposed before."""
        if self._last is not None:
            row = self._count % self.memory
            np.subtract(x, self._last[0], out=self._points[row])
            np.subtract(f, self._last[1], out=self._changes[row])
            self._count += 1
        self._last = (x, f)
        used = min(self._count, self.memory)
        if not used:
            return np.asarray(x + f)
        dx, df = self._points[:used], self._changes[:used]
        size = np.maximum(np.linalg.norm(df, axis=1), TINY)
        gram, right = (df @ df.T) / np.outer(size, size), df @ f / size
        weights = np.linalg.lstsq(gram, right, rcond=CUT)[0] / size
        return np.asarray(x + f - weights @ dx - weights @ df)

"""Figures as whole files whose bytes repeat from run to run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from badmm.transports.atomic import write_atomic


def save_figure(path: Path, figure: Any, dpi: int = 130) -> None:
    """Write a matplotlib figure as PNG, atomically."""
    write_atomic(path, png(figure, dpi))


def png(figure: Any, dpi: int = 130) -> bytes:
    """Return a matplotlib figure as PNG bytes, equal for equal figures."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()

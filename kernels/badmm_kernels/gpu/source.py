"""Text of the CUDA sources, and the compiler's options."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
INCLUDE = HERE.parent / "include"
OPTIONS = ("--std=c++17", "--fmad=false", f"-I{INCLUDE}", f"-I{HERE}")


@cache
def source_text(name: str) -> str:
    """Return gpu/<name>.cu after a line with a digest of all headers: CuPy's cache of compiled modules compares this
    text alone, so a changed header must change it."""
    included = [*sorted(INCLUDE.glob("badmm/**/*.h")), *sorted(HERE.glob("*.cuh"))]
    digest = hashlib.sha256(b"".join(p.read_bytes() for p in included)).hexdigest()[:16]
    return f"// headers: sha256 {digest}\n{(HERE / f'{name}.cu').read_text(encoding='utf-8')}"

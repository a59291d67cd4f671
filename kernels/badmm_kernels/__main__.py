"""python -m badmm_kernels: print the paths of the header for a C, C++, Fortran or CUDA build.

python -m badmm_kernels --includes      compiler flags: cc $(python -m badmm_kernels --includes) program.c -lm
python -m badmm_kernels --includedir    the folder with badmm_kernels.h, badmm_kernels.c and badmm_kernels.f90
python -m badmm_kernels --cmakedir      cmake -Dbadmm-kernels_DIR=$(python -m badmm_kernels --cmakedir) ...
python -m badmm_kernels --pkgconfigdir  PKG_CONFIG_PATH=$(python -m badmm_kernels --pkgconfigdir) pkg-config ...
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent


def main(argv: list[str] | None = None) -> int:
    """Print one line per requested option; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m badmm_kernels", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--includes", action="store_true", help="flags that let a compiler find the header")
    parser.add_argument("--includedir", action="store_true", help="the folder of the header")
    parser.add_argument("--cmakedir", action="store_true", help="the folder of the CMake package")
    parser.add_argument("--pkgconfigdir", action="store_true", help="the folder of the pkg-config file")
    options = parser.parse_args(argv)
    requested = {
        f"-I{ROOT / 'include'}": options.includes,
        str(ROOT / "include"): options.includedir,
        str(ROOT / "cmake"): options.cmakedir,
        str(ROOT / "pkgconfig"): options.pkgconfigdir,
    }
    if not any(requested.values()):
        parser.print_usage(sys.stderr)
        return 2
    for text, chosen in requested.items():
        if chosen:
            print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

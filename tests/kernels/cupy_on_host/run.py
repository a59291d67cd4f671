"""CuPy on a CUDA whose device is the host: what needs a GPU, on a machine without one.

    python tests/kernels/cupy_on_host/run.py -m pytest -m gpu --require-gpu
    python tests/kernels/cupy_on_host/run.py -m validation --device gpu

CuPy's own code runs unchanged: its arrays, memory pool, streams, compiler cache, launches and linear algebra. Beneath
it stand cuda.cpp for the CUDA runtime and driver, nvrtc.cpp for the compiler and libraries.cpp for cuBLAS, cuSOLVER and
cuRAND. Kernels, CuPy's and ours, are compiled by g++; operations are asynchronous, each stream a thread, each operation
a moment late, and fresh memory is not zero. It shows that calls are right and rightly ordered. It shows nothing of
speed, of NVIDIA's compilers and libraries (CuPy's sums take its own kernels, not CUB's), of what these wait for inside,
or of races between the threads of a block.

CuPy's wheels link the CUDA runtime statically; so its module `runtime` is built from CuPy's source, against cuda.cpp.
What is built, and what is downloaded for it, lies in build/cupy-on-host. Needs g++ and Linux on x86-64.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
CUPY = "14.2.0"  # its sources are compiled here against CUDA 13
HEADERS = ("nvidia-cuda-runtime==13.0.*", "nvidia-cuda-crt==13.0.*", "nvidia-cuda-profiler-api==13.0.*")
PACKAGES = (f"cupy-cuda13x=={CUPY}", "cuda-pathfinder==1.*", *HEADERS)
CYTHON = "cython==3.2.*"
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")
DEVICES = 2
LIBRARIES = ("libcublas.so.13", "libcusolver.so.12", "libcurand.so.10")
REST, GRID = "librest.so", "libgrid.so"
MODULES, PREFIXES = ("runtime", "cublas", "cusolver", "_cusolver", "curand"), ("cuda", "cublas", "cusolver", "curand")
UNUSED = ("libcublasLt.so.13", "libcusparse.so.12", "libnvJitLink.so.13")  # CuPy looks for them beside the others
SOURCES = (*sorted(HERE.glob("*.cpp")), *sorted(HERE.glob("*.h")), HERE.parent / "cuda_on_host.h")
FLAGS = ("-std=c++17", "-O1", "-fPIC", "-shared", "-pthread", "-Wall", "-Werror")
KERNEL_FLAGS = "-w -std=c++17 -U_FORTIFY_SOURCE -O1 -ffp-contract=off -fPIC -pthread"  # device.h's too: they must agree
BUILD_RUNTIME = """
import sys, Cython, numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
include, target = sys.argv[1:]
extension = Extension(
    "cupy_backends.cuda.api.runtime",
    ["cupy_backends/cuda/api/runtime.pyx"],
    language="c++",
    include_dirs=[include, numpy.get_include()],
    define_macros=[("CYTHON_EXTERN_C", 'extern "C"'), ("CUPY_CACHE_KEY", "0")],
    extra_compile_args=["-w", "-O0"],
)
directives = {"binding": False, "c_api_binop_methods": True, "warn.deprecated.IF": False}
constants = {
    "CUPY_USE_CUDA_PYTHON": False,
    "CUPY_CUFFT_STATIC": False,
    "CUPY_CYTHON_VERSION": Cython.__version__,
    "CUPY_CUDA_VERSION": 13000,
    "CUPY_HIP_VERSION": 0,
}
modules = cythonize([extension], language_level=3, compiler_directives=directives, compile_time_env=constants)
setup(name="runtime", packages=[], ext_modules=modules, script_args=["-q", "build_ext", "--build-lib", target])
"""


def run(*command: str | Path, **options: object) -> str:
    """A command's output; what it said, where it fails."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)  # type: ignore[call-overload]
    if done.returncode:
        raise SystemExit(f"{' '.join(str(c) for c in command[:6])} failed:\n{done.stdout}{done.stderr}")
    return str(done.stdout)


def symbols(library: Path, flag: str) -> set[str]:
    """The dynamic symbols that a library wants or has."""
    lines = run("nm", "-D", flag, library).splitlines()
    return {line.split()[-1].split("@")[0] for line in lines if line.strip()}


def libraries(folder: Path, site: Path) -> None:
    """The fakes. What CuPy's modules link and nothing here has becomes a function that fails."""
    include, driver = f"-I{folder / 'cuda'}", folder / "libcuda.so.1"
    compiler = ("g++", *FLAGS, f'-DCUPY_ON_HOST_FLAGS="{KERNEL_FLAGS}"', include)
    headers = (f"-I{folder}", include, f"-I{site / 'cupy' / '_core' / 'include' / 'cupy' / '_cccl' / 'libcudacxx'}")
    kernels = ("g++", *KERNEL_FLAGS.split(), *headers)
    run(*kernels, "-shared", "-o", folder / GRID, HERE / "grid.cpp")
    run(*kernels, "-x", "c++-header", "-o", f"{folder}/device.h.gch", folder / "device.h")
    own = {"libcuda.so.1": "cuda.cpp", "libnvrtc.so.13": "nvrtc.cpp"} | dict.fromkeys(LIBRARIES, "libraries.cpp")
    for name, source in own.items():
        needs = [driver] if name in LIBRARIES else []
        run(*compiler, f"-Wl,-soname,{name}", "-o", folder / name, HERE / source, *needs)
    modules = [m for name in MODULES for m in site.rglob(f"{name}.cpython-*.so")]
    wanted = set().union(*(symbols(m, "--undefined-only") for m in modules))
    missing = wanted - set().union(*(symbols(folder / name, "--defined-only") for name in own))
    called = sorted(name for name in missing if name.startswith(PREFIXES))
    stubs = folder / "stubs.c"
    stubs.write_text("".join(f"int {name}(void) {{ return 801; }}\n" for name in called))  # not supported
    run("gcc", "-shared", "-fPIC", stubs, "-o", folder / REST)
    for name in UNUSED:
        run("gcc", "-shared", "-fPIC", "-x", "c", "/dev/null", f"-Wl,-soname,{name}", "-o", folder / name)


def runtime(folder: Path, site: Path, scratch: Path) -> None:
    """CuPy's module `runtime`, from its source, in the place of the wheel's."""
    # without the stub CuPy's metadata wants a CUDA toolkit
    environment = os.environ | {"PYTHONPATH": str(scratch / "tools"), "CUPY_INSTALL_USE_STUB": "1"}
    run(*PIP, "install", "--no-deps", "--target", scratch / "tools", CYTHON, "setuptools")
    download = ("download", "--no-deps", "--no-build-isolation", "--no-binary", "cupy", "-d", scratch)
    run(*PIP, *download, f"cupy=={CUPY}", env=environment)
    shutil.unpack_archive(scratch / f"cupy-{CUPY}.tar.gz", scratch)
    source = scratch / f"cupy-{CUPY}"
    (source / "pyproject.toml").unlink()  # the whole of CuPy is not what is built
    (scratch / "build_runtime.py").write_text(BUILD_RUNTIME)
    arguments = (sys.executable, scratch / "build_runtime.py", folder / "cuda", site)
    run(*arguments, cwd=source, env=environment)


def check_machine() -> None:
    """Say what is missing before anything is downloaded."""
    missing = [tool for tool in ("gcc", "g++", "nm") if shutil.which(tool) is None]
    if missing or sys.platform != "linux" or platform.machine() != "x86_64":
        here = f"{sys.platform} on {platform.machine()}" + "".join(f", no {tool}" for tool in missing)
        raise SystemExit(f"error: expected Linux on x86_64 with gcc, g++ and nm, got {here}")
    if set(str(ROOT)) & set(" :;'"):
        raise SystemExit(f"error: expected a folder without spaces, quotes, colons and semicolons, got {ROOT}")


def built() -> Path:
    """The folder of everything, made once."""
    check_machine()
    texts = [p.read_bytes() for p in (*SOURCES, Path(__file__))]
    digest = hashlib.sha256(b"\0".join([sys.version.encode(), *texts])).hexdigest()[:16]
    python = sys.implementation.cache_tag
    done = ROOT / "build" / "cupy-on-host" / f"{python}-{digest}"
    done.parent.mkdir(parents=True, exist_ok=True)
    with open(done.parent / f"{python}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one builds, the others wait for it
        if done.exists():
            return done
        print("building a CUDA whose device is the host (about a minute)", file=sys.stderr, flush=True)
        for old in done.parent.glob(f"{python}-*"):
            shutil.rmtree(old)
        with tempfile.TemporaryDirectory(dir=done.parent) as scratch:
            folder = Path(scratch) / "made"
            build(folder, Path(scratch))
            folder.rename(done)
    return done


def build(folder: Path, scratch: Path) -> None:
    """CuPy, the headers of CUDA, the fakes, and CuPy's module `runtime`."""
    site = folder / "site"
    site.mkdir(parents=True)
    run(*PIP, "install", "--no-deps", "--target", site, *PACKAGES)
    (folder / "cuda").symlink_to("site/nvidia/cu13/include")
    for header in SOURCES:
        if header.suffix == ".h":
            shutil.copy(header, folder)
    runtime(folder, site, scratch)
    libraries(folder, site)


def main() -> None:
    """Python, with the rest of the command line, where CuPy finds the host."""
    folder = built()
    loaded = ["libcuda.so.1", "libnvrtc.so.13", *LIBRARIES, *UNUSED, REST, GRID]  # before CuPy looks for NVIDIA's
    before = [name for name in os.environ.get("LD_PRELOAD", "").split(":") if name]
    path = [str(folder / "site"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "LD_PRELOAD": ":".join([*(str(folder / name) for name in loaded), *before]),
        "PYTHONPATH": os.pathsep.join(p for p in path if p),
        "CUPY_ON_HOST": str(folder),
        "CUPY_ON_HOST_DEVICES": os.environ.get("CUPY_ON_HOST_DEVICES", str(DEVICES)),
        "CUPY_CACHE_DIR": str(folder / "cache"),
        "CUPY_ACCELERATORS": "",  # CUB's kernels are in the wheel, compiled
        "CUDA_PATH": str(folder),
    }
    os.execve(sys.executable, [sys.executable, *sys.argv[1:]], environment)


if __name__ == "__main__":
    main()

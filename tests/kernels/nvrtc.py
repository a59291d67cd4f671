"""NVRTC from the wheel `nvidia-cuda-nvrtc`, through ctypes: a .cu text to machine code and ptxas's log, without a
GPU."""

from __future__ import annotations

import ctypes
import importlib.metadata
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from badmm_kernels.gpu.source import OPTIONS

WHEEL = "nvidia-cuda-nvrtc"
ARCHITECTURES = ("sm_80", "sm_90", "sm_100")


@dataclass(frozen=True)
class Usage:
    """What ptxas says of one kernel, in bytes and registers."""

    stack: int
    spill_stores: int
    spill_loads: int
    registers: int


def library_path() -> Path | None:
    """The shared library of the wheel, or None where the wheel is not installed."""
    try:
        files = importlib.metadata.files(WHEEL) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = [f for f in files if re.fullmatch(r"libnvrtc\.so\.\d+", f.name)]
    return Path(str(found[0].locate())) if found else None


@cache
def _nvrtc() -> ctypes.CDLL:
    path = library_path()
    if path is None:
        raise RuntimeError(f"{WHEEL} is not installed")
    for builtins in path.parent.glob("libnvrtc-builtins.so.*"):
        if "alt" not in builtins.name:
            ctypes.CDLL(str(builtins))  # found by its name when NVRTC looks for it
    return ctypes.CDLL(str(path))


def _text(size: str, get: str, program: ctypes.c_void_p) -> bytes:
    nvrtc, length = _nvrtc(), ctypes.c_size_t()
    assert getattr(nvrtc, size)(program, ctypes.byref(length)) == 0
    buffer = ctypes.create_string_buffer(max(length.value, 1))
    assert getattr(nvrtc, get)(program, buffer) == 0
    return buffer.raw[: length.value]


def _compiled(text: str, options: tuple[str, ...], size: str, get: str) -> tuple[bytes, str]:
    """(what `get` gives of the compiled text, the log); raises RuntimeError with the log where it does not compile."""
    nvrtc, program = _nvrtc(), ctypes.c_void_p()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernels.cu", 0, None, None) == 0
    try:
        given = [o.encode() for o in options]
        status = nvrtc.nvrtcCompileProgram(program, len(given), (ctypes.c_char_p * len(given))(*given))
        log = _text("nvrtcGetProgramLogSize", "nvrtcGetProgramLog", program).decode().rstrip("\0")
        if status != 0:
            raise RuntimeError(f"NVRTC, {options[-1]}: {log}")
        return _text(size, get, program), log
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def compile_text(text: str, architecture: str, options: tuple[str, ...] = OPTIONS) -> tuple[bytes, str]:
    """(cubin, verbose log of ptxas)."""
    whole = (*options, "--ptxas-options=-v", f"--gpu-architecture={architecture}")
    return _compiled(text, whole, "nvrtcGetCUBINSize", "nvrtcGetCUBIN")


def ptx(text: str, architecture: str, options: tuple[str, ...] = OPTIONS) -> str:
    """PTX for a virtual architecture."""
    whole = (*options, f"--gpu-architecture={architecture}")
    return _compiled(text, whole, "nvrtcGetPTXSize", "nvrtcGetPTX")[0].decode()


def usages(log: str) -> dict[str, Usage]:
    """Resource usage of every kernel in a verbose ptxas log."""
    pattern = re.compile(
        r"Compiling entry function '(?P<name>\w+)'.*?"
        r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
        r"Used (?P<registers>\d+) registers",
        re.DOTALL,
    )
    return {
        m["name"]: Usage(int(m["stack"]), int(m["stores"]), int(m["loads"]), int(m["registers"]))
        for m in pattern.finditer(log)
    }

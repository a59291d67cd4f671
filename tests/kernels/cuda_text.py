"""The kernels of the CUDA sources as text: all the code that each is made of."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator
from functools import cache

from badmm_kernels.gpu.source import HERE, INCLUDE, OPTIONS, source_text

SOURCES = sorted(str(path.relative_to(HERE).with_suffix("")) for path in HERE.rglob("*.cu"))
ENTRY = re.compile(r'^extern "C" __global__ void __launch_bounds__\((\d+), (\d+)\) (\w+)\(.*?^}\n', re.M | re.S)
STRUCT = re.compile(r"^(?:template [^\n]*\n?)?struct (\w+)\b.*?^};\n", re.M | re.S)
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.S)


@cache
def functions() -> dict[str, str]:
    """The text of every function of the headers, by name."""
    found = {}
    for path in sorted(INCLUDE.glob("badmm/**/*.h")):
        for part in re.split(r"^(?=BADMM_INLINE )", COMMENT.sub("", path.read_text(encoding="utf-8")), flags=re.M)[1:]:
            name = re.match(r"BADMM_INLINE [\w ]*?(\w+)\(", part)
            assert name, part
            found[name[1]] = part
    return found


def reached(entry: str, structs: dict[str, str]) -> Iterator[str]:
    """The text of a kernel's entry and of everything of its source and of the headers that it calls."""
    known, left = set(), [entry]
    while left:
        part = left.pop()
        yield part
        for struct, base, function in re.findall(r"\bcoordinate::(\w+)|^struct \w+ : (\w+)|\b(badmm_\w+)\(", part):
            name = struct or base or function
            if name not in known:
                known.add(name)
                left.append(functions()[name] if function else structs[name])


def kernels(source: str) -> dict[str, str]:
    """The code of every kernel of gpu/<source>.cu by its name, but for the loops that all sources share."""
    text = COMMENT.sub("", source_text(source))
    structs = {match[1]: match[0] for match in STRUCT.finditer(text)}
    whole = {match[3]: "\n".join(reached(match[0], structs)) for match in ENTRY.finditer(text)}
    return {name: " ".join(code.split()) for name, code in whole.items()}


def loops() -> str:
    """The code that all sources share."""
    return "\n".join(COMMENT.sub("", path.read_text(encoding="utf-8")) for path in sorted(HERE.glob("*.cuh")))


def digests(source: str) -> dict[str, str]:
    """For every kernel of a source, the digest of all that it is compiled from, but for white space and comments."""
    flags = [option for option in OPTIONS if not option.startswith("-I")]
    shared = " ".join([*flags, *loops().split()])
    codes = kernels(source).items()
    return {name: hashlib.sha256(f"{shared}\0{code}".encode()).hexdigest()[:16] for name, code in codes}


def allowed(source: str) -> dict[str, int]:
    """The registers per thread that each kernel's launch bounds leave: 65536 per multiprocessor, at most 255."""
    found = ((int(match[1]) * int(match[2]), match[3]) for match in ENTRY.finditer(source_text(source)))
    return {name: min(65536 // threads, 255) for threads, name in found}


def with_kernels(source: str, names: Collection[str]) -> str:
    """The source without its other kernels."""
    return ENTRY.sub(lambda match: match[0] if match[3] in names else "", source_text(source))

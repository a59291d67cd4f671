"""The kernels of the CUDA sources as text: all the code that each is made of, and which of them families share.

The lines of a round are emitted for every family, in the same words but for the family's name. A compiler makes the
same of them, so that whoever looks at what it makes needs one of each.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from functools import cache

from badmm_kernels.gpu.source import HERE, INCLUDE, source_text

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
    """The text of a kernel's entry and of everything that it calls."""
    known, left = set(), [entry]
    while left:
        part = left.pop()
        yield part
        for struct, base, function in re.findall(r"\bcoordinate::(\w+)|^struct \w+ : (\w+)|\b(badmm_\w+)\(", part):
            name = struct or base or function
            if name not in known:
                known.add(name)
                left.append(functions()[name] if function else structs[name])


@cache
def kernels(source: str) -> dict[str, str]:
    """The code of every kernel of gpu/<source>.cu by its name, with a blank for the family's own name."""
    text, family = COMMENT.sub("", source_text(source)), source.rpartition("/")[2]
    structs = {match[1]: match[0] for match in STRUCT.finditer(text)}
    whole = {match[3]: "\n".join(reached(match[0], structs)) for match in ENTRY.finditer(text)}
    return {name: " ".join(code.replace(f"badmm_{family}_", "badmm_ _").split()) for name, code in whole.items()}


def own_kernels(source: str, sources: Sequence[str]) -> set[str]:
    """The kernels of a source that none of the sources before it has in the same words."""
    before = {code for other in sources[: sources.index(source)] for code in kernels(other).values()}
    return {name for name, code in kernels(source).items() if code not in before}


def with_kernels(source: str, names: Collection[str]) -> str:
    """The source without its other kernels."""
    return ENTRY.sub(lambda match: match[0] if match[3] in names else "", source_text(source))

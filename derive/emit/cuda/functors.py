"""What a CUDA source is made of: functors of one coordinate, and kernels that are a loop around one."""

from __future__ import annotations

WIDTHS = {"f32": ("float", 4), "f64": ("double", 2)}  # C type, elements that 16 bytes hold
# Threads a block, and blocks a multiprocessor that registers must leave room for: streaming kernels want many bytes in
# flight, and without the second number ptxas spills to fit in blocks that are not needed.
BOUNDS = "__launch_bounds__(256, 4)"
HEAVY_BOUNDS = "__launch_bounds__(256, 2)"  # roots, and logarithms and special functions in double precision
# sums over nodes, and twelve values or more, calls of functions counted: 16 bytes of each value, and what is inlined,
# spill on sm_100 from the 128 registers that two blocks leave
WIDE_BOUNDS = "__launch_bounds__(256, 1)"


def mask(numbers: list[int]) -> str:
    """The bit mask of some values of a kernel: inputs first, then results."""
    return hex(sum(1 << n for n in numbers))


def values(kind: str, name: str, count: int, constant: bool = True) -> str:
    """A parameter that is a reference to some values."""
    return f"{'const ' if constant else ''}{kind} (&{name})[{count}]"


def method(result: str, name: str, parameters: list[str], body: str, has_scalars: bool) -> str:
    """A static member function of a functor; scalars come last."""
    scalars = "const double *s" if has_scalars else "const double *"
    head = f"    __device__ static {result} {name}({', '.join([*parameters, scalars])})"
    return f"{head}\n    {{\n        {body}\n    }}"


def entry(name: str, loop: str, bounds: str, argument: str = "badmm::Call") -> str:
    """A kernel: a loop over its one argument."""
    head = f'extern "C" __global__ void {bounds} {name}(const __grid_constant__ {argument} call)'
    return f"{head}\n{{\n    {loop}(call);\n}}"

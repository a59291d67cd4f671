"""A family's kernels → Numba source: elementwise maps, sums over coordinates and over clients."""

from __future__ import annotations

from ...ir import nodes as ir
from ..python.kernels import WIDTH, constants, imported_lines, public_function, record, wrapped
from . import matrices
from .printer import JIT, UNSCOPED, Printer, function, joint, outside, suffix, test, uniforms

TOGETHER = 5  # clients a pass over the tile of accumulators
NOTE = "Functions ending in _f32 and _f64 are scalar device functions for use inside your own @njit code."


def parts(module: ir.FamilyModule) -> list[str]:
    """The functions, loops, records and public functions of a family, and the public functions of a round's lines."""
    found = [function(f) for f in module.functions]
    for kernel in module.kernels:
        if isinstance(kernel, ir.MatrixMap):
            found.append(matrices.kernel(kernel, module))
        else:
            found += [*compiled(kernel), public_function(kernel, module)]
    return found + [public_function(line, module) for line in module.lines]


def compiled(kernel: ir.Coordinatewise) -> list[str]:
    """The scalar functions, loops and record of a kernel."""
    found = []
    for single in (True, False):
        if isinstance(kernel, ir.Map):
            found.append(_scalar_function(kernel, single))
        found.append(_loop(kernel, single))
    fields = [f"single=_{kernel.name}_f32", f"double=_{kernel.name}_f64", *joint(kernel)]
    return [*found, record(kernel, uniforms(kernel), fields)]


def imports(module: ir.FamilyModule, _body: str) -> list[str]:
    """What the runtime of families gives."""
    runtime = ["MatrixKernel"] if module.has_matrices else ["MapKernel", "ReductionKernel"]
    scalar = [name for k in module.lines if isinstance(k, ir.Map) for name in scalar_names(k)]
    return [
        *(["from badmm_kernels.cpu import linalg"] if module.has_matrices else []),
        imported_lines(module, "cpu", scalar),
        f"from badmm_kernels.cpu.runtime import {', '.join(runtime)}",
        "from badmm_kernels.face.calls import slots",
    ]


def facts(module: ir.FamilyModule) -> str:
    """What the namespace says of its family."""
    return constants(module)


def exported(module: ir.FamilyModule) -> list[str]:
    """The public names."""
    return [k.name for k in (*module.kernels, *module.lines)] + [f.name for f in module.functions]


def scalar_names(kernel: ir.Map) -> tuple[str, ...]:
    """The scalar functions of a map."""
    return tuple(f"{kernel.name}_{suffix(single)}" for single in (True, False))


def _scalar_function(kernel: ir.Map, single: bool) -> str:
    """The device function a user's own kernel calls: public scalars in, uniforms formed in float64."""
    name = f"{kernel.name}_{suffix(single)}"
    params = [o.variable for o in kernel.operands] + [s.variable for s in kernel.scalars]
    double, inner = Printer(), Printer(single and not kernel.promote)
    cast = suffix(single and not kernel.promote)
    lines = [f"    {u} = {cast}({double.expr(e)})" for u, e in kernel.uniforms]
    if kernel.promote and single:
        lines += [f"    {o.variable} = f64({o.variable})" for o in kernel.operands]
    lines += inner.statements(kernel.body, "    ")
    results = [inner.expr(r) for r in kernel.results]
    if kernel.promote and single:
        results = [f"f32({r})" for r in results]
    return "\n".join(
        [
            JIT,
            wrapped(f"def {name}", params, ":"),
            f'    """A coordinate of `{kernel.name}`, {suffix(single)}."""',
            *lines,
            *_returning(results),
        ]
    )


def _returning(results: list[str]) -> list[str]:
    """The last statement of a function, over several lines where it is long, as formatters do."""
    flat = f"    return {', '.join(results)}"
    return [flat] if len(flat) <= WIDTH else ["    return (", *[f"        {r}," for r in results], "    )"]


def _loop(kernel: ir.Coordinatewise, single: bool) -> str:
    """The compiled loop over rows [row_lo, row_hi) and columns [lo, hi) of flattened arrays; returns 0 if all was in
    the domain."""
    if isinstance(kernel, ir.ClientSum):
        return _client_sum_loop(kernel, single)
    reduction = isinstance(kernel, ir.Reduction)
    promote = reduction or (isinstance(kernel, ir.Map) and kernel.promote)
    inner = Printer(single and not promote)
    arrays = [f"{o.variable}_in" for o in kernel.operands]
    params = ["row_lo", "row_hi", "lo", "hi", "width"]
    params += [p for a in arrays for p in (a, f"{a}_step")] + [u for u, _ in kernel.uniforms]
    results = kernel.results
    read = {name for node in (*kernel.body, *results) for name in ir.reads(node)}
    outs = ["partial"] if reduction else [f"out_{k}" for k in range(len(results))]
    lines = [JIT, wrapped(f"def _{kernel.name}_{suffix(single)}", params + outs, ":")]
    lines += [outside(single and not promote), "    for row in range(row_lo, row_hi):"]
    used = [
        a for o, a in zip(kernel.operands, arrays, strict=True) if reduction or o.variable in read or o.domain != "real"
    ]
    lines += [f"        {a}_at = row * {a}_step" for a in used]
    lines += ["        total = 0.0"] if reduction else ["        out_at = row * width"]
    lines += ["        for i in range(lo, hi):"]
    tab = " " * 12
    for o, a in zip(kernel.operands, arrays, strict=True):
        if a not in used:
            continue
        value = f"load({a}, {a}_at + i)"
        lines.append(f"{tab}{o.variable} = {f'f64({value})' if promote and single else value}")
    tested = kernel.tested if isinstance(kernel, ir.Map) else kernel.operands
    checks = [test(o.variable, o.domain) for o in tested]
    lines += inner.statements(kernel.body, tab)
    if isinstance(kernel, ir.Reduction):
        lines += [f"{tab}term = {inner.expr(kernel.term)}", f"{tab}total = add(total, term)"]
        lines += [f"{tab}{c}" for c in checks]
        lines += ["        partial[row] = total"]
    else:
        for k, r in enumerate(kernel.results):
            lines.append(f"{tab}result_{k} = {f'f32({inner.expr(r)})' if promote and single else inner.expr(r)}")
        result_checks = [
            test(f"result_{k}", kernel.result_domains[k] if kernel.result_domains else "real")
            for k in range(len(kernel.results))
        ]
        lines += [f"{tab}{c}" for c in checks + result_checks]
        lines += [f"{tab}store(out_{k}, out_at + i, result_{k}, {k})" for k in range(len(kernel.results))]
    return "\n".join([*lines, "    return outside"])


def _client_sum_loop(kernel: ir.ClientSum, single: bool) -> str:
    """Σ over clients for columns [lo, hi): the tile of float64 accumulators stays in the first-level cache."""
    inner = Printer()
    arrays = [f"{o.variable}_in" for o in kernel.operands]
    params = ["clients", "lo", "hi", "width", *arrays, *[u for u, _ in kernel.uniforms], "tile", "out_0"]
    lines = [JIT, wrapped(f"def _{kernel.name}_{suffix(single)}", params, ":"), outside(single)]
    lines += ["    for start in range(lo, hi, tile.size):", "        stop = min(hi, start + tile.size)"]
    lines += ["        for i in range(stop - start):", f"            store(tile, i, 0.0, {UNSCOPED})"]
    lines += [f"        together = clients // {TOGETHER} * {TOGETHER}"]
    for head, count in ((f"range(0, together, {TOGETHER})", TOGETHER), ("range(together, clients)", 1)):
        lines += [f"        for client in {head}:"]
        lines += [f"            at_{k} = (client + {k}) * width + start" for k in range(count)]
        lines += ["            for i in range(stop - start):", "                total = load(tile, i)"]
        for k in range(count):
            for o, a in zip(kernel.operands, arrays, strict=True):
                value = f"load({a}, at_{k} + i)"
                lines.append(f"                {o.variable} = {f'f64({value})' if single else value}")
            lines += inner.statements(kernel.body, " " * 16)
            lines.append(f"                total = total + ({inner.expr(kernel.term)})")
        lines.append(f"                store(tile, i, total, {UNSCOPED})")
    lines += ["        for i in range(stop - start):"]
    lines += [
        f"            result_0 = {'f32(load(tile, i))' if single else 'load(tile, i)'}",
        f"            {test('result_0', 'real')}",
    ]
    lines += ["            store(out_0, start + i, result_0, 0)"]
    return "\n".join([*lines, "    return outside"])

"""Optimizer IR → Numba source: flat loops that draw normals tile by tile into scratch and sweep over chunks of
coordinates.

A loop's normals and its scalar operands are read from scratch that stays in the first-level cache, or from the caller's
arrays, by the same instructions: no variant is compiled for each choice.
"""

from __future__ import annotations

from ...ir import nodes as ir
from ...ir.names import renamed, variables
from ..python.kernels import wrapped
from ..python.sweeps import noise_function, public_function, record, tested as operands_tested
from .printer import INLINED, JIT, UNSCOPED, Printer, outside, suffix, test, uniforms

CHUNK = 256  # coordinates a piece of scratch: short enough that the hardware fetches ahead while normals are drawn
BLOCKS = "ab"  # what their names end in
LOOP, INNER = " " * 12, " " * 16


def parts(module: ir.OptimizerModule) -> list[str]:
    """The generator, the loops, records and public functions of an optimizer."""
    g = module.generator
    found = [_draw(g, True), _draw(g, False), _noise(g)]
    for sweep in module.kernels:
        found += [_loop(sweep, g, True), _loop(sweep, g, False), _public(sweep)]
    return found


def imports(_module: ir.OptimizerModule, _body: str) -> list[str]:
    """What the runtime of sweeps gives."""
    return ["from badmm_kernels.cpu.sweep import NoiseKernel, SweepKernel, pair"]


def facts(module: ir.OptimizerModule) -> str:
    """What the namespace says of its optimizer."""
    return f'NAME = "{module.name}"\nLANES = {module.generator.lanes}\nCHUNK = {CHUNK}'


def exported(module: ir.OptimizerModule) -> list[str]:
    """The public names."""
    return ["noise", *(s.name for s in module.kernels)]


def _draw(g: ir.Generator, single: bool) -> str:
    """Whole tiles of normals into `out`, for the coordinates [lo, hi) of a row; lo begins a tile.

    Words first and normals after, in the words' place: each loop is so short that the processor overlaps its passes.
    A pass makes the words of two blocks: one block's rounds wait for each other, and leave the multipliers idle.
    """
    draw = g.single if single else g.double
    seed, step, block = g.params
    count = len(draw.results)
    real = Printer(single)
    half = g.lanes // 2
    tiles = [f"    for start in range(lo, hi, {count * g.lanes}):", "        at = start - lo"]
    # inlined, as a call a chunk would form and spread the rounds' keys each time
    lines = [INLINED, f"def _{g.name}_{suffix(single)}({seed}, {step}, lo, hi, out):", *tiles]
    lines += [f"        first = start // {count}", f"        for lane in range({half}):"]
    lines += [f"{LOOP}{block}{b} = u64(first{_plus(half * k)} + lane)" for k, b in enumerate(BLOCKS)]
    lines += Printer(single, dict.fromkeys([seed, step, *(block + b for b in BLOCKS)], "word")).statements(
        _two_blocks(draw, block), LOOP
    )
    for k, word in enumerate(draw.word_names):
        for number, b in enumerate(BLOCKS):
            place = f"at{_plus(k * g.lanes + number * half)} + lane"
            lines.append(f"{LOOP}store(out, {place}, from_bits({word}{b}), {UNSCOPED})")
    places = [f"at{_plus(k * g.lanes)} + lane" for k in range(count)]
    lines += [*tiles, f"        for lane in range({g.lanes}):"]
    read = zip(draw.word_names, places, strict=True)
    lines += [f"{LOOP}{name} = bits(load(out, {place}))" for name, place in read]
    lines += Printer(single, dict.fromkeys(draw.word_names, "bits")).statements(draw.normals, LOOP)
    results = zip(places, draw.results, strict=True)
    lines += [f"{LOOP}store(out, {place}, {real.expr(e)}, {UNSCOPED})" for place, e in results]
    return "\n".join(lines)


def _plus(number: int) -> str:
    return f" + {number}" if number else ""


def _two_blocks(draw: ir.Draw, block: str) -> tuple[ir.Let, ...]:
    """The words' statements for two blocks in turn; what does not depend on the block once."""
    own, lines = {block}, []
    for s in draw.words:
        if variables(s.value) & own:
            own.add(s.name)
            lines += [ir.Let(s.name + b, renamed(s.value, {name: name + b for name in own})) for b in BLOCKS]
        else:
            lines.append(s)
    assert own.issuperset(draw.word_names)
    return tuple(lines)


def _noise(g: ir.Generator) -> str:
    """Normals alone: the loop over rows and chunks, and the public function."""
    loops = [
        f"""{JIT}
def _noise_{t}(row_lo, row_hi, lo, hi, width, address_in, out_0):
    tile = np.empty(CHUNK, {t})
    for row in range(row_lo, row_hi):
        at = row * width
        for start in range(lo // CHUNK * CHUNK, hi, CHUNK):
            stop = min(hi, start + CHUNK)
            _{g.name}_{t}(load(address_in, 2 * row), load(address_in, 2 * row + 1), start, stop, tile)
            for i in range(max(lo, start), stop):
                store(out_0, at + i, load(tile, i - start), 0)
    return 0"""
        for t in ("f32", "f64")
    ]
    public = f'_NOISE = NoiseKernel(name="noise", single=_noise_f32, double=_noise_f64)\n\n\n{noise_function(g)}'
    return "\n\n\n".join([*loops, public])


def _checks(sweep: ir.Sweep) -> list[str]:
    """Tests of the results, and of the operands that no result answers for."""
    tested = [(o.variable, o.domain) for o in operands_tested(sweep)]
    tested += [(f"result_{k}", r.domain) for k, r in enumerate(sweep.results)]
    return [f"{INNER}{test(name, domain)}" for name, domain in tested]


def _scratch(sweep: ir.Sweep, single: bool) -> list[str]:
    names = [n.variable for n in sweep.normals] + [o.variable for o in sweep.operands if o.scalar]
    return [f"    {name}_tile = np.empty(CHUNK, {suffix(single)})" for name in names]


def _prepare_row(sweep: ir.Sweep, names: list[str]) -> list[str]:
    """Once a row: scalars, scratch of scalar operands, offsets."""
    tab = " " * 8
    lines = [
        f"{tab}{u} = load(uniforms_in, {len(sweep.uniforms)} * row + {k})" for k, (u, _) in enumerate(sweep.uniforms)
    ]
    columns = ["seed", *[n.step for n in sweep.normals]] if sweep.normals else []
    lines += [f"{tab}{c} = load(address_in, {len(columns)} * row + {k})" for k, c in enumerate(columns)]
    for o in (o for o in sweep.operands if o.scalar):
        v = o.variable
        lines += [
            f"{tab}if {v}_scalar:",
            f"{tab}    {v} = load({v}_in, row * {v}_in_step)",
            f"{tab}    for i in range(min(CHUNK, hi)):",
            f"{tab}        store({v}_tile, i, {v}, {UNSCOPED})",
        ]
    lines += [f"{tab}{v}_row = row * {v}_in_step" for v in names]
    return [*lines, f"{tab}out_at = row * width"]


def _sources(sweep: ir.Sweep, generator: ir.Generator, single: bool) -> list[str]:
    """Once a chunk: draw normals, and where each operand is read from."""
    lines = []
    for n in sweep.normals:
        v = n.variable
        draw = f"_{generator.name}_{suffix(single)}(seed, {n.step}, start, stop, {v}_tile)"
        lines += [f"{LOOP}if {v}_drawn:", f"{LOOP}    {draw}"]
        lines.append(f"{LOOP}{v}_from, {v}_at = ({v}_tile, -start) if {v}_drawn else ({v}_in, {v}_row)")
    for o in sweep.operands:
        v = o.variable
        if o.scalar:
            lines.append(f"{LOOP}{v}_from, {v}_at = ({v}_tile, -start) if {v}_scalar else ({v}_in, {v}_row)")
    return lines


def _loop(sweep: ir.Sweep, generator: ir.Generator, single: bool) -> str:
    """The compiled loop over rows [row_lo, row_hi) and columns [lo, hi); returns 0 if all was in the domain."""
    printer = Printer(single)
    normals = [n.variable for n in sweep.normals]
    arrays = [o.variable for o in sweep.operands]
    chosen = {*normals, *(o.variable for o in sweep.operands if o.scalar)}
    params = ["row_lo", "row_hi", "lo", "hi", "width", "address_in", "uniforms_in"]
    for o in sweep.operands:
        params += [f"{o.variable}_in", f"{o.variable}_in_step", *([f"{o.variable}_scalar"] if o.scalar else [])]
    for n in sweep.normals:
        params += [f"{n.variable}_in", f"{n.variable}_in_step", f"{n.variable}_drawn"]
        params += [f"{n.variable}_kept"] if n.kept else []
    params += [f"out_{k}" for k in range(len(sweep.results))]
    lines = [JIT, wrapped(f"def _{sweep.name}_{suffix(single)}", params, ":"), outside(single)]
    lines += [*_scratch(sweep, single), "    for row in range(row_lo, row_hi):"]
    lines += _prepare_row(sweep, [*arrays, *normals])
    lines += [
        "        for start in range(lo // CHUNK * CHUNK, hi, CHUNK):",
        f"{LOOP}begin, stop = max(lo, start), min(hi, start + CHUNK)",
        *_sources(sweep, generator, single),
        f"{LOOP}for i in range(begin, stop):",
    ]
    for v in [*arrays, *normals]:
        place = f"{v}_from, {v}_at" if v in chosen else f"{v}_in, {v}_row"
        lines.append(f"{INNER}{v} = load({place} + i)")
    lines += printer.statements(sweep.body, INNER)
    lines += [f"{INNER}result_{k} = {printer.expr(r.value)}" for k, r in enumerate(sweep.results)]
    lines += _checks(sweep)
    lines += [f"{INNER}store(out_{k}, out_at + i, result_{k}, {k})" for k in range(len(sweep.results))]
    for n in (n for n in sweep.normals if n.kept):
        v = n.variable
        lines += [
            f"{LOOP}if {v}_kept:",
            f"{LOOP}    for i in range(begin, stop):",
            f"{INNER}    store({v}_in, {v}_row + i, load({v}_tile, i - start), {UNSCOPED})",
        ]
    return "\n".join([*lines, "    return outside"])


def _public(sweep: ir.Sweep) -> str:
    """The record that sweep.py drives, and the function a person calls."""
    fields = [f"single=_{sweep.name}_f32", f"double=_{sweep.name}_f64"]
    face = record(sweep, uniforms(sweep, "np"), fields)
    return f"{face}\n\n\n{public_function(sweep)}"

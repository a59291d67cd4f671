"""The one intermediate representation: small expression trees, straight-line statements, a few kinds of kernel.

Scalar code: `Let`, `If`, `Loop`, `Return` over `Var`, `Lit`, `Int`, `Op`. Operations are + − × ÷, negation, an explicit
`fma`, square root, exp, expm1, log, log1p, erf, erfc, comparisons, `select` (both values are computed, so that it
vectorises) and calls of other `Function`s; contraction is otherwise off, so kernels of + − × ÷ √ fma select and
integers are bit-identical wherever they are compiled. Matrix code uses the same nodes with `MATRIX_OPS`.

Values are of four kinds (`names.kind` infers them): reals in the kernel's own precision, truths, `word`s (unsigned, 64
bits) and `bits` (unsigned, as wide as a real). Integers wrap around; shifts are by literals smaller than the width.
    select(truth, a, b)      a or b of one kind
    iadd isub imul iand ixor ishl ishr    on two words or two bits
    low(word)                the bits at its lower end
    real(bits)               the real nearest to the two's complement integer with these bits
    bits(real), from_bits(bits)           the representation of a real, unchanged
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from .scalar import (
    CAST_OPS as CAST_OPS,
    COMPARISONS as COMPARISONS,
    INTEGER_OPS as INTEGER_OPS,
    MATRIX_OPS as MATRIX_OPS,
    REAL_OPS as REAL_OPS,
    SCALAR_OPS as SCALAR_OPS,
    Expr as Expr,
    Function as Function,
    If as If,
    Int as Int,
    Kind as Kind,
    Let as Let,
    Lit as Lit,
    Loop as Loop,
    Op as Op,
    Return as Return,
    Stmt as Stmt,
    Var as Var,
    calls as calls,
    reads as reads,
)


@dataclass(frozen=True)
class Operand:
    """An input array: its public argument name, the variable that holds an element, its domain.

    `scalar`: a number, or one per row, may stand for the array.
    """

    argument: str
    variable: str
    domain: str
    scalar: bool = False


@dataclass(frozen=True)
class Scalar:
    """A public scalar argument: name, variable and domain (`positive`, `fraction` = (0, 1], `count` = 1, 2, ...)."""

    argument: str
    variable: str
    domain: str


@dataclass(frozen=True)
class Joint:
    """What must be positive of several operands together: the argument that they are of, a formula and its value.

    Results are no numbers where it is not; it is evaluated to say so.
    """

    argument: str
    formula: str
    value: Expr


@dataclass(frozen=True)
class Elementwise:
    """What every kernel of coordinates has: operands, public scalars, `uniforms` that depend on scalars alone, formed
    once in float64 and then rounded to the arrays' type, and a body."""

    name: str
    operands: tuple[Operand, ...]
    scalars: tuple[Scalar, ...]
    uniforms: tuple[tuple[str, Expr], ...]
    body: tuple[Stmt, ...]
    joint: tuple[Joint, ...] = field(default=(), kw_only=True)


@dataclass(frozen=True)
class Map(Elementwise):
    """One output a slot, elementwise: one pass, domain checked inside it.

    `promote` computes in float64 whatever the arrays' type (transcendental functions). `slotwise` maps are applied to
    every slot in turn. `result_domains` are those that the results must lie in where that is not implied by the
    inputs (inverse maps); the inputs' own domains then follow from the results' and are not tested beside them.
    `result_names` name several results that are not the slots of one parameter. `saturates`: an infinite input may have
    a finite result, as of exp(−x), so that real inputs are tested as well.
    """

    results: tuple[Expr, ...]
    formula: str
    source: str
    promote: bool = False
    slotwise: bool = False
    result_domains: tuple[str, ...] = ()
    result_names: tuple[str, ...] = ()
    saturates: bool = False

    @property
    def tested(self) -> tuple[Operand, ...]:
        """The operands whose domain the kernel tests: unless it saturates, a real one shows in a result that is not
        finite."""
        domains = ("positive", "negative", "real") if self.saturates else ("positive", "negative")
        return () if self.result_domains else tuple(o for o in self.operands if o.domain in domains)


@dataclass(frozen=True)
class Total(Elementwise):
    """A sum of one term per coordinate, in float64; `formula` is the term's, `over` what is summed over."""

    term: Expr
    formula: str
    source: str
    over: ClassVar[str]

    @property
    def results(self) -> tuple[Expr, ...]:
        """The term: the one result of a coordinate."""
        return (self.term,)


@dataclass(frozen=True)
class Reduction(Total):
    """Σ over coordinates of one float64 term; inputs are widened on load."""

    over: ClassVar[str] = "coordinates"


@dataclass(frozen=True)
class ClientSum(Total):
    """Σ over the leading client axis of one term per coordinate, float64 accumulators, slotwise."""

    over: ClassVar[str] = "clients"


@dataclass(frozen=True)
class MatrixMap:
    """A function of one matrix-family member, written in calls to LAPACK; `reduction` returns a float64."""

    name: str
    operands: tuple[Operand, ...]
    body: tuple[Let, ...]
    results: tuple[Expr, ...]
    formula: str
    source: str
    reduction: bool = False


@dataclass(frozen=True)
class Quadrature:
    """E[g], E[g′], E[g″] of one function g of one number under N(center, spread²).

    `center`, `spread` and `coefficient` are variables of the kernel (a coefficient of 0 makes the rest superfluous);
    `results` are the names of the three expectations. `argument` is g's variable, `body` and `values` are g, g′ and g″,
    which are analytic but for a singularity at `place` ± i `distance`.
    """

    center: str
    spread: str
    coefficient: str
    results: tuple[str, str, str]
    argument: str
    body: tuple[Stmt, ...]
    values: tuple[Expr, Expr, Expr]
    place: float
    distance: float


@dataclass(frozen=True)
class Expectation(Map):
    """Gaussian expectations of a loss and its derivatives in one row: a map, every quadrature written out as a loop.

    `before`, `quadratures` and `after` are the body in parts, for a backend that reads expectations from tables.
    """

    before: tuple[Stmt, ...] = ()
    quadratures: tuple[Quadrature, ...] = ()
    after: tuple[Stmt, ...] = ()


@dataclass(frozen=True)
class Normal:
    """A standard normal a coordinate: read from the array `argument`, or drawn by the module's generator.

    `variable` holds it in the body; `step` is the public argument that names the counter it is drawn at, beside `seed`.
    `kept`: a drawn one is also written to `argument` where the caller gives that array. A kernel that reads one
    normal and draws another may be given one array for both: it is read before it is written.
    """

    argument: str
    variable: str
    step: str
    kept: bool


@dataclass(frozen=True)
class Result:
    """An output of a sweep: its name, its value, the domain it must lie in, and the operand whose memory it may be."""

    name: str
    value: Expr
    domain: str
    replaces: str = ""


@dataclass(frozen=True)
class Sweep(Elementwise):
    """One pass over coordinates that may draw normals and update state in place.

    Rows are the leading axis (clients). Public scalars, uniforms, seed and counters may differ between rows. The
    results' domains are tested inside the pass. `purpose` is the docstring's first line.
    """

    normals: tuple[Normal, ...]
    results: tuple[Result, ...]
    purpose: str
    formula: str
    source: str


@dataclass(frozen=True)
class Draw:
    """One counter's normals in one precision: straight-line code over the words `params` of the generator.

    `words` is integer code whose last statements name as many random words as there are normals, each as wide as a
    real; `normals` turns those into the results. An emitter may run the two as one or, word k kept in place of normal
    k, one after the other.
    """

    words: tuple[Let, ...]
    normals: tuple[Let, ...]
    results: tuple[Expr, ...]

    @property
    def body(self) -> tuple[Let, ...]:
        """Both parts."""
        return self.words + self.normals

    @property
    def word_names(self) -> tuple[str, ...]:
        """The names of the random words."""
        return tuple(s.name for s in self.words[-len(self.results) :])


@dataclass(frozen=True)
class Generator:
    """Normals by counter: number j of block l of a tile is coordinate j·lanes + l of the tile.

    `params` are words: the seed (a row's), the step, and the block; a tile has len(results)·lanes coordinates and
    `lanes` consecutive blocks, so coordinate i of a row is number (i mod tile) div lanes of block
    (i div tile)·lanes + i mod lanes. For consecutive l, loads and stores of every number are contiguous.
    """

    name: str
    params: tuple[str, str, str]
    lanes: int
    single: Draw
    double: Draw
    formula: str
    source: str


Coordinatewise = Map | Reduction | ClientSum
FamilyKernel = Coordinatewise | MatrixMap
Kernel = FamilyKernel | Sweep


@dataclass(frozen=True)
class Module:
    """The kernels generated from what one kind states (`family`, `likelihood`, `optimizer`, `round`), with the scalar
    functions they call, callees first."""

    name: str
    title: str
    citation: str
    digest: str
    functions: tuple[Function, ...]
    kernels: tuple[Kernel, ...]
    kind: ClassVar[str]

    @property
    def prefix(self) -> str:
        """The name by which functions of the C header and claims speak of the module."""
        return self.name

    @property
    def place(self) -> str:
        """The module's files below a backend's folder, without their endings."""
        return self.name

    @property
    def origin(self) -> str:
        """What a generated file says it is made from; no tool's version, so that every version writes the same text."""
        return f"{', '.join(self.sources)} (sha256 {self.digest})"

    @property
    def sources(self) -> tuple[str, ...]:
        """The files below derive/ that state the module."""
        raise NotImplementedError

    @property
    def callable_names(self) -> tuple[str, ...]:
        """The names of everything that is generated to be called, and proved."""
        return tuple(f"{self.prefix}.{k.name}" for k in self.kernels)


@dataclass(frozen=True)
class RoundModule(Module):
    """The lines of a round for one slot, which are the same kernels for every family."""

    kernels: tuple[Coordinatewise, ...]
    files: tuple[str, ...]
    kind: ClassVar[str] = "round"

    @property
    def sources(self) -> tuple[str, ...]:
        """The paper's lines."""
        return self.files


@dataclass(frozen=True)
class FamilyModule(Module):
    """The kernels of one family; `lines` are those of a round, which its namespace offers for its slots."""

    kernels: tuple[FamilyKernel, ...]
    lines: tuple[Coordinatewise, ...]
    slots: dict[str, tuple[str, ...]]
    fixed: tuple[str, ...]
    facts: tuple[tuple[str, Any], ...] = ()  # constant → value, of what a namespace says beside its slots
    kind: ClassVar[str] = "family"

    @property
    def sources(self) -> tuple[str, ...]:
        """The family's file."""
        return (f"families/{self.name}.py",)

    @property
    def has_matrices(self) -> bool:
        """Whether a member is a matrix."""
        return any(isinstance(k, MatrixMap) for k in self.kernels)


@dataclass(frozen=True)
class LossModule(Module):
    """All kernels of one likelihood: the loss, its constant and its expectations."""

    kernels: tuple[Map, Map, Expectation]
    responses: tuple[tuple[str, str], ...]  # name and support
    parameters: tuple[tuple[str, str], ...]  # name and meaning
    facts: tuple[tuple[str, Any], ...] = ()
    kind: ClassVar[str] = "likelihood"

    @property
    def prefix(self) -> str:
        """A family may bear the same name."""
        return f"{self.name}_loss"

    @property
    def place(self) -> str:
        """In a folder of its own."""
        return f"likelihoods/{self.name}"

    @property
    def sources(self) -> tuple[str, ...]:
        """The likelihood's file."""
        return (f"{self.place}.py",)


@dataclass(frozen=True)
class OptimizerModule(Module):
    """All kernels of one optimizer: sweeps, and the generator whose normals they draw."""

    kernels: tuple[Sweep, ...]
    files: tuple[str, ...]
    generator: Generator
    kind: ClassVar[str] = "optimizer"

    @property
    def sources(self) -> tuple[str, ...]:
        """The papers' lines, and what is derived from them."""
        return self.files

    @property
    def callable_names(self) -> tuple[str, ...]:
        """The generator's normals are called too."""
        return (f"{self.name}.{self.generator.name}", *super().callable_names)

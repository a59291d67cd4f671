"""No sum in the IR has an inexact product among its addends, so a compiler that contracts a·b + c changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from derive.families import load_families
from derive.ir import nodes as ir
from derive.ir.show import show
from derive.lower import ivon as ivon_kernels
from derive.lower.families import build_module

MODULES = {name: build_module(family) for name, family in load_families().items()}
OPTIMIZER = ivon_kernels.optimizer()
Flags = dict[str, bool]


def power_of_two(node: ir.Expr) -> bool:
    """Whether multiplying by it is exact."""
    return isinstance(node, ir.Lit) and abs(float(np.frexp(float(node.text))[0])) == 0.5


class Products:
    """Follows products through names, branches and calls, and collects the sums that one of them feeds."""

    def __init__(self, functions: Mapping[str, ir.Function]) -> None:
        self.functions = functions
        self.found: list[str] = []

    def is_product(self, node: ir.Expr, env: Flags) -> bool:
        """Whether the value may be a product that was rounded; visits everything below it."""
        if isinstance(node, ir.Var):
            return env.get(node.name, False)
        if isinstance(node, (ir.Lit, ir.Int)):
            return False
        flags = [self.is_product(a, env) for a in node.args]
        if node.op in ("add", "sub") and any(flags):
            self.found.append(show(node))
        if node.op == "call":
            function = self.functions[node.target]
            return self.run(function.body, dict(zip(function.params, flags, strict=True)))
        if node.op == "mul":
            return not any(power_of_two(a) for a in node.args) or any(flags)
        return any(flags[1:]) if node.op == "select" else node.op == "neg" and flags[0]

    def run(self, body: tuple[ir.Stmt, ...], env: Flags) -> bool:
        """Whether what a body returns may be a product; after a branch, a name has the flags of both ways."""
        returned = False
        for s in body:
            if isinstance(s, ir.Let):
                env[s.name] = self.is_product(s.value, env)
            elif isinstance(s, ir.Return):
                flags = [self.is_product(v, env) for v in s.values]
                returned |= any(flags)
            elif isinstance(s, ir.If):
                self.is_product(s.condition, env)
                for branch in (s.body, s.orelse):
                    own = dict(env)
                    returned |= self.run(branch, own)
                    env.update({k: env.get(k, False) or own[k] for k in own})
            else:
                for _ in range(2):  # what a pass leaves, the next may add to
                    self.is_product(s.until, env)
                    returned |= self.run(s.body, env)
        return returned


def fed_by_products(functions: Mapping[str, ir.Function], kernel: Any) -> list[str]:
    """The sums of a kernel, and of what it calls, that an inexact product feeds."""
    products, env = Products(functions), Flags()
    for name, value in kernel.uniforms:
        env[name] = products.is_product(value, env)
    products.run(kernel.body, env)
    for result in kernel.results if isinstance(kernel, ir.Map) else (kernel.term,):
        products.is_product(result, env)
    return products.found


SCALAR_KERNELS = [
    pytest.param(module, kernel, id=f"{family}: {kernel.name}")
    for family, module in MODULES.items()
    for kernel in module.kernels
    if not isinstance(kernel, ir.MatrixMap)
]


ALLOWED = {
    "kl": {
        # The product (S_p − S_q) · 1/S_q goes to a function that adds to it, once inlined.
        "add(f, 2.0)",
    },
    # Newton multiplies beta's a and b by e^step, and digamma is of a + b, of which the recurrences take x + k: what a
    # step starts from may be a rounding off, for the next corrects it.
    "natural_from_expectation": {"add(a, b)", "add(x, n)", *(f"add(x, {k}.0)" for k in range(1, 11))},
    # −log Γ(k) + k log k of the negative binomial, once a call.
    "log_density": {"add(u1, u2)"},
}
"""By kernel: sums that a product feeds. Logarithms and exponentials are in all of these, so that the kernels are
compared by accuracy, not by bits, and a rounding less is allowed."""


@pytest.mark.parametrize(("module", "kernel"), SCALAR_KERNELS)
def test_no_sum_is_fed_by_a_product(module: ir.Module, kernel: Any) -> None:
    functions = {f.name: f for f in module.functions}
    assert set(fed_by_products(functions, kernel)) <= ALLOWED.get(kernel.name, set())


@pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)
def test_no_function_adds_to_a_product(module: ir.Module) -> None:
    products = Products({f.name: f for f in module.functions})
    for function in module.functions:
        products.run(function.body, dict.fromkeys(function.params, False))
    assert products.found == []


@pytest.mark.parametrize("sweep", OPTIMIZER.kernels, ids=lambda sweep: sweep.name)
def test_no_sum_of_the_ivon_step_is_fed_by_a_product(sweep: ir.Sweep) -> None:
    """A normal counts as a product: that is what the generator returns."""
    products = Products({})
    env = Flags({normal.variable: True for normal in sweep.normals})
    for name, value in sweep.uniforms:
        env[name] = products.is_product(value, env)
    products.run(sweep.body, env)
    for result in sweep.results:
        products.is_product(result.value, env)
    assert products.found == []


@pytest.mark.parametrize("draw", [OPTIMIZER.generator.single, OPTIMIZER.generator.double], ids=["float32", "float64"])
def test_no_sum_of_the_generator_is_fed_by_a_product(draw: ir.Draw) -> None:
    products = Products({})
    products.run(draw.body, Flags())
    assert products.found == []


def test_a_product_is_followed_through_names_signs_branches_and_calls() -> None:
    x, y = ir.Var("x"), ir.Var("y")
    product = ir.Op("mul", (x, y))
    adder = ir.Function("adder", ("z",), (ir.Return((ir.Op("add", (ir.Var("z"), x)),)),), "")
    branch = ir.If(ir.Op("lt", (x, y)), (ir.Let("p", ir.Op("neg", (product,))),))
    for body, result, count in (
        ((), ir.Op("add", (product, x)), 1),
        ((), ir.Op("add", (ir.Op("mul", (ir.Lit("0.5"), x)), y)), 0),
        ((), ir.Op("add", (ir.Op("mul", (ir.Lit("0.5"), product)), y)), 1),
        ((), ir.Op("fma", (x, y, product)), 0),
        ((ir.Let("p", x), branch), ir.Op("sub", (y, ir.Var("p"))), 1),
        ((), ir.Op("call", (product,), "adder"), 1),
        ((), ir.Op("call", (x,), "adder"), 0),
        ((), ir.Op("add", (ir.Op("div", (product, x)), y)), 0),
        ((), ir.Op("add", (ir.Op("select", (ir.Op("lt", (x, y)), x, product)), y)), 1),
    ):
        products = Products({"adder": adder})
        env: Flags = {}
        products.run(body, env)
        products.is_product(result, env)
        assert len(products.found) == count, show(result)

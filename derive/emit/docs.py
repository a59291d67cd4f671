"""Public signatures and docstrings, the same for every target."""

from __future__ import annotations

import textwrap

from ..ir import nodes as ir

TUPLE_ARGUMENTS = ("natural_q", "natural_p", "natural", "direction", "change")
PURPOSE = {
    "natural_from_standard": "Natural parameters λ of the standard ones.",
    "standard_from_natural": "Standard parameters of λ.",
    "expectation_from_natural": "Expectation parameters μ = ∇A(λ).",
    "natural_from_expectation": "Natural parameters λ(μ), the inverse of μ = ∇A(λ).",
    "log_partition": "Log-partition A(λ).",
    "entropy": "Differential entropy in nats.",
    "kl": "Kullback-Leibler divergence KL(q‖p) in nats.",
    "natural_gradient": "Natural gradient ∇_μ L.",
    "log_density": "Log-density log q(θ).",
    "log_marginal": "Marginal log-density of the second of two variables.",
    "conditional": "Mean and precision of the first of two variables given the second.",
    "margin": "Infimum of the ρ at which ρλ + η fulfils an inequality of the domain, one result each; η = direction.",
    "whiten": "Lᵀ dλ with F(λ) = LLᵀ: a change of λ in the units of the Fisher metric, ‖Lᵀ dλ‖² = dλᵀ F dλ.",
    "natural_change": "dλ for a change of the standard parameters: the derivative of λ, applied to the change.",
    "client_map": "The client's fixed-point map λ_g + (η − ∇L)/ρ.",
    "cavity": "The client's cavity λ_g + η/ρ.",
    "dual_update": "Dual line η ← η + γρ(λ_g − λ_k).",
    "bregman_dual_update": "Dual line of Bregman ADMM, η ← η + γρ(μ_g − μ_k).",
    "server_contribution": "One client's term c_k = (1 − α)/K λ_k − α η_k of the server line.",
    "server_total": "Σ_k c_k over the leading client axis, with float64 accumulators.",
    "contribution_change": "The change c_k − c_k(old) that a client which takes part adds to the running sum Σ_k c_k.",
    "primal_residual": "Primal residual λ_k − λ_g of a client.",
    "dual_residual": "Dual residual λ_g − λ_0 + Σ_k η_k of the server.",
    "server_update": "Server line λ_g ← α λ_0 + Σ_k c_k.",
    "loss": "f, f′ and f″ at a predictor, without the loss's constant.",
    "constant": "What of f does not depend on the predictor.",
    "expected_loss": "E[f], E[f′] and E[f″] for a predictor a ~ N(center, variance), without the loss's constant.",
    "round_update": "Dual line and the updated dual's term c_k of the server line, in one pass over memory.",
}
HOST_TEXT = ["Raises ValueError (shape, domain) or TypeError (type); on a domain error out is overwritten."]
STREAM_TEXT = [
    "stream: CuPy stream, object with .cuda_stream, or integer handle; None: the current one of the first array's",
    "library.",
]
DEVICE_TEXT = [
    *STREAM_TEXT,
    "Raises ValueError (shape) or TypeError (type); ValueError (domain) where the host next waits: a reduction that",
    "returns a float, or badmm_kernels.synchronize(). On a domain error out is overwritten.",
]
_SCALAR_TEXT = {
    "rho": "rho: penalty ρ > 0.",
    "damping": "damping: dual damping γ in (0, 1].",
    "alpha": "alpha: server step α in (0, 1].",
    "num_clients": "num_clients: number of clients K >= 1.",
    "precision": "precision: the family's fixed precision s > 0 (1 / θ²).",
}
_POSITIVE_TEXT = {"damping": "damping: dual damping γ > 0, in units of λ over μ."}


def scalar_text(scalar: ir.Scalar) -> str:
    """What a public scalar means, with its domain."""
    found = _POSITIVE_TEXT.get(scalar.argument) if scalar.domain == "positive" else None
    return found or _SCALAR_TEXT.get(scalar.argument, f"{scalar.argument}: {scalar.domain}, of every row.")


def arguments(kernel: ir.FamilyKernel) -> list[tuple[str, list[ir.Operand]]]:
    """Public array arguments: (name, operands), several operands for an argument that is a tuple of slots."""
    groups: dict[str, list[ir.Operand]] = {}
    for operand in kernel.operands:
        groups.setdefault(operand.argument.split(".")[0], []).append(operand)
    return list(groups.items())


def is_slotwise(kernel: ir.FamilyKernel) -> bool:
    """Whether every array argument is a tuple of slots to which the same map is applied in turn."""
    return isinstance(kernel, ir.ClientSum) or (isinstance(kernel, ir.Map) and kernel.slotwise)


def record_name(kernel: ir.FamilyKernel) -> str:
    """The record of a kernel: the lines of a round have public ones, which families import."""
    return f"{'' if is_slotwise(kernel) else '_'}{kernel.name.upper()}"


def returns_float(kernel: ir.FamilyKernel) -> bool:
    """Whether the result is a float64 reduction."""
    return isinstance(kernel, ir.Reduction) or (isinstance(kernel, ir.MatrixMap) and kernel.reduction)


def result_groups(kernel: ir.FamilyKernel) -> int:
    """How many tuples, one array a slot, the function returns; one is returned bare."""
    return len(kernel.results) if isinstance(kernel, ir.Map) and kernel.slotwise else 1


def public_scalars(kernel: ir.FamilyKernel) -> tuple[ir.Scalar, ...]:
    """Scalars a caller passes; a client sum counts its clients itself."""
    if isinstance(kernel, ir.MatrixMap):
        return ()
    return tuple(s for s in kernel.scalars if not (isinstance(kernel, ir.ClientSum) and s.domain == "count"))


def signature(kernel: ir.FamilyKernel, module: ir.FamilyModule) -> tuple[list[str], str, list[str]]:
    """(typed parameters, method of the kernel record, arguments of that call)."""
    names = [g for g, _ in arguments(kernel)]
    scalars = public_scalars(kernel)
    fixed = [s.argument for s in scalars if s.argument in module.fixed]
    tuples = set(names) if is_slotwise(kernel) else set(TUPLE_ARGUMENTS)
    parameters = [f"{n}: {'Sequence[Any]' if n in tuples else 'Any'}" for n in names]
    parameters += [
        f"{s.argument}: {'int' if s.domain == 'count' else 'float'}" for s in scalars if s.argument not in fixed
    ]
    if kernel.name == "natural_gradient" and "expected_gradient" in names and "expected_hessian" not in names:
        parameters.append("expected_hessian: Any = None")
    parameters += ["*", *(f"{name}: float" for name in fixed)]
    parameters.append("axis: int | None = None" if returns_float(kernel) else "out: Sequence[Any] | None = None")
    passed = _tuple([s.argument for s in scalars])
    if is_slotwise(kernel):
        pairs = _tuple([f'("{n}", {n})' for n in names])
        return parameters, ".slotwise", ["NATURAL", pairs, passed, "out"]
    kinds = {n: "STANDARD" if n == "change" else "NATURAL" for n in TUPLE_ARGUMENTS}
    flat = [f'*slots("{n}", {n}, {kinds[n]})' if n in kinds else n for n in names]
    return parameters, "", [_tuple(flat), passed, "axis" if returns_float(kernel) else "out"]


def _tuple(items: list[str]) -> str:
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})"


def formula_text(kernel: ir.FamilyKernel) -> str:
    """A kernel's formula, with what it sums over."""
    return f"sum over {kernel.over} of {kernel.formula}" if isinstance(kernel, ir.Total) else kernel.formula


def docstring(kernel: ir.FamilyKernel, module: ir.FamilyModule, on_device: bool = False) -> str:
    """Purpose, formula, shapes, errors and source of a public function."""
    matrix = module.has_matrices
    lines = [f'"""{PURPOSE[kernel.name]}', ""]
    lines += textwrap.wrap(
        f"Formula ({'one matrix' if matrix and not is_slotwise(kernel) else 'a coordinate'}): {formula_text(kernel)}",
        110,
    )
    if is_slotwise(kernel):
        names = module.slots["natural"]
        shapes = f"every array argument is a tuple of {len(names)} slots ({', '.join(names)})"
    else:
        shapes = "; ".join(
            f"{g}: ({', '.join(o.argument.split('.')[-1] for o in ops)})" if g in TUPLE_ARGUMENTS else g
            for g, ops in arguments(kernel)
        )
    size = "(d,) and (d, d), or (K, d) and (K, d, d)" if matrix else "(P,) or (K, P), any further shape as well"
    shared = "An argument without the leading client axis is shared by all clients."
    place = "C-contiguous, on one GPU" if on_device else "C-contiguous"
    lines += ["", *textwrap.wrap(f"Arrays: {shapes}; each {size}; float32 or float64, {place}. {shared}", 110)]
    if kernel.name == "natural_gradient" and "expected_hessian" not in str(shapes) and "expected_gradient" in shapes:
        lines += [
            "expected_hessian: accepted for one interface over all Gaussians; not used, the precision being fixed."
        ]
    scalars = public_scalars(kernel)
    lines += [scalar_text(s) for s in scalars]
    if returns_float(kernel):
        lines += ["axis: None sums everything (a float); -1 gives one value for each leading index."]
    else:
        apart = matrix and not is_slotwise(kernel)
        allowed = "no slot may overlap an input." if apart else "a slot may be the input of the same slot."
        received = "tuple that receives the result"
        if isinstance(kernel, ir.Map) and result_groups(kernel) > 1:
            received = f"tuple of such tuples ({', '.join(kernel.result_names)}) that receive the results"
        lines += textwrap.wrap(f"out: {received}; {allowed}", 110)
    lines += DEVICE_TEXT if on_device else HOST_TEXT
    lines += [
        f"Source: {kernel.source}.",
        '"""',
    ]
    return "\n".join(line for line in lines)


SWEEP_SCALAR_TEXT = {
    "ess": "ess: effective sample size > 0, N/(τρ) for an ADMM client: S = ess * precision",
    "lr": "lr: step size of the mean, >= 0",
    "beta1": "beta1: decay of the momentum, in [0, 1]",
    "beta2": "beta2: decay of the precision, in [0, 1]",
    "debias": "debias: 1 - beta1**t at the t-th step, or 1",
    "clip": "clip: largest entry of the mean's direction, > 0",
    "samples": "samples: number of samples in the sums",
}
OPERAND_TEXT = {
    "gradient": "gradient: of the mean loss, at the sample",
    "mean": "mean: m",
    "precision": "precision: s = h + delta > 0; the posterior's precision is ess * s",
    "momentum": "momentum: v",
    "cavity": "cavity: (c_xi, c_S), the client's cavity lambda_g + eta/rho over ess: (eta_xi + delta m_g, eta_S + "
    "delta), or (0, weight_decay) for IVON itself",
    "total_gradient": "total_gradient: sum of gradients, from 0",
    "total_price": "total_price: sum of gradient * noise, from 0",
    "total_square": "total_square: sum of gradient^2, from 0",
}
NORMAL_TEXT = {
    ("noise", False): "noise: the sample's normals; where None, drawn again at (seed, step).",
    ("noise", True): "noise: receives the normals drawn at (seed, step), or without a step holds those to use.",
    ("next_noise", True): "next_noise: receives the normals drawn at (seed, next_step), or without a next_step holds "
    "those to use; may be noise.",
}
SCALAR_DEFAULTS = {"debias": ": Any = 1.0", "clip": ": Any = None"}


def operand_text(name: str, shared: bool = False) -> str:
    """What an array argument of a sweep means; `shared`: numbers may stand for its arrays."""
    return OPERAND_TEXT[name] + ("; each an array, a number, or (K, 1) with one per row." if shared else ".")


def sweep_scalar_text(scalar: ir.Scalar, unlimited: str) -> str:
    """What a scalar of a sweep means; `unlimited` is the value of a radius without end."""
    text = SWEEP_SCALAR_TEXT[scalar.argument]
    return text + (f"; {unlimited}: no limit." if scalar.domain == "radius" else ".")


def sweep_signature(sweep: ir.Sweep) -> tuple[list[str], list[str]]:
    """(typed parameters, arguments of the kernel record's call) of a sweep."""
    names = list(dict.fromkeys(o.argument.split(".")[0] for o in sweep.operands))
    scalars = [s.argument for s in sweep.scalars]
    parameters = [f"{n}: {'Sequence[Any]' if n == 'cavity' else 'Any'}" for n in names]
    parameters += [f"{n}{SCALAR_DEFAULTS.get(n, ': Any')}" for n in scalars]
    parameters.append("*")
    arrays = [n.argument for n in sweep.normals]
    steps = [n.step for n in sweep.normals]
    parameters += [f"{n}: Any = None" for n in [*(["seed"] if steps else []), *steps, *arrays]]
    parameters.append("out: Sequence[Any] | None = None")
    flat = ['*pair("cavity", cavity)' if n == "cavity" else n for n in names]
    return parameters, [
        _tuple(flat),
        _tuple(scalars),
        "seed" if steps else "None",
        _tuple(steps),
        _tuple(arrays),
        "out",
    ]


def sweep_docstring(sweep: ir.Sweep, on_device: bool = False) -> str:
    """Purpose, formula, arguments, errors and source of a sweep's public function."""
    names = list(dict.fromkeys(o.argument.split(".")[0] for o in sweep.operands))
    width = 112
    lines = [f'"""{sweep.purpose}', "", *textwrap.wrap(f"Formula (a coordinate): {sweep.formula}", width), ""]
    shared = {o.argument.split(".")[0] for o in sweep.operands if o.scalar}
    entries = [operand_text(n, n in shared) for n in names] + [sweep_scalar_text(s, "None") for s in sweep.scalars]
    if sweep.normals:
        steps = " and ".join(n.step for n in sweep.normals)
        entries.append(f"seed, {steps}: integers of 64 bits; see noise.")
        entries += [NORMAL_TEXT[n.argument, n.kept] for n in sweep.normals]
    results = ", ".join(r.name for r in sweep.results)
    replaced = ", ".join(r.replaces or "none" for r in sweep.results)
    entries.append(f"out: tuple that receives ({results}); may be exactly the memory of ({replaced}).")
    for entry in entries:
        lines += textwrap.wrap(entry, width, subsequent_indent="    ")
    lines += [
        "Arrays: (P,), or (K, ...) for K rows (clients), where those without the leading axis are shared; float32 or",
        "float64, C-contiguous. Scalars: a number, or K of them, one per row.",
        *(DEVICE_TEXT if on_device else HOST_TEXT),
        f"Source: {sweep.source}.",
        '"""',
    ]
    return "\n".join(lines)

"""The lines of a round, which are linear in the natural parameter: one formula serves every slot of every family.

Each is stated by hand as the list of its terms (see `validation.ulps`), evaluated with mpmath on the exact inputs; a
`Line` names its operands and scalars, from which test points follow. Nothing is taken from the derivation.

The terms that set the scale of an error:

    dual_update           eta,  c (lambda_g - lambda_k)           c = damping * rho
    server_contribution   c lambda_k,  -alpha eta                 c = (1 - alpha) / K
    client_map            lambda_g,  (eta - gradient) / rho
    cavity                lambda_g,  eta / rho
    bregman_dual_update   eta,  c (mu_g - mu_k)
    contribution_change   those of server_contribution,  -old
    primal_residual       lambda_k,  -lambda_g
    dual_residual         lambda_g,  -lambda_0,  sum of eta
    server_update         alpha lambda_0,  total
    round_update          those of dual_update;  c lambda_k,  -alpha eta,  -alpha damping rho (lambda_g - lambda_k)

The scalars c, 1/rho and alpha are formed in float64 and rounded once to the type of the arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..calls import Call
from ..points import LINEAR_DECADES, generator, neighbours
from ..ulps import Terms, rounded
from .family import FactorisingOracle, Slots

Point = Sequence[Any]  # the mpmath operands in one slot at one coordinate
Formula = Callable[[Point, Sequence[float], str], Terms]


@dataclass(frozen=True)
class Line:
    """A linear kernel: its operands and scalars in the order of its arguments, a formula per result."""

    operands: tuple[str, ...]
    scalars: tuple[str, ...]
    formulas: tuple[Formula, ...]

    def call(self, name: str, operands: Mapping[str, Slots], scalars: Mapping[str, float], label: str) -> Call:
        """The line at one set of points."""
        given = (*(operands[o] for o in self.operands), *(scalars[s] for s in self.scalars))
        return Call(name, given, label, results=len(self.formulas))


def dual_terms(slot: Point, scalars: Sequence[float], dtype: str) -> Terms:
    """eta + damping rho (lambda_g - lambda_k) in one slot."""
    dual, natural_global, natural_client = slot
    rho, damping = scalars
    return [dual, rounded(damping * rho, dtype) * (natural_global - natural_client)]


def contribution_terms(slot: Point, scalars: Sequence[float], dtype: str) -> Terms:
    """(1 - alpha)/K lambda_k - alpha eta_k in one slot."""
    natural_client, dual = slot
    alpha, clients = scalars
    return [rounded((1.0 - alpha) / clients, dtype) * natural_client, -rounded(alpha, dtype) * dual]


def client_map_terms(slot: Point, scalars: Sequence[float], dtype: str) -> Terms:
    """lambda_g + (eta - gradient)/rho in one slot."""
    natural_global, dual, gradient = slot
    return [natural_global, rounded(1.0 / scalars[0], dtype) * (dual - gradient)]


def cavity_terms(slot: Point, scalars: Sequence[float], dtype: str) -> Terms:
    """lambda_g + eta/rho in one slot."""
    natural_global, dual = slot
    return [natural_global, rounded(1.0 / scalars[0], dtype) * dual]


def change_terms(slot: Point, scalars: Sequence[float], dtype: str) -> Terms:
    """(1 - alpha)/K lambda_k - alpha eta_k - old in one slot."""
    natural_client, dual, old = slot
    return [*contribution_terms((natural_client, dual), scalars, dtype), -old]


def primal_terms(slot: Point, _scalars: Sequence[float], _dtype: str) -> Terms:
    """lambda_k - lambda_g in one slot."""
    natural_client, natural_global = slot
    return [natural_client, -natural_global]


def residual_terms(slot: Point, _scalars: Sequence[float], _dtype: str) -> Terms:
    """lambda_g - lambda_0 + sum of eta_k in one slot."""
    natural_global, prior, dual_total = slot
    return [natural_global, -prior, dual_total]


def server_update_terms(slot: Point, scalars: Sequence[float], dtype: str) -> Terms:
    """alpha lambda_0 + total in one slot."""
    prior, total = slot
    return [rounded(scalars[0], dtype) * prior, total]


def new_dual_terms(slot: Point, scalars: Sequence[float], dtype: str) -> Terms:
    """The dual of `round_update`: that of `dual_update`."""
    return dual_terms(slot, scalars[:2], dtype)


def new_contribution_terms(slot: Point, scalars: Sequence[float], dtype: str) -> Terms:
    """(1 - alpha)/K lambda_k - alpha (eta + damping rho (lambda_g - lambda_k)) in one slot."""
    client_term, _ = contribution_terms((slot[2], slot[0]), scalars[2:], dtype)
    alpha = rounded(scalars[2], dtype)
    return [client_term, *(-alpha * term for term in new_dual_terms(slot, scalars, dtype))]


LINES: Mapping[str, Line] = {
    "dual_update": Line(("dual", "server", "client"), ("rho", "damping"), (dual_terms,)),
    "server_contribution": Line(("client", "dual"), ("alpha", "clients"), (contribution_terms,)),
    "client_map": Line(("server", "dual", "gradient"), ("rho",), (client_map_terms,)),
    "cavity": Line(("server", "dual"), ("rho",), (cavity_terms,)),
    "bregman_dual_update": Line(("dual", "server", "client"), ("rho", "damping"), (dual_terms,)),
    "contribution_change": Line(("client", "dual", "sent"), ("alpha", "clients"), (change_terms,)),
    "primal_residual": Line(("client", "server"), (), (primal_terms,)),
    "dual_residual": Line(("server", "start", "dual"), (), (residual_terms,)),
    "server_update": Line(("prior", "total"), ("alpha",), (server_update_terms,)),
    "round_update": Line(
        ("dual", "server", "client"),
        ("rho", "damping", "alpha", "clients"),
        (new_dual_terms, new_contribution_terms),
    ),
}


def scalars_of(rho: float, damping: float, alpha: float | None = None, clients: int = 5) -> dict[str, float]:
    """The scalars of a round; alpha is 1 / (1 + 5 rho) unless given."""
    return {"rho": rho, "damping": damping, "alpha": alpha or 1.0 / (1.0 + 5.0 * rho), "clients": clients}


def calls(family: FactorisingOracle, dtype: str, count: int) -> list[Call]:
    """Every line at ordinary, wide and cancelling points."""
    found: list[Call] = []
    wide = LINEAR_DECADES[dtype] / 2
    for label, decades, rho, damping in (
        ("generic", 2.0, 0.3, 0.7),
        ("edges", wide, 1.0, 0.5),
        ("wide", wide, 7.0, 0.9),
    ):
        rng = generator(family.name, dtype, label, count)
        server, client = (family.natural_points(rng, count, decades, dtype) for _ in range(2))
        dual, other = (family.duals(rng, count, decades, dtype) for _ in range(2))
        operands = {
            "server": server,
            "prior": server,
            "start": client,
            "client": client,
            "dual": dual,
            "gradient": other,
            "total": other,
            "sent": other,
        }
        found += [line.call(name, operands, scalars_of(rho, damping), label) for name, line in LINES.items()]
    return found + list(cancelling_calls(family, dtype, count))


def cancelling_calls(family: FactorisingOracle, dtype: str, count: int) -> Iterator[Call]:
    """The lines where their terms nearly annihilate: at convergence, all of them do."""
    rng = generator(family.name, dtype, "cancelling", count)
    scalars = scalars_of(0.3, 0.7, 0.4)
    rho, damping, alpha, clients = (scalars[name] for name in ("rho", "damping", "alpha", "clients"))

    def close(slots: Sequence[Any]) -> Slots:
        return tuple(neighbours(np.asarray(slot).astype(dtype), rng, 3) for slot in slots)

    server = family.natural_points(rng, count, 3.0, dtype)
    client, dual = close(server), family.duals(rng, count, 3.0, dtype)
    distant = family.natural_points(rng, count, 3.0, dtype)
    operands: dict[str, Slots] = {
        "server": server,
        "prior": server,
        "start": client,
        "client": client,
        "dual": dual,
        "gradient": close(dual),
        "total": close([-alpha * slot for slot in server]),
        "sent": close([(1.0 - alpha) / clients * a - alpha * b for a, b in zip(client, dual, strict=True)]),
    }
    opposite = close([-damping * rho * (a - b) for a, b in zip(server, distant, strict=True)])
    balanced = close([(1.0 - alpha) / clients / alpha * slot for slot in client])
    beyond = close([a + rho * b for a, b in zip(dual, server, strict=True)])
    pulled = close([-rho * slot for slot in server])
    stepping = ("dual_update", "bregman_dual_update", "round_update")
    cases: tuple[tuple[str, dict[str, Slots], tuple[str, ...]], ...] = (
        ("client at the server", {}, ("dual_update", "round_update", "primal_residual", "dual_residual")),
        ("dual cancels the step", {"dual": opposite, "client": distant}, stepping),
        ("dual cancels the server", {"dual": pulled}, ("cavity",)),
        ("nothing moved", {}, ("contribution_change",)),
        ("dual cancels the client", {"dual": balanced}, ("server_contribution", "round_update")),
        ("gradient at the dual", {}, ("client_map",)),
        ("step cancels the server", {"gradient": beyond}, ("client_map",)),
        ("total cancels the prior", {}, ("server_update",)),
    )
    for label, changes, names in cases:
        for name in names:
            yield LINES[name].call(name, operands | changes, scalars, label)

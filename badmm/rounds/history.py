"""What a run leaves behind: a record a round, the state to go on from, the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from badmm.checks import Array
from badmm.families.distributions import Distribution
from badmm.families.family import Family, Natural


@dataclass(frozen=True)
class RoundRecord:
    """One round. Residuals are relative 2-norms, the largest slot; the objective is in nats; bytes are cumulative.

    `gap` is the larger of `primal_residual` ‖λ_k − λ_g‖/(√K ‖λ_g‖), over all clients at once, and `dual_residual`
    ‖λ_0 − Σ_k η_k − λ_g‖/‖λ_g‖. `objective` is Σ_k L_k(μ_g) + KL(q_g‖p_0), NaN where a client gives no loss.
    Bytes count float64 numbers of one λ a client up and one down (a symmetric matrix: d(d+1)/2), and the policy's
    scalars. `condition_margin` is ρ minus the infimum of the penalties at which every client meets the existence
    condition: it holds where the margin is positive. `mixed` counts the earlier rounds whose dual lines were mixed in.
    `client_iterations` are evaluations of each client. `events` say what was damped, fell back, stopped short or
    violated the condition.
    """

    round: int
    gap: float
    primal_residual: float
    dual_residual: float
    objective: float
    bytes_up: int
    bytes_down: int
    seconds: float
    rho: float
    alpha: float
    damping: float
    client_iterations: list[int]
    condition_margin: float
    mixed: int = 0
    events: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The record as plain numbers, lists and strings."""
        return asdict(self)


_GROUPS = ("natural", "duals", "clients", "mixing_lines", "mixing_sums")


@dataclass(frozen=True)
class SolverState:
    """The state after a round: everything that the next one starts from. Callbacks must not write to its arrays.

    `natural` λ_g, `duals` η (K, ...), `clients` λ_k (K, ...), one array a slot; `policy` the step-size policy's own
    numbers; `mixing_lines` and `mixing_sums` the memory of mixing.py. A run that goes on from it repeats bit for
    bit what the uninterrupted run does.
    """

    round: int
    natural: Natural
    duals: Natural
    clients: Natural
    policy: Mapping[str, float]
    records: tuple[RoundRecord, ...]
    mixing_lines: Natural = ()
    mixing_sums: Natural = ()
    family: Family | None = None

    @property
    def record(self) -> RoundRecord:
        """The record of the last round."""
        return self.records[-1]

    @property
    def gap(self) -> float:
        """The fixed-point residual after the last round."""
        return self.record.gap

    @property
    def posterior(self) -> Distribution:
        """q_g; raises `ValueError` on a state that has been read back and not yet been passed to `solve`."""
        if self.family is None:
            raise ValueError("state: expected a family to build the posterior, got a state read from arrays")
        return self.family.posterior(self.natural)

    def to_arrays(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """(arrays by name, metadata that JSON can hold); `from_arrays` is the inverse."""
        groups = {name: getattr(self, name) for name in _GROUPS}
        arrays = {f"{name}.{i}": np.ascontiguousarray(s) for name, slots in groups.items() for i, s in enumerate(slots)}
        metadata = {
            "round": self.round,
            "policy": dict(self.policy),
            "records": [record.as_dict() for record in self.records],
        }
        return arrays, metadata

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], metadata: Mapping[str, Any]) -> SolverState:
        """The state that `to_arrays` wrote; raises `ValueError` for a missing array or key."""
        try:
            groups: dict[str, Natural] = {}
            for name in _GROUPS:
                keys = sorted(key for key in arrays if key.startswith(f"{name}."))
                if not keys and not name.startswith("mixing"):
                    raise KeyError(f"{name}.0")
                groups[name] = tuple(np.asarray(arrays[key], dtype=np.float64) for key in keys)
            records = tuple(RoundRecord(**record) for record in metadata["records"])
            natural, duals, clients, lines, sums = (groups[name] for name in _GROUPS)
            return cls(int(metadata["round"]), natural, duals, clients, dict(metadata["policy"]), records, lines, sums)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"state: expected the arrays and metadata of SolverState.to_arrays, got {error}"
            ) from error


@dataclass(frozen=True)
class Result:
    """What `badmm.solve` returns: posterior, a record a round, rounds run, whether `tol` was met, why it ended."""

    posterior: Distribution
    history: Sequence[RoundRecord]
    rounds: int
    converged: bool
    reason: str
    state: SolverState

    @property
    def natural(self) -> Natural:
        """λ_g, one array a slot."""
        return self.state.natural

    @property
    def duals(self) -> Natural:
        """η, one array a slot with a leading client axis."""
        return self.state.duals

    @property
    def clients(self) -> list[Distribution]:
        """The clients' own posteriors q_k of the last round."""
        family = self.state.family
        assert family is not None
        count = len(self.state.clients[0])
        return [family.posterior(tuple(slot[k] for slot in self.state.clients)) for k in range(count)]

    def __str__(self) -> str:
        ended = "converged" if self.converged else "not converged"
        last = f"gap {self.history[-1].gap:.3g}, objective {self.history[-1].objective:.8g}" if self.history else "-"
        posterior = f"{type(self.posterior).__name__} over {self.posterior.dim} coordinates"
        return f"{ended} after {self.rounds} rounds: {self.reason}\n{last}\n{posterior}"

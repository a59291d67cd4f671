"""What a run leaves behind: a record a round, the state to go on from, the result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from badmm.checks import Array
from badmm.families.distributions import Distribution
from badmm.families.family import FamilyGeometry, Natural


@dataclass(frozen=True)
class RoundRecord:
    """One round. Residuals are in posterior standard deviations (Fisher metric of λ_g), the objective in nats.

    `primal_residual` is the root mean square over clients of ‖λ_k − λ_g‖. `dual_residual` is ‖λ_0 − Σ_k η_k − λ_g‖ at
    α = 1; at α < 1, where the server's sum holds it mixed with the clients' mean, it is the bound (1 − α)/α times the
    primal residual. `client_residual` is the root mean square of the clients' own residuals, where more evaluations
    would lower them. `gap` is the largest of the three. `objective` is Σ_k L_k(μ_g) + KL(q_g‖p_0), NaN where a client
    gives no loss.
    Bytes are those of all messages and replies so far, one of each a client (float64; a symmetric matrix: its
    triangle). `evaluations` is the sum over clients of what their problems took beside the evaluation at λ_g,
    `most_evaluations` the largest. `condition_margin` is ρ minus the infimum of the penalties at which every client
    meets the existence condition, or less where a bound on that infimum is enough: the condition holds where the margin
    is positive. `mixed` counts the earlier rounds whose dual
    lines were mixed in, `absent` the clients whose replies were lost or refused. `events` say what was damped, fell
    back, stopped short or violated the condition.
    """

    round: int
    gap: float
    primal_residual: float
    dual_residual: float
    client_residual: float
    objective: float
    bytes_up: int
    bytes_down: int
    seconds: float
    rho: float
    alpha: float
    damping: float
    evaluations: int
    most_evaluations: int
    condition_margin: float
    mixed: int = 0
    absent: int = 0
    events: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The record as plain numbers, lists and strings."""
        return asdict(self)


_GROUPS = ("natural", "duals", "clients", "total", "sent")
_MEMORIES = ("mixing_lines", "mixing_totals", "mixing_changes")


@dataclass(frozen=True)
class SolverState:
    """The state after a round: everything that the next one starts from. Callbacks must not write to its arrays.

    `natural` λ_g, `duals` η (K, ...), `clients` λ_k (K, ...), one array a slot; `policy` the step-size policy's own
    numbers; `total` Σ c_k, and `sent` (K, ...) the c_k of a run with absent clients. The memories of mixing.py hold one
    natural-shaped tuple a round: `mixing_lines` the clients' dual lines, `mixing_totals` and `mixing_changes` the
    server's sums. What has a client axis is of this process's clients. A run that goes on from a state repeats bit for
    bit what the uninterrupted run does.
    """

    round: int
    natural: Natural
    duals: Natural
    clients: Natural
    policy: Mapping[str, float]
    records: tuple[RoundRecord, ...]
    total: Natural = ()
    sent: Natural = ()
    mixing_lines: Sequence[Natural] = ()
    mixing_totals: Sequence[Natural] = ()
    mixing_changes: Sequence[Natural] = ()
    family: FamilyGeometry | None = None

    def without(self, clients: Iterable[int]) -> SolverState:
        """The state from which a run goes on that these clients, by their index in this process, have left for good.

        The next call of `solve` has the other clients in their order. Its λ_g is the line of those that are left: at
        α = 1 λ_g + Σ η_k over those that have left. That is the posterior without them where every ∇L_k is constant;
        otherwise it is where the rounds to it begin. Nothing that comes from those clients is left in it.
        """
        count, gone = len(self.duals[0]), set(clients)
        if not gone <= set(range(count)):
            raise ValueError(f"clients: expected indices from 0 to {count - 1}, got {sorted(gone)}")
        stay = [k for k in range(count) if k not in gone]
        duals, own = (tuple(slot[stay] for slot in slots) for slots in (self.duals, self.clients))
        return self.regrouped(duals=duals, clients=own)

    def joined_by(self, count: int) -> SolverState:
        """The state from which a run goes on that so many clients join, after those of this process.

        Their η_k = 0 and λ_k = λ_g change no sum before they have answered.
        """
        new = tuple(np.repeat(slot[None], count, axis=0) for slot in self.natural)
        duals = tuple(np.concatenate([old, 0.0 * rows]) for old, rows in zip(self.duals, new, strict=True))
        own = tuple(np.concatenate([old, rows]) for old, rows in zip(self.clients, new, strict=True))
        return self.regrouped(duals=duals, clients=own)

    def regrouped(self, *, duals: Natural | None = None, clients: Natural | None = None) -> SolverState:
        """The state without sums over clients and what was mixed from them, for a run whose clients are others."""
        policy = {**self.policy, "damping": 1.0, "size": float("inf"), "best": float("inf"), "waited": 0.0}
        changes: dict[str, Any] = dict.fromkeys((*_MEMORIES, "total", "sent", "records"), ())
        changes |= {"duals": self.duals if duals is None else duals}
        changes |= {"clients": self.clients if clients is None else clients}
        return replace(self, policy=policy, **changes)

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
        for name in _MEMORIES:
            groups[name] = tuple(np.stack(slot) for slot in zip(*getattr(self, name), strict=True))
        records = [record.as_dict() for record in self.records]
        metadata = {"round": self.round, "policy": dict(self.policy), "records": records}
        return flat({name: dict(enumerate(slots)) for name, slots in groups.items()}), metadata

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], metadata: Mapping[str, Any]) -> SolverState:
        """The state that `to_arrays` wrote; raises `ValueError` for a missing array or key."""
        try:
            parts = grouped(arrays, (*_GROUPS, *_MEMORIES))
            groups: dict[str, Any] = {
                name: tuple(np.asarray(part[key], dtype=np.float64) for key in sorted(part))
                for name, part in parts.items()
            }
            for name in ("natural", "duals", "clients"):
                if not groups[name]:
                    raise KeyError(f"{name}.0")
            for name in _MEMORIES:
                groups[name] = list(zip(*groups[name], strict=True))
            records = tuple(RoundRecord(**record) for record in metadata["records"])
            return cls(int(metadata["round"]), policy=dict(metadata["policy"]), records=records, **groups)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"state: expected the arrays and metadata of SolverState.to_arrays, got {error}"
            ) from error


def flat(groups: Mapping[str, Mapping[Any, Array]]) -> dict[str, Array]:
    """Groups of arrays as one mapping, named `group.key`: what a checkpoint holds of any state."""
    return {f"{name}.{key}": np.ascontiguousarray(a) for name, part in groups.items() for key, a in part.items()}


def grouped(arrays: Mapping[str, Array], groups: Sequence[str]) -> dict[str, dict[str, Array]]:
    """The inverse of `flat`; ValueError for an array of another group."""
    found: dict[str, dict[str, Array]] = {name: {} for name in groups}
    for name, array in arrays.items():
        group, _, key = name.partition(".")
        if group not in found:
            raise ValueError(f"state: expected arrays of {', '.join(groups)}, got {name!r}")
        found[group][key] = array
    return found


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

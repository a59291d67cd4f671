"""Step sizes: `rho`, `alpha` and `damping` of each round, from explicit values or from what the server sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from badmm.checks import positive_number

Setting = float | str


class Steps(NamedTuple):
    """ρ, α, γ of one round."""

    rho: float
    alpha: float
    damping: float


def setting(value: Setting, name: str, upper: float = float("inf")) -> float | None:
    """An explicit value checked, or None for "auto"."""
    if isinstance(value, str):
        if value != "auto":
            raise ValueError(f'{name}: expected "auto" or a number, got {value!r}')
        return None
    return positive_number(value, name, upper)


class Policy:
    """Explicit values as given, and for the others: ρ = 1, α = 1, and γ = 1 lowered where the rounds overshoot."""

    def __init__(self, num_clients: int, rho: Setting, alpha: Setting, damping: Setting) -> None:
        self.num_clients = num_clients
        self.rho = setting(rho, "rho")
        self.alpha = setting(alpha, "alpha", 1.0)
        self.damping = setting(damping, "damping", 1.0)
        self._damping, self._size = 1.0, float("inf")

    @property
    def safeguarded(self) -> bool:
        """Whether the server may shorten a step that leaves the domain: only where no explicit γ asks for it."""
        return self.damping is None

    def steps(self, required_rho: Callable[[], float]) -> Steps:
        """The next round's ρ, α, γ; `required_rho` asks the clients for the largest of their required penalties."""
        rho = self.rho if self.rho is not None else max(1.0, 1.5 * required_rho())
        return Steps(
            rho, 1.0 if self.alpha is None else self.alpha, self._damping if self.damping is None else self.damping
        )

    def observe(self, size: float) -> None:
        """`size` ‖Σ_k (λ_g − λ_k)‖ of the round, relative."""
        if size > self._size:
            self._damping = max(0.5 * self._damping, 1 / (4 * self.num_clients))
        else:
            self._damping = min(1.0, 1.3 * self._damping)
        self._size = size

    def state(self) -> dict[str, float]:
        """The numbers that the next round depends on."""
        return {"damping": self._damping, "size": self._size}

    def restore(self, state: Mapping[str, float]) -> None:
        """Go on from `state`."""
        self._damping, self._size = float(state["damping"]), float(state["size"])

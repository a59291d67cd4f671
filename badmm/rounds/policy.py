"""Step sizes: `rho`, `alpha` and `damping` of each round, from explicit values or from what the server sees.

Explicit values are used as they are. "auto" is

* ρ = 1/K in the first round: with duals at zero the existence condition holds for every ρ > 0, and K clients that each
  weigh the prior fully would each count the uncertainty that the others resolve. Then ρ = 1, where the client's problem
  is that of its cavity λ_0 − Σ_{j≠k} η_j, or 1.5 times what the existence condition needs if that is more.
* α = 1: with γ = 1 one round is exact for losses linear in μ, whatever ρ and the start (one-round theorem).
* γ = 1, halved while the rounds' changes grow and raised by 1.3 otherwise, not below 1/(4K). Once a round changes λ_g
  by less than its own length, γ is fixed (1; 0.7 under the diagonal family, whose rounds overshoot along correlated
  parameters) and the dual lines of earlier rounds are mixed in (`badmm.rounds.mixing`).
* Where rounds converge quadratically by themselves, ρ = (6.6/K)^1.4, at most 1, or 1.5 times what the existence
  condition needs, and no mixing. That is where a posterior holds the whole curvature and losses are taken at its mean
  (delta method): an error of the mean leaves none of first order in the mean after a round, as in Newton's method, the
  limit ρ → ∞ of the same round; mixed lines would bring older errors back. With ρ = 1 a client foresees its own part of
  the next step, with ρ = 1/K it takes the others to be like itself, which unequal clients are not. The two constants
  are fitted to the suite, on which no problem needs more rounds than the best of Newton, PVI and mixing
  (`python -m benchmarks.rounds`).
* Where mixing does not halve the gap in 30 rounds, plain rounds take over: γ = 1, α = 1/(1 + ρK), and ρ doubled or
  halved while the primal residual and ρ times the change of λ_g differ by more than a factor of 3 (Boyd et al. 2011,
  section 3.4.1). A loss with far more curvature than a fixed precision allows for needs a ρ in the hundreds.

The server uses only λ_g, the sums it receives, and the clients' required penalties (one number a client and round).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from badmm.checks import positive_number
from badmm_kernels.scalars import server_step

Setting = float | str
MARGIN = 1.5
"""The automatic ρ over the infimum that the existence condition allows."""
ALIKE = (6.6, 1.4)
"""K from which ρ = (this/K)^power in rounds that converge quadratically. Of ρ = K^{-p}, p = 0, ¼, ½, 1, and of every
ρ = c/K, each needs a round more than PVI or mixing on one problem of the suite at least."""
PATIENCE = 30
"""Rounds of mixing in which the gap has to halve."""
BALANCE = 3.0
"""The factor by which primal and dual residual may differ in plain rounds before ρ is changed."""


class Steps(NamedTuple):
    """ρ, α, γ of one round, and whether earlier dual lines may be mixed in."""

    rho: float
    alpha: float
    damping: float
    mixing: bool = False


def setting(value: Setting, name: str, upper: float = float("inf")) -> float | None:
    """An explicit value checked, or None for "auto"."""
    if isinstance(value, str):
        if value != "auto":
            raise ValueError(f'{name}: expected "auto" or a number, got {value!r}')
        return None
    return positive_number(value, name, upper)


class Policy:
    """Step sizes for K clients; where `damping` is "auto", dual lines are mixed at γ = `mixed_damping` (0: never)."""

    def __init__(
        self, num_clients: int, rho: Setting, alpha: Setting, damping: Setting, *, mixed_damping: float = 0.0
    ) -> None:
        self.num_clients = num_clients
        self.rho = setting(rho, "rho")
        self.alpha = setting(alpha, "alpha", 1.0)
        self.damping = setting(damping, "damping", 1.0)
        self.mixed_damping = mixed_damping
        self.quadratic: bool | None = None
        """Whether rounds converge quadratically, once the clients have told."""
        self.mixes = mixed_damping > 0 and self.damping is None and self.alpha in (None, 1.0)
        self._damping, self._size, self._round = 1.0, float("inf"), 0
        self._best, self._waited, self._plain_rho = float("inf"), 0, 0.0

    @property
    def safeguarded(self) -> bool:
        """Whether the server may shorten a step that leaves the domain: only where no explicit γ asks for it."""
        return self.damping is None

    def steps(self, required_rho: Callable[[], float], fisher_bound: Callable[[], float] | None = None) -> Steps:
        """The next round's step sizes.

        `required_rho` gives the largest of the clients' required penalties, `fisher_bound` an upper bound on the
        eigenvalues of the Fisher information at λ_g, for a γ that has its units.
        """
        if self._plain_rho:
            rho = max(self._plain_rho, MARGIN * required_rho())
            return Steps(rho, server_step(rho, self.num_clients), 1.0)
        rho = self.automatic_rho(required_rho()) if self.rho is None else self.rho
        alpha = 1.0 if self.alpha is None else self.alpha
        if self.damping is not None:
            return Steps(rho, alpha, self.damping)
        near = self.mixes and self._round > 0 and self._size < 1.0
        return Steps(rho, alpha, self.mixed_damping if near else self._damping, near and not self.quadratic)

    def automatic_rho(self, required: float) -> float:
        """ρ where it is "auto"."""
        return max(self._least(bool(self.quadratic), self._round), MARGIN * required)

    def _least(self, quadratic: bool, index: int) -> float:
        """The automatic ρ of a round by its index, where the existence condition needs no more."""
        if quadratic:
            clients, power = ALIKE
            return min(1.0, (clients / self.num_clients) ** power)
        return 1.0 / self.num_clients if index == 0 else 1.0

    def enough(self, playing: bool) -> float:
        """Required penalties up to this lead to the same ρ in the next round; none matters where it is infinite.

        `playing`: whether the round that is being played is still to be observed.
        """
        if self._plain_rho:
            return self._plain_rho / (2.0 * MARGIN)  # which the round may halve
        if self.rho is not None:
            return self.rho / MARGIN
        told = (True, False) if self.quadratic is None else (self.quadratic,)
        return min(self._least(quadratic, self._round + playing) for quadratic in told) / MARGIN

    def observe(
        self, size: float, mixed: bool = False, gap: float = 0.0, primal: float = 0.0, change: float = 0.0
    ) -> None:
        """What a round did. `size`: how far it moved λ_g at γ = 1, relative to λ_g; `mixed`: whether lines were mixed;
        `gap`, `primal` residual and the `change` of λ_g in posterior standard deviations.
        """
        if size > self._size:
            self._damping = max(0.5 * self._damping, 1 / (4 * self.num_clients))
        else:
            self._damping = min(1.0, 1.3 * self._damping)
        self._size = size
        self._round += 1
        if self._plain_rho:
            self._balance(primal, change)
        elif mixed:
            self._wait(gap)

    def _wait(self, gap: float) -> None:
        if gap < 0.5 * self._best:
            self._best, self._waited = gap, 0
            return
        self._waited += 1
        if self._waited >= PATIENCE and self.rho is None and self.alpha is None:
            self._plain_rho = 1.0

    def _balance(self, primal: float, change: float) -> None:
        dual = self._plain_rho * change
        if primal > BALANCE * dual:
            self._plain_rho *= 2.0
        elif dual > BALANCE * primal:
            self._plain_rho *= 0.5

    def state(self) -> dict[str, float]:
        """The numbers that the next round depends on."""
        return {name: float(getattr(self, f"_{name}")) for name in _NUMBERS}

    def restore(self, state: Mapping[str, float]) -> None:
        """Go on from `state`."""
        for name in _NUMBERS:
            setattr(self, f"_{name}", float(state[name]))


_NUMBERS = ("damping", "size", "round", "best", "waited", "plain_rho")

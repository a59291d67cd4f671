"""A client's dual step γ_k from how much of its residual persists from round to round.

A round's residual r = λ_g − λ_k is a disagreement b that duals have yet to take up, and noise n of local training. With
noise that is as large in the next round and independent of it,

    E⟨r_t, r_{t−1}⟩ / √(E‖r_t‖² E‖r_{t−1}‖²) = ‖b‖² / (‖b‖² + E‖n‖²),

Wiener's factor: the part of r that is b. The dual line with γ_k = that factor takes up b and leaves n. Duals that
follow noise make successive residuals opposite, and γ_k falls; duals that lag behind leave them alike, and it rises.
γ_k is the mean over rounds, the last one with weight ½, kept in [0.05, 1]. Inner products are those of the means in
posterior deviations, r = √S_g (m_k − m_g), a part of the Fisher metric.

Exact clients have no noise: γ_k is near 1 while residuals shrink without turning, and below it where they circle the
fixed point. A client computes it from its own residuals, of rounds in which it takes part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from badmm.rounds.network_method import State, Tensors, rows

if TYPE_CHECKING:
    from torch import Tensor

    from badmm.clients.federation import Task

FIRST, LEAST, WEIGHT = 0.5, 0.05, 0.5
"""γ of the first round, the least γ, and the weight of a new round in the mean."""
NAME, RESIDUAL = "own_damping", "own_residual"
"""γ_k and r among a client's tensors; the mean of γ_k among the server's."""


def begin(state: State) -> None:
    """Add γ_k (K, 1) and r = 0 (K, P) to the clients' tensors."""
    like = next(iter(state.clients.values()))
    state.clients |= {NAME: like.new_full((len(like), 1), FIRST), RESIDUAL: like.new_zeros(like.shape)}


def dampings(state: State, task: Task, residual: Tensor) -> Tensors:
    """γ_k (k, 1) and residuals (k, P) of the task's clients after a round with the residuals (k, P)."""
    before, damping = rows(state.clients, RESIDUAL, task), rows(state.clients, NAME, task)
    lengths = residual.double().square().sum(1, keepdim=True) * before.double().square().sum(1, keepdim=True)
    persists = (residual.double() * before.double()).sum(1, keepdim=True) / lengths.sqrt()
    found = damping.lerp(persists.to(damping.dtype), WEIGHT).clamp(LEAST, 1.0)
    return {NAME: found.where(lengths > 0, damping), RESIDUAL: residual}


def told(state: State) -> dict[str, float]:
    """The clients' mean γ_k as a round's record has it; nothing where γ is the same for all."""
    return {"damping": float(state.server[NAME])} if NAME in state.server else {}

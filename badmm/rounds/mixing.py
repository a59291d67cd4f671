"""Anderson mixing of the dual lines, from the sums that the server receives anyway.

At α = 1 a round maps the duals η to G(η), and η* = G(η*). The server receives Σ_k c_k = −Σ_k G_k, so that it knows
the sums Σ_k (G_k − η_k) of this and earlier rounds; it finds weights a_i, Σ a_i = 1, that minimise
‖Σ_i a_i Σ_k (G_k^i − η_k^i)‖ in the Fisher metric at λ_g, and sends them down beside λ_g = λ_0 − Σ_i a_i Σ_k G_k^i.
Each client sets η_k = Σ_i a_i G_k^i from its own memory. So a round still costs one λ up and one λ down, plus a few
numbers (Walker & Ni, SIAM J. Numer. Anal. 2011, for the mixing itself).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from badmm.checks import Array
from badmm.families.family import FamilyGeometry, Natural

CAP = 1e6
"""Largest Σ|a_i|. A mode that shrinks by 1 − ε a round has weights of 1/ε; beyond the cap they amplify rounding."""
CUT = 1e-8
"""Ridge on unit-length differences: directions that repeat to this accuracy are not separated."""


class DualMixing:
    """The server's memory of the last rounds: Σ_k G_k and Σ_k (G_k − η_k), natural-shaped tuples, newest last."""

    def __init__(self, family: FamilyGeometry, memory: int) -> None:
        self.family, self.memory = family, memory
        self.totals: list[Natural] = []
        self.changes: list[Natural] = []

    def reset(self) -> None:
        """Forget every round."""
        self.totals, self.changes = [], []

    def restore(self, totals: Sequence[Natural], changes: Sequence[Natural]) -> None:
        """Go on from these memories."""
        self.totals, self.changes = list(totals), list(changes)

    def weights(self, natural: Natural, total: Natural, change: Natural) -> Array:
        """Remember this round's Σ G and Σ (G − η); weights a (n,) of the remembered rounds, (1,) where none helps."""
        self.totals = [*self.totals[-self.memory :], total]
        self.changes = [*self.changes[-self.memory :], change]
        stacked = tuple(np.stack([one[slot] for one in self.changes]) for slot in range(len(change)))
        whitened = self.family.whiten(natural, stacked)
        last, earlier = whitened[-1], whitened[:-1]
        differences = (last - earlier).T
        sizes = np.linalg.norm(differences, axis=0)
        keep = sizes > 0
        a = np.zeros(len(whitened))
        if keep.any():
            columns = differences[:, keep] / sizes[keep]
            ridge = CUT * np.eye(columns.shape[1])
            right = np.concatenate([last, np.zeros(len(ridge))])
            a[:-1][keep] = np.linalg.lstsq(np.vstack([columns, ridge]), right, rcond=None)[0] / sizes[keep]
        a[-1] = 1.0 - a[:-1].sum()
        if np.isfinite(a).all() and np.abs(a).sum() <= CAP:
            return a
        # without the rounds that led here, or they would refuse every later one
        self.totals, self.changes = self.totals[-1:], self.changes[-1:]
        return np.ones(1)

    def mixed(self, a: Array) -> Natural:
        """Σ_i a_i Σ_k G_k^i over the newest len(a) rounds."""
        newest = self.totals[-len(a) :]
        return tuple(
            np.sum([weight * one[slot] for weight, one in zip(a, newest, strict=True)], axis=0)
            for slot in range(len(newest[0]))
        )

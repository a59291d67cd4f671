"""Anderson mixing of the dual lines, from the sums that the server receives anyway.

At α = 1 a round maps the duals η to G(η), and η* = G(η*). The server knows the sums Σ_k (G_k − η_k) of this and
earlier rounds; it finds weights a_i, Σ a_i = 1, that minimise ‖Σ_i a_i Σ_k (G_k^i − η_k^i)‖ in the Fisher metric at
λ_g, and sends them down beside λ_g = λ_0 − Σ_i a_i Σ_k G_k^i. Each client sets η_k = Σ_i a_i G_k^i from its own
memory. So a round still costs one λ up and one λ down, plus a few numbers (Walker & Ni, SIAM J. Numer. Anal. 2011, for
the mixing itself).
"""

from __future__ import annotations

import numpy as np

from badmm.checks import Array
from badmm.families.family import Family, Natural

CAP = 1e6
"""Largest Σ|a_i|. A mode that shrinks by 1 − ε a round has weights of 1/ε; beyond the cap they amplify rounding."""
CUT = 1e-8
"""Ridge on unit-length differences: directions that repeat to this accuracy are not told apart."""


class DualMixing:
    """Memory of the last rounds' dual lines G (n, K, ...) and of the sums of G − η (n, ...), newest last."""

    def __init__(self, family: Family, memory: int) -> None:
        self.family, self.memory = family, memory
        self.lines: Natural = ()
        self.sums: Natural = ()

    def reset(self) -> None:
        """Forget every round."""
        self.lines, self.sums = (), ()

    def restore(self, lines: Natural, sums: Natural) -> None:
        """Go on from these memories."""
        self.lines, self.sums = lines, sums

    def weights(self, natural: Natural, duals: Natural, lines: Natural) -> Array:
        """Remember this round and return the weights a (n,) of the remembered dual lines; (1,) where none help."""
        sums = tuple(np.sum(new - old, axis=0) for new, old in zip(lines, duals, strict=True))
        self.lines = self._append(self.lines, lines)
        self.sums = self._append(self.sums, sums)
        whitened = self.family.whiten(natural, self.sums)
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
        self.lines, self.sums = (tuple(slot[-1:] for slot in memory) for memory in (self.lines, self.sums))
        return np.ones(1)

    def mix(self, a: Array) -> Natural:
        """Σ_i a_i G^i over the newest len(a) rounds."""
        mixed = tuple(np.asarray(np.tensordot(a, slot[-len(a) :], axes=1)) for slot in self.lines)
        return self.family.symmetrised(mixed)

    def _append(self, memory: Natural, new: Natural) -> Natural:
        if not memory:
            return tuple(slot[None] for slot in new)
        return tuple(np.concatenate([old[-self.memory :], slot[None]]) for old, slot in zip(memory, new, strict=True))

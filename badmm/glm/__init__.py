"""Generalized linear models over sites that keep their rows: formulas, data frames, the tables that go with them."""

from badmm.glm.fitting import fit
from badmm.glm.result import GLMResult
from badmm.glm.survival import piecewise

__all__ = ["GLMResult", "fit", "piecewise"]

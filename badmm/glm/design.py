"""From a formula and the sites' frames to design matrices with the same columns everywhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from badmm.checks import Array
from badmm.data.names import DOUBTFUL
from badmm.glm import columns, formulas
from badmm.glm.columns import Column
from badmm.glm.families import ResponseFamily
from badmm.glm.rows import Positions, Site, SiteRows, SpilledRows

POLICIES = ("drop", "error")


@dataclass
class Design:
    """A formula, and what the sites agreed on: `terms` are the names of the coefficients.

    offset is a formula's term added to the predictor, exposure a column whose logarithm is, weights a column that
    counts rows. missing: "drop" leaves a row with a missing value out and counts it, "error" refuses it. Raises
    `ValueError` for a formula or columns that do not fit.
    """

    formula: str
    family: ResponseFamily
    offset: str | None = None
    weights: str | None = None
    exposure: str | None = None
    missing: str = "drop"
    agreed: dict[str, Column] = field(default_factory=dict)
    terms: tuple[str, ...] = ()
    levels: tuple[Any, ...] = ()
    """Those of the response, where it has levels instead of numbers."""

    def __post_init__(self) -> None:
        if self.missing not in POLICIES:
            raise ValueError(f"missing: expected one of {', '.join(POLICIES)}, got {self.missing!r:.80}")
        self._left, self._right = formulas.two_sided(self.formula)
        self._offset = None if self.offset is None else formulas.offset(self.offset)
        for argument, name in (("weights", self.weights), ("exposure", self.exposure)):
            if name is not None and not isinstance(name, str):
                raise ValueError(f"{argument}: expected the name of a column, got {type(name).__name__}")
        both = set(self.responses) & {*formulas.columns(self._right), *self._shift()}
        if both:
            raise ValueError(f"formula: expected the response on the left alone, got {min(both)!r} among the terms too")
        for argument, given, taken in (
            ("offset", self.offset, self.family.takes_offset),
            ("exposure", self.exposure, self.family.takes_offset and self.family.link == "log"),
        ):
            if given is not None and not taken:
                link = "" if argument == "offset" else f" with the {self.family.link} link"
                raise ValueError(f"{argument}: expected none for family {self.family.name!r}{link}, got {given!r:.80}")

    def _shift(self) -> list[str]:
        """The columns that offset and exposure need."""
        exposure = [] if self.exposure is None else [self.exposure]
        return [*exposure, *([] if self._offset is None else formulas.columns(self._offset))]

    def _extras(self) -> list[str]:
        return [*([] if self.weights is None else [self.weights]), *self._shift()]

    @property
    def predictors(self) -> list[str]:
        """The columns that the right-hand side, offset and exposure need."""
        return list(dict.fromkeys([*formulas.columns(self._right), *self._shift()]))

    @property
    def responses(self) -> list[str]:
        """The columns of the left-hand side."""
        return formulas.columns(self._left)

    @property
    def columns(self) -> list[str]:
        """All columns that a site needs."""
        return list(dict.fromkeys([*self.responses, *self.predictors, *self._extras()]))

    def rows(self, sites: Any) -> dict[str, Site]:
        """Every site's rows; agrees on columns and levels first. A site that is read in chunks is read twice."""
        sources = columns.read(sites, self.columns)
        many = self.family.levels_taken[1] > 2
        levelled = [*formulas.levelled(self._right), *(self.responses if many else ())]
        self.agreed = columns.agree(sources, self.columns, levelled)
        self._check_extras()
        found: dict[str, Site] = {}
        for site, source in sources.items():
            blocks = (self._block(site, frame) for frame in source.frames())
            found[site] = SpilledRows(blocks) if source.streamed else next(blocks)
        self.family = self.family.of_levels(self.levels)
        if not any(rows.used for rows in found.values()):
            raise ValueError("sites: expected at least one row without missing values, got none")
        return found

    def _block(self, site: str, whole: pd.DataFrame) -> SiteRows:
        """The rows of one of a site's frames."""
        frame, kept = self._complete(site, whole)
        y = self._response(site, frame)
        X, offset = self.matrix(frame, site)
        return SiteRows(X, y, self._weights(site, frame), offset, len(whole) - len(kept), kept)

    def new_rows(self, data: Any) -> tuple[Array, Array, Positions]:
        """X, offset and the positions of the rows without missing values, for data without a response."""
        frame = columns.frame_of(data, "data", self.predictors)
        known = {name: self.agreed[name] for name in self.predictors}
        columns.check_kinds(frame, known)
        kept = np.flatnonzero(frame.notna().all(axis=1).to_numpy())
        X, offset = self.matrix(columns.conform(frame.iloc[kept], known), None)
        return X, offset, kept

    def doubtful_levels(self) -> list[str]:
        """A note for each level that may stand for a missing value."""
        found = [(name, level) for name, column in self.agreed.items() for level in column.levels if level in DOUBTFUL]
        return [f"{name}: {level!r} is counted as a level, not as a missing value" for name, level in found]

    def _check_extras(self) -> None:
        for name in self._extras():
            if self.agreed[name].kind != columns.NUMBER:
                raise ValueError(
                    f"{name}: expected numbers for offset, weights or exposure, got {self.agreed[name].kind}"
                )

    def _complete(self, site: str, frame: pd.DataFrame) -> tuple[pd.DataFrame, Positions]:
        whole = frame.notna().all(axis=1).to_numpy()
        if self.missing == "error" and not whole.all():
            row = int(np.argmin(whole))
            name = frame.columns[frame.iloc[row].isna().to_numpy()][0]
            where = columns.where(site, name)
            raise ValueError(f"{where}: expected no missing values, got one at {columns.place(frame, row)}")
        kept = np.flatnonzero(whole)
        return columns.conform(frame.iloc[kept], self.agreed), kept

    def _response(self, site: str, frame: pd.DataFrame) -> Array:
        name = self.responses[0]
        where = columns.where(site, str(self._left))
        fewest, most = self.family.levels_taken
        if str(self._left) == name and self.agreed[name].kind != columns.NUMBER:
            self.levels = self.agreed[name].levels
            if not fewest <= len(self.levels) <= most or not most:
                wanted = f"{self._wanted()} for family {self.family.name!r}"
                raise ValueError(f"{where}: expected {wanted}, got levels {self.levels!r:.80}")
            measured = [level for level in self.levels if isinstance(level, float) and level % 1]
            if measured:
                raise ValueError(f"{where}: expected levels as text or whole numbers, got {measured[0]!r}")
            return frame[name].cat.codes.to_numpy(dtype=float)
        if most > 2:
            raise ValueError(f"{where}: expected a column of levels on the left, got {str(self._left)!r:.80}")
        found = formulas.evaluated(self._left, frame, site)
        if found.shape[1] != 1:
            raise ValueError(f"{where}: expected one column of numbers, got {found.shape[1]}")
        y = found.to_numpy(dtype=float)[:, 0]
        good, wanted = self.family.support(y)
        formulas.require(good, y, frame, where, wanted)
        return y

    def _wanted(self) -> str:
        fewest, most = self.family.levels_taken
        numbers = "0 or 1, or two levels," if most == 2 else "numbers"
        return f"{fewest} to {most} levels" if most > 2 else numbers

    def matrix(self, frame: pd.DataFrame, site: str | None) -> tuple[Array, Array]:
        """X and offset of a conformed frame."""
        found = formulas.evaluated(self._right, frame, site)
        names = tuple(map(str, found.columns))
        if self.terms and names != self.terms:
            other = next((pair for pair in zip(names, self.terms, strict=False) if pair[0] != pair[1]), names[-1:])
            raise ValueError(f"sites[{site!r}]: expected the terms of the other sites, got {other[0]!r}")
        self.terms = names
        offset = np.zeros(len(frame))
        if self._offset is not None:
            offset = offset + formulas.evaluated(self._offset, frame, site).to_numpy(dtype=float)[:, 0]
        if self.exposure is not None:
            exposure = frame[self.exposure].to_numpy(dtype=float)
            good = (exposure > 0) & np.isfinite(exposure)
            formulas.require(good, exposure, frame, columns.where(site, self.exposure), "a positive exposure")
            offset = offset + np.log(exposure)
        return np.ascontiguousarray(found.to_numpy(dtype=float)), offset

    def _weights(self, site: str, frame: pd.DataFrame) -> Array:
        if self.weights is None:
            return np.ones(len(frame))
        weights = frame[self.weights].to_numpy(dtype=float)
        good = (weights >= 0) & np.isfinite(weights)
        formulas.require(good, weights, frame, columns.where(site, self.weights), "weights of at least 0")
        return weights

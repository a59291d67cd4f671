"""The file of a site: the study that it takes part in, its own data, and what it refuses.

    study = "study.toml"                      the problem that all sites have agreed on
    name = "north"
    source = "north.csv"                      takes the place of the study's data.source
    share = "/mnt/study"                      the folder of the engine of files
    memory = "/var/lib/badmm"                 what the site remembers, on a disk of its own
    [refuse]
    minimum_rows = 10
    minimum_events = 5
    maximum_parameters_per_row = 0.1
    allowed_columns = ["age", "dose", "ill"]  left out: every column

The defaults of `[refuse]` are those of vantage6's generalized linear model (v6-glm-py, constants.py and privacy.rst):
10 rows, 10 parameters per 100 rows, 5 rows per category. Paths are relative to the file.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import Field

from badmm.experiments import config as configuration
from badmm.experiments.config.schema import Name, Positive, Section, check
from badmm.experiments.config.solver import SolverConfig
from badmm.experiments.config.toml import ConfigError, read


class Refuse(Section):
    """What the site does not take part in."""

    minimum_rows: int = Field(10, ge=1)
    minimum_events: int = Field(5, ge=0)
    """Rows of the rarest class, or the sum of counts; has no effect on a loss without either."""
    maximum_parameters_per_row: Positive = 0.1
    allowed_columns: tuple[str, ...] | None = Field(None, strict=False)


class Site(Section):
    """A site's part in a study."""

    study: str
    name: Name
    source: str
    share: str | None = None
    memory: str = "memory"
    refuse: Refuse = Refuse()


def load(path: Path, overrides: Iterable[str] = ()) -> tuple[Site, SolverConfig]:
    """Read a site's file and its study with the site's own data; raise ConfigError with a line per problem.

    Overrides are of the site's file: the study's is what all sites have agreed on.
    """
    site = check(Site, read(path, overrides), str(path))
    places = {key: str(path.parent / getattr(site, key)) for key in ("study", "source", "memory")}
    share = None if site.share is None else str(path.parent / site.share)
    site = site.model_copy(update=places | {"share": share})
    source = f"data.source={Path(site.source).resolve()}"
    study = configuration.load(Path(site.study), [source])
    if not isinstance(study, SolverConfig):
        raise ConfigError(f"{path}: study: expected a convex problem, got networks ({site.study})")
    return site, study

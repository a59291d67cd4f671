"""Where the sums meet."""

from badmm.experiments.jobs.flower import server_app as app

__all__ = ["app"]

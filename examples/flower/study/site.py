"""A site: its own file says which data, under which name, and what it refuses."""

from badmm.experiments.jobs.flower import client_app as app

__all__ = ["app"]

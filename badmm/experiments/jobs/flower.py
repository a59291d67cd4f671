"""A study over Flower: the `ServerApp` where the sums meet, and the `ClientApp` of its sites.

    [tool.flwr.app.components]
    serverapp = "server:app"         a file with: from badmm.experiments.jobs.flower import server_app as app
    clientapp = "site:app"           a file with: from badmm.experiments.jobs.flower import client_app as app

A site's SuperNode says in its `--node-config` where the site's own file is, `site="/etc/badmm/site.toml"`
(`badmm.experiments.config.site`): data, memory, name and refusals are the site's, whatever the server sends. The run's
configuration has `study`, `sites` ("north,south") and `out`; of `deadline`, `minimum`, `outlier` and `resend` 0 means
the default, and of `bits` ""; `resume` goes on with the run in `out`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from badmm.experiments import config as configuration, run
from badmm.experiments.config import ConfigError, SolverConfig
from badmm.experiments.engines import SERVER, Engine, identity, remote
from badmm.experiments.jobs import site as sites
from badmm.experiments.jobs.solver import SolverJob
from badmm.transports.atomic import write_atomic
from badmm.transports.flower import ANSWER, JOIN, FlowerServer, refused, respond

server_app, client_app = ServerApp(), ClientApp()
OPTIONS = {"deadline": float, "minimum": int, "outlier": float, "bits": str, "resend": float}


@server_app.main()
def serve(grid: Grid, context: Context) -> None:
    """Sum what the sites of the run's configuration send, until the study's tolerance is met."""
    given = context.run_config
    for key in ("study", "sites", "out"):
        if key not in given:
            raise ConfigError(f"{key}: expected a value in the run's configuration, got none")
    study = configuration.load(str(given["study"]))
    remote(study)
    assert isinstance(study, SolverConfig)
    out, names, resume = Path(str(given["out"])), str(given["sites"]).split(","), bool(given.get("resume", False))
    options: dict[str, Any] = {key: kind(given[key]) for key, kind in OPTIONS.items() if given.get(key)}
    server = FlowerServer(grid, out / "exchange", names, identity=identity(study), resume=resume, **options)
    result = run.run(study, out, resume=resume, console=run.console_for(False), engine=Engine(server, SERVER))
    run.require_convergence(study, result, out)


@client_app.query(JOIN.partition(".")[2])
@client_app.train(ANSWER.partition(".")[2])
def answer(message: Message, context: Context) -> Message:
    """The site's reply, from its own data; one that takes no part says so, and its own log says why."""
    name = "unknown"
    try:
        path = context.node_config.get("site")
        if path is None:
            raise ConfigError("site: expected the file of the site in the node's configuration, got none")
        site, study, problem = sites.load(Path(str(path)))
        name = site.name
        sites.refuse(site, problem)
        remote(study)
    except (ValueError, OSError) as error:
        print(f"error: {error}", flush=True)
        return refused(message, name)

    def follow(transport: Any) -> None:
        job = SolverJob(study, Engine(transport, name))
        result = job.follow()
        write_atomic(transport.share.path / "posterior.safetensors", job.posterior(result))

    return respond(message, context, name, Path(site.memory), identity(study), follow)

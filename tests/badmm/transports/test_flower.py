"""The Flower apps: the loop over a Grid without a network, and SuperLink and SuperNodes as processes (make engines)."""

from __future__ import annotations

import importlib.util
import itertools
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import badmm
from badmm.demo import problems
from tests.badmm.transports.rank_program import PROBLEMS, solve_arguments

if importlib.util.find_spec("flwr") is None:
    pytest.skip("no flwr in this environment (make engines has one)", allow_module_level=True)
with warnings.catch_warnings():  # of what Flower imports
    warnings.simplefilter("ignore")
    import flwr.clientapp
    import flwr.serverapp  # noqa: F401

from flwr.app import Context, Error, Message as FlowerMessage, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from badmm.checks import RankError
from badmm.transports.flower import FlowerServer, respond

if TYPE_CHECKING:
    from flwr.supercore.run import Run

pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore")]
Answer = Callable[[FlowerMessage, Context], FlowerMessage]
TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1  # as in a process that Flower has started


class Wire(Grid):
    """A Grid whose nodes answer when the server pauses; `fate` says what becomes of a message or of its reply."""

    def __init__(self, apps: dict[int, Answer], configs: dict[int, dict[str, Any]]) -> None:
        self.apps = apps
        self.contexts = {
            node: Context(run_id=1, node_id=node, node_config=configs[node], state=RecordDict(), run_config={})
            for node in apps
        }
        self.queue: list[FlowerMessage] = []
        self.replies: dict[str, FlowerMessage] = {}
        self.numbers = itertools.count(1)
        self.fate: Callable[[FlowerMessage], str] = lambda message: "arrives"
        self.now = 0.0

    def set_run(self, run: Run) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Run:
        raise NotImplementedError

    def create_message(self, *_: Any, **__: Any) -> FlowerMessage:
        raise NotImplementedError

    def send_and_receive(self, *_: Any, **__: Any) -> Iterable[FlowerMessage]:
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        return list(self.apps)

    def push_messages(self, messages: Iterable[FlowerMessage]) -> Iterable[str]:
        found = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = f"message-{next(self.numbers)}"
            self.queue.append(message)
            found.append(message.metadata.message_id)
        return found

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[FlowerMessage]:
        return [self.replies.pop(identifier) for identifier in message_ids if identifier in self.replies]

    def pause(self, seconds: float) -> None:
        """Time passes and every node works off its messages."""
        self.now += seconds
        queue, self.queue = self.queue, []
        for message in queue:
            node = message.metadata.dst_node_id
            fate = self.fate(message)
            if fate == "lost" or node not in self.apps:
                continue
            if fate == "error":
                reply = FlowerMessage(Error(code=3, reason="node is away"), reply_to=message)
            else:
                reply = self.apps[node](message, self.contexts[node])
            if fate != "reply lost":
                self.replies[message.metadata.message_id] = reply


def site(name: str, memory: Path, clients: list[Any], arguments: dict[str, Any], columns: str = "age") -> Answer:
    def answer(message: FlowerMessage, context: Context) -> FlowerMessage:
        def follow(transport: Any) -> None:
            badmm.solve(clients, transport=transport, workers=1, **arguments)

        return respond(message, context, name, memory, {"columns": columns}, follow)

    return answer


def federation(folder: Path, own: dict[str, list[Any]], arguments: dict[str, Any]) -> Wire:
    apps = {100 + k: site(name, folder / name, clients, arguments) for k, (name, clients) in enumerate(own.items())}
    return Wire(apps, {node: {} for node in apps})


def serve(wire: Wire, folder: Path, names: Iterable[str], arguments: dict[str, Any], **options: Any) -> badmm.Result:
    chosen: dict[str, Any] = {"identity": {"columns": "age"}, "resend": 5.0, **options}
    server = FlowerServer(wire, folder, names, clock=lambda: wire.now, pause=wire.pause, **chosen)
    return badmm.solve([], transport=server, workers=1, **arguments)


@pytest.mark.parametrize(("name", "family"), PROBLEMS[:4])
def test_a_grid_gives_the_posterior_of_one_process(name: str, family: str, tmp_path: Path) -> None:
    problem = problems.make(name, 0)
    arguments = solve_arguments(problem, family)
    alone = badmm.solve(problem.clients, workers=1, **arguments)
    each = {f"site-{k}": [client] for k, client in enumerate(problem.clients)}
    few = {"north": problem.clients[:3], "south": problem.clients[3:]}
    for place, own in (("each", each), ("few", few)):
        wire = federation(tmp_path / place, own, arguments)
        found = serve(wire, tmp_path / place / "server", own, arguments)
        for expected, summed in zip(alone.natural, found.natural, strict=True):
            assert np.abs(summed - expected).max() <= 1e-12 * np.abs(expected).max()
            # a client per site adds in the order of clients: the same bits
            assert place == "few" or np.array_equal(summed, expected)


@pytest.fixture
def small() -> tuple[dict[str, list[Any]], dict[str, Any], badmm.Result]:
    from benchmarks.simulated_sites import clients

    everyone = clients()
    prior = badmm.Gaussian(np.zeros(3), 1.0)
    arguments: dict[str, Any] = {"family": "full_gaussian", "prior": prior, "rounds": 60, "tol": 1e-9}
    own = {"north": everyone[:3], "south": everyone[3:5], "east": everyone[5:]}
    return own, arguments, badmm.solve(everyone, workers=1, **arguments)


def same(found: badmm.Result, expected: badmm.Result, tolerance: float = 1e-7) -> None:
    assert found.converged
    for mine, theirs in zip(found.natural, expected.natural, strict=True):
        assert np.abs(mine - theirs).max() <= tolerance * np.abs(theirs).max()


def test_lost_messages_and_replies_are_sent_again_and_change_no_bit(small: Any, tmp_path: Path) -> None:
    own, arguments, _ = small
    calm = serve(federation(tmp_path / "calm", own, arguments), tmp_path / "calm/server", own, arguments)
    wire, rng = federation(tmp_path / "rough", own, arguments), np.random.default_rng(5)
    fates = ("lost", "reply lost", "error", *["arrives"] * 4)
    wire.fate = lambda message: fates[int(rng.integers(len(fates)))]
    rough = serve(wire, tmp_path / "rough/server", own, arguments)
    assert all(np.array_equal(a, b) for a, b in zip(calm.natural, rough.natural, strict=True))


def test_a_node_that_starts_again_is_known_by_its_name_and_has_its_duals(small: Any, tmp_path: Path) -> None:
    own, arguments, expected = small
    wire, count = federation(tmp_path, own, arguments), itertools.count()

    def fate(message: FlowerMessage) -> str:
        if next(count) == 12:  # south's machine is replaced: another number, and what its disk has
            wire.apps[999], wire.contexts[999] = wire.apps.pop(101), wire.contexts.pop(101)
            wire.contexts[999].state = RecordDict()
        if next(count) == 31:  # north loses its disk; its context still has its memory
            for path in (tmp_path / "north").glob("*/north.safetensors"):
                path.unlink()
        return "arrives"

    wire.fate = fate
    same(serve(wire, tmp_path / "server", own, arguments), expected)
    assert 999 in wire.apps


def test_a_site_that_is_late_is_absent_and_the_answer_is_the_same(small: Any, tmp_path: Path) -> None:
    own, arguments, expected = small
    wire, count = federation(tmp_path, own, arguments), itertools.count()
    wire.fate = lambda message: "lost" if message.metadata.dst_node_id == 102 and 3 < next(count) < 8 else "arrives"
    found = serve(wire, tmp_path / "server", own, arguments, deadline=2.0)
    assert sum(record.absent for record in found.history) > 0
    same(found, expected)
    assert '"site": "east", "reason": "late' in (tmp_path / "server" / "refused.jsonl").read_text(encoding="utf-8")


def test_a_server_that_was_killed_goes_on(small: Any, tmp_path: Path) -> None:
    own, arguments, _ = small
    calm = serve(federation(tmp_path / "calm", own, arguments), tmp_path / "calm/server", own, arguments)
    wire, states = federation(tmp_path, own, arguments), []

    def die(state: badmm.SolverState) -> None:
        states.append(state)
        if state.round == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        serve(wire, tmp_path / "server", own, arguments | {"callbacks": [die]})
    found = serve(wire, tmp_path / "server", own, arguments | {"state": states[1]}, resume=True)
    assert all(np.array_equal(a, b) for a, b in zip(calm.natural, found.natural, strict=True))


def test_another_configuration_and_a_false_name_are_refused(small: Any, tmp_path: Path) -> None:
    own, arguments, expected = small
    wire = federation(tmp_path, own, arguments)
    wire.apps[101] = site("south", tmp_path / "south", own["south"], arguments, columns="dose")
    with pytest.raises(RankError, match="site south: columns: expected age, got dose"):
        serve(wire, tmp_path / "server", own, arguments)
    wire = federation(tmp_path / "other", own, arguments)
    wire.apps[101] = site("south", tmp_path / "other/south", own["south"], arguments | {"temperature": 2.0})
    with pytest.raises(RankError, match="site south: configuration: expected the digest"):
        serve(wire, tmp_path / "other/server", own, arguments)
    # a second node that claims to be east is not asked for anything else
    wire = federation(tmp_path / "false", own, arguments)
    wire.apps[300] = site("east", tmp_path / "false/liar", own["south"], arguments)
    wire.contexts[300] = Context(run_id=1, node_id=300, node_config={}, state=RecordDict(), run_config={})
    same(serve(wire, tmp_path / "false/server", own, arguments), expected)
    assert not list((tmp_path / "false" / "liar").glob("*/east.safetensors"))


def test_letters_have_no_names_but_their_own(small: Any, tmp_path: Path) -> None:
    from badmm.transports.flower import _packed

    own, arguments, _ = small
    answer = site("north", tmp_path / "north", own["north"], arguments)
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
    for name, run in (("../outside.safetensors", "abc"), ("000001.safetensors", "../abc")):
        message = FlowerMessage(_packed({name: b"x"}, run=run), 1, "train.answer")
        with pytest.raises(ValueError, match=r"expected a name of|expected the name of a message"):
            answer(message, context)


STUDY = """
name = "trial"
family = "full_gaussian"
[data]
source = "columns.csv"
target = "dose"
standardize = false
[split]
kind = "iid"
clients = 1
[likelihood]
kind = "linear_regression"
[run]
rounds = 2
tol = 0.0
"""


def test_superlink_and_supernodes_give_the_posterior_of_one_process(tmp_path: Path) -> None:
    from badmm.__main__ import main
    from badmm.transports.sealed import load_tensors
    from tests.badmm.transports.flower_federation import Federation, node_key

    names, rng, together = ("north", "south"), np.random.default_rng(0), ["age,dose,site"]
    for place, name in enumerate(names):
        rows = [f"{x!r},{(2 * x + 0.1 * e)!r}" for x, e in rng.normal(size=(30, 2)).tolist()]
        (tmp_path / f"{name}.csv").write_text("\n".join(["age,dose", *rows]) + "\n", "utf-8")
        site = f'study = "study.toml"\nname = "{name}"\nsource = "{name}.csv"\nmemory = "memory-{name}"\n'
        (tmp_path / f"{name}.toml").write_text(site, "utf-8")
        together += [f"{row},{place}" for row in rows]
    (tmp_path / "all.csv").write_text("\n".join(together) + "\n", "utf-8")
    (tmp_path / "columns.csv").write_text("age,dose\n0.0,0.0\n", "utf-8")
    (tmp_path / "study.toml").write_text(STUDY, "utf-8")
    pooled = STUDY.replace("columns.csv", "all.csv").replace('"iid"\nclients = 1', '"column"\ncolumn = "site"')
    (tmp_path / "pooled.toml").write_text(pooled, "utf-8")
    assert main(["run", str(tmp_path / "pooled.toml"), "--quiet", "--out", str(tmp_path / "pooled")]) == 0
    expected = load_tensors(tmp_path / "pooled" / "posterior.safetensors")[0]

    with Federation(tmp_path) as federation:
        for name in names:
            federation.register(name)
            federation.node(name, tmp_path / f"{name}.toml")
        node_key(tmp_path, "stranger")  # whom nobody has registered
        federation.node("stranger", tmp_path / "north.toml")
        given = {"study": tmp_path / "study.toml", "sites": ",".join(names), "out": tmp_path / "out"}
        federation.flwr(
            "run", ".", "study", "--run-config", " ".join(f'{key}="{value}"' for key, value in given.items())
        )
        up = tmp_path / "out" / "exchange" / "up" / "south"
        federation.until((up / "000001.safetensors").exists, "link", 600)
        federation.kill("south")
        federation.node("south", tmp_path / "south.toml")
        federation.until((tmp_path / "out" / "posterior.safetensors").exists, "link", 900)
        ends = [tmp_path / "out", *(next((tmp_path / f"memory-{name}").iterdir()) for name in names)]
        federation.until(lambda: all((end / "posterior.safetensors").exists() for end in ends), "link", 120)
        assert federation.processes["stranger"].poll() not in (None, 0)
    for end in ends:
        found = load_tensors(end / "posterior.safetensors")[0]
        assert all(np.array_equal(found[key], expected[key]) for key in expected), end

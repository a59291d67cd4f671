"""A pytest plugin that runs, per planted error, the tests that reach it, in a fork of one session.

The session collects the tests and runs each once with nothing planted, which compiles and loads what they need and
tells which functions they reach, in their fixtures too, and what they cost. Per error a fork then runs those tests, the
cheapest first, until one fails or the budget is spent. A test that takes far longer than before ends its fork, which
counts as a failure.
What kills an error counts only if the same test passes in a fork with nothing planted.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.state import state

NOTHING = "nothing"
"""Planted: nothing. A name that is no function's."""


def cpu() -> float:
    """CPU seconds of this process and its children."""
    return sum(os.times()[:4])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--planted", type=Path, help="a JSON file: names, jobs, budget (CPU seconds), results")


def pytest_configure(config: pytest.Config) -> None:
    if (file := config.getoption("--planted")) is not None:
        set_mutant_under_test("stats")
        config.pluginmanager.register(Forks(json.loads(file.read_text(encoding="utf-8"))))


class Reach:
    """Which functions a test or a fixture reaches, and its CPU seconds."""

    def __init__(self) -> None:
        self.functions: dict[Any, set[str]] = defaultdict(set)
        self.seconds: dict[Any, float] = defaultdict(float)

    @contextmanager
    def watch(self, key: Any) -> Iterator[None]:
        """What runs within is the key's, and not that of a key outside."""
        outer, began = set(state()._stats), cpu()
        state()._stats.clear()
        try:
            yield
        finally:
            self.functions[key] |= state()._stats
            self.seconds[key] += cpu() - began
            state()._stats.update(outer)


class Forks:
    """The loop over tests, and over planted errors."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.names: list[str] = settings["names"]
        self.jobs, self.budget, self.results = settings["jobs"], settings["budget"], Path(settings["results"])
        self.reach, self.failed = Reach(), ""
        self.cost: dict[pytest.Item, float] = {}
        self.sound: dict[pytest.Item, bool] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Generator[None, Any, Any]:
        """What a fixture of several tests reaches is reached by each of them."""
        with self.reach.watch(fixturedef):
            return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed = f"{report.nodeid}\n{report.longreprtext}"

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            raise session.Interrupted(f"{session.testsfailed} errors at collection")
        for item, following in pairwise([*session.items, None]):
            assert item is not None
            with self.reach.watch(item):
                run(item, following)
            if self.failed:
                raise session.Interrupted(f"a test fails with nothing planted: {self.failed}")
        gc.collect()
        gc.freeze()
        tests = self.by_function(session.items)
        dearest = sorted(self.cost, key=self.cost.__getitem__, reverse=True)[:20]
        print("\n", *(f"{self.cost[item]:.1f} s  {item.nodeid}\n" for item in dearest), flush=True)
        with self.results.open("w", encoding="utf-8") as stream:
            for name, outcome in self.outcomes(tests):
                stream.write(json.dumps({"name": name, **outcome}) + "\n")
                stream.flush()
        return True

    def by_function(self, items: Sequence[pytest.Item]) -> dict[str, list[pytest.Item]]:
        """The tests that reach a function, the cheapest first."""
        found: dict[str, list[pytest.Item]] = defaultdict(list)
        for item in items:
            fixtures = {one for some in item._fixtureinfo.name2fixturedefs.values() for one in some}  # type: ignore[attr-defined]
            self.cost[item] = self.reach.seconds[item] + sum(self.reach.seconds[one] for one in fixtures)
            for function in self.reach.functions[item].union(*(self.reach.functions[one] for one in fixtures)):
                found[function].append(item)
        for reaching in found.values():
            reaching.sort(key=self.cost.__getitem__)
        return found

    def outcomes(self, tests: dict[str, list[pytest.Item]]) -> Generator[tuple[str, dict[str, Any]]]:
        """Per planted error: killed, and by which test; survived; or no test."""
        waiting = [(name, tests.get(name.partition("__mutmut_")[0], [])) for name in reversed(self.names)]
        running: dict[int, tuple[str, list[pytest.Item], int]] = {}
        while waiting or running:
            while waiting and len(running) < self.jobs:
                name, items = waiting.pop()
                if items:
                    pid, channel = self.fork(name, items)
                    running[pid] = (name, items, channel)
                else:
                    yield name, {"outcome": "no test", "tests": 0}
            if not running:
                continue
            pid, status = os.wait()
            if pid not in running:
                continue
            name, items, channel = running.pop(pid)
            begun = os.read(channel, 1 << 16)
            os.close(channel)
            if status == 0:
                yield name, {"outcome": "survived", "tests": len(begun)}
                continue
            last = items[max(len(begun), 1) - 1]
            if self.passes(last):
                signalled = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else ""
                yield name, {"outcome": "killed", "tests": len(begun), "by": last.nodeid, "signal": signalled}
            else:
                waiting.append((name, [item for item in items if item is not last]))

    def passes(self, item: pytest.Item) -> bool:
        """Whether a test passes in a fork with nothing planted."""
        if item not in self.sound:
            pid, channel = self.fork(NOTHING, [item])
            self.sound[item] = os.waitpid(pid, 0)[1] == 0
            os.close(channel)
            if not self.sound[item]:
                print(f"left out, for it fails in a fork with nothing planted: {item.nodeid}", flush=True)
        return self.sound[item]

    def fork(self, name: str, items: list[pytest.Item]) -> tuple[int, int]:
        """A process that runs tests with one error planted until the budget is spent, and what tells which have begun,
        a byte each."""
        begun, tell = os.pipe()
        pid = os.fork()
        if pid:
            os.close(tell)
            return pid, begun
        try:
            forget(name)
            set_mutant_under_test(name)
            began = cpu()
            for item, following in pairwise([*items, None]):
                assert item is not None
                os.write(tell, b".")
                # by what the process computes: the machine may be busy; and by the clock, if it waits for ever
                signal.setitimer(signal.ITIMER_PROF, 5 + 5 * self.cost[item])
                signal.setitimer(signal.ITIMER_REAL, 120 + 60 * self.cost[item])
                run(item, following)
                if self.failed:
                    if name == NOTHING:
                        print(self.failed, flush=True)
                    os._exit(1)
                if cpu() - began > self.budget:
                    break
            os._exit(0)
        finally:
            os._exit(3)


def forget(name: str) -> None:
    """Have a cached property with an error computed anew, whatever it was computed for before."""
    module, _, function = name.partition("__mutmut_")[0].rpartition(".")
    *_, owner, attribute = ["", *function.removeprefix("x").split("ǁ")[-2:]]
    kind = getattr(sys.modules.get(module), owner, None)
    if isinstance(getattr(kind, attribute, None), cached_property):
        gc.unfreeze()
        for one in gc.get_objects():
            if isinstance(one, kind):  # type: ignore[arg-type]
                vars(one).pop(attribute, None)


def run(item: pytest.Item, following: pytest.Item | None) -> None:
    item.ihook.pytest_runtest_protocol(item=item, nextitem=following)

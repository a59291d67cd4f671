"""Calls of several threads: pieces, their errors, concurrent callers, and callers that use one thread alone."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import badmm_kernels
from badmm_kernels.cpu import threads

SIZE = 4 * threads.GRAIN
PATIENCE = 60  # seconds after which a wait counts as a deadlock


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = badmm_kernels.get_num_threads()
    badmm_kernels.set_num_threads(2)
    yield
    badmm_kernels.set_num_threads(before)


def pieces_of(rows: int, width: int) -> list[tuple[threads.Part, str]]:
    """The pieces that a call is cut into, and the threads that computed them."""
    found: list[tuple[threads.Part, str]] = []

    def run(row_lo: int, row_hi: int, lo: int, hi: int) -> int:
        found.append(((row_lo, row_hi, lo, hi), threading.current_thread().name))
        return 0

    assert threads.split(run, rows, width) == 0
    return sorted(found)


def step(seed: int, count: int) -> list[Any]:
    """One call of the largest kernel on data of its own."""
    rng = np.random.default_rng(seed)
    g, m, v = (rng.normal(size=count).astype(np.float32) for _ in range(3))
    s = rng.uniform(0.5, 2.0, count).astype(np.float32)
    call = badmm_kernels.load("ivon").update_sample
    return list(call(g, m, s, v, (0.0, 0.1), 400.0, 0.1, 0.9, 0.999, seed=seed, step=1, next_step=2))


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize(("rows", "width"), [(1, SIZE + 17), (SIZE, 1), (3, SIZE), (40, SIZE // 10), (0, 5), (5, 0)])
def test_pieces_cover_every_coordinate_once(rows: int, width: int, count: int) -> None:
    badmm_kernels.set_num_threads(count)
    seen = np.zeros((rows, width), np.int64)
    parts = [part for part, _ in pieces_of(rows, width)]
    for row_lo, row_hi, lo, hi in parts:
        seen[row_lo:row_hi, lo:hi] += 1
    assert (seen == 1).all() and len(parts) <= count


def test_the_bits_of_all_pieces_are_joined() -> None:
    badmm_kernels.set_num_threads(3)
    assert threads.split(lambda _r0, _r1, lo, _hi: 1 if lo == 0 else 4, 1, SIZE) == 5


@pytest.mark.parametrize("fails", [(0,), (1,), (2,), (1, 2), (0, 1, 2)])
def test_an_error_of_a_piece_is_raised_when_all_have_ended(fails: tuple[int, ...]) -> None:
    badmm_kernels.set_num_threads(3)
    starts, ended = [part[2] for part, _ in pieces_of(1, SIZE)], []

    def run(_row_lo: int, _row_hi: int, lo: int, _hi: int) -> int:
        ended.append(lo)
        if starts.index(lo) in fails:
            raise RuntimeError(f"piece {starts.index(lo)}")
        return 0

    with pytest.raises(RuntimeError, match=f"piece {fails[0]}"):
        threads.split(run, 1, SIZE)
    assert sorted(ended) == starts
    assert len(pieces_of(1, SIZE)) == 3  # and the helpers live on


def test_a_helper_takes_part() -> None:
    """Two pieces that wait for each other end only where two threads compute them."""
    meeting = threading.Barrier(2)

    def run(*_part: int) -> int:
        meeting.wait(PATIENCE)
        return 0

    assert threads.split(run, 1, SIZE) == 0


def test_a_call_does_not_wait_for_helpers_that_are_busy() -> None:
    begun, go_on = threading.Semaphore(0), threading.Event()

    def blocked(*_part: int) -> int:
        begun.release()
        assert go_on.wait(PATIENCE)
        return 0

    with ThreadPoolExecutor(1) as caller:
        first = caller.submit(threads.over, blocked, 1, SIZE)
        try:
            assert begun.acquire(timeout=PATIENCE) and begun.acquire(timeout=PATIENCE)  # the caller and the one helper
            mine = threading.current_thread().name
            assert [name for _, name in pieces_of(1, SIZE)] == [mine, mine]
        finally:
            go_on.set()
        assert first.result(PATIENCE) == 0


def test_a_call_within_a_piece_ends() -> None:
    assert threads.split(lambda *_part: threads.split(lambda *_inner: 2, 1, SIZE), 1, SIZE) == 2


def test_a_call_ends_where_no_thread_can_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads, "_workers", 0)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert {name for _, name in pieces_of(1, SIZE)} == {threading.current_thread().name}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_concurrent_callers_get_their_own_results(count: int) -> None:
    badmm_kernels.set_num_threads(1)
    expected = [step(seed, 150_001) for seed in range(4)]
    badmm_kernels.set_num_threads(count)
    with ThreadPoolExecutor(4) as callers:
        found = list(callers.map(lambda k: step(k % 4, 150_001), range(24)))
    for k, results in enumerate(found):
        assert all((a == b).all() for a, b in zip(results, expected[k % 4], strict=True))


def test_concurrent_callers_get_their_own_errors() -> None:
    def call(k: int) -> str:
        array = np.ones(SIZE)
        if k % 3:
            array[SIZE - 1 - k] = -1.0
        try:
            badmm_kernels.load("diagonal_gaussian").natural_from_standard(np.ones(SIZE), array)
        except ValueError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(4) as callers:
        found = list(callers.map(call, range(12)))
    for k, message in enumerate(found):
        assert message == (f"precision: expected positive, got -1.0 at index {SIZE - 1 - k}" if k % 3 else "")


def test_helpers_keep_no_array_of_a_call_that_ended() -> None:
    class Owner:
        pass

    owner = Owner()
    gone = weakref.ref(owner)
    meeting = threading.Barrier(2)

    def run(*_part: int, held: Any = owner) -> int:
        meeting.wait(PATIENCE)
        return 0

    threads.split(run, 1, SIZE)
    del run, owner
    test_a_helper_takes_part()  # the helper has left the first call behind
    gc.collect()
    assert gone() is None


def test_a_thread_alone_uses_no_other() -> None:
    mine = threading.current_thread().name
    with badmm_kernels.single_threaded():
        assert pieces_of(3, SIZE) == [((0, 3, 0, SIZE), mine)]
        with badmm_kernels.single_threaded():
            pass
        badmm_kernels.set_num_threads(3)
        assert len(pieces_of(1, SIZE)) == 1 and badmm_kernels.get_num_threads() == 3
    assert len(pieces_of(1, SIZE)) == 3


def test_a_thread_alone_concerns_no_other_thread() -> None:
    inside, done = threading.Event(), threading.Event()

    def alone() -> int:
        with badmm_kernels.single_threaded():
            inside.set()
            assert done.wait(PATIENCE)
            return len(pieces_of(1, SIZE))

    with ThreadPoolExecutor(1) as other:
        waiting = other.submit(alone)
        assert inside.wait(PATIENCE)
        assert len(pieces_of(1, SIZE)) == 2
        done.set()
        assert waiting.result(PATIENCE) == 1
        assert other.submit(lambda: len(pieces_of(1, SIZE))).result(PATIENCE) == 2  # the same thread, after the block


def test_a_thread_alone_ends_with_an_error() -> None:
    with pytest.raises(KeyError), badmm_kernels.single_threaded():
        raise KeyError
    assert len(pieces_of(1, SIZE)) == 2


def test_a_thread_alone_gets_the_same_results() -> None:
    expected = step(5, 150_001)
    with badmm_kernels.single_threaded():
        assert all((a == b).all() for a, b in zip(step(5, 150_001), expected, strict=True))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_while_another_thread_calls() -> None:
    code = """
import os, threading, numpy as np, badmm_kernels
badmm_kernels.set_num_threads(3)
ns, x, stop = badmm_kernels.load("diagonal_gaussian"), np.ones(1 << 18), threading.Event()
ns.natural_from_standard(x, x)  # compiled: a fork while Numba compiles leaves its own lock taken
def work():
    while not stop.is_set():
        ns.natural_from_standard(x, x)
worker = threading.Thread(target=work, daemon=True)
worker.start()
for _ in range(20):
    pid = os.fork()
    if pid == 0:
        ns.natural_from_standard(x, x)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
stop.set()
worker.join()
"""
    subprocess.run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", code], check=True, timeout=120)

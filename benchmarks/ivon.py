"""Time of an IVON step on the CPU relative to the machine's bandwidth, PyPI's ivon-opt and torch's fused AdamW.

    python -m benchmarks.ivon [--repeats 5] [--out docs/ivon-performance.md]

A step is the optimizer's work without forward and backward passes: draw normals, sample the parameters, update
momentum, precision and mean from the gradient. It is float32 on one flat tensor; times are those of the fastest of
several steps, and for the peers also the median, because the page faults of ivon-opt cost more than its arithmetic and
vary. The kernels are measured in five variants: `sample` and then `update`, or both in `update_sample`, with the next
sample in the gradient's memory or not; normals are stored and read, or drawn again. Bytes: an array that is read counts
once, one updated in place twice, one that is only written twice (the line is fetched before it is written). The floor
is the time of these bytes at the ceiling, the read-modify-write loop a[i] = a[i] * s over 160 MB on the same threads,
in turn with the step. The cavity (prior and duals) is two arrays for ADMM and two numbers for IVON alone. ivon-opt and
AdamW run in separate processes, ivon-opt with the default malloc and with one tuned to keep freed memory mapped
(MALLOC_MMAP_MAX_=0 with a large trim threshold and top pad).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import badmm_kernels
from benchmarks.machine import describe, times, update_bandwidth, write

Array = np.ndarray[Any, Any]
ROOT = Path(__file__).resolve().parent.parent
SIZES = (1_000_000, 10_000_000)
THREADS = (1, 2)
SEPARATE = "sample, update; normals stored"
CEILING = 40_000_000  # float32 numbers, far beyond the caches
HYPER = {"ess": 6e4, "lr": 1e-4, "beta1": 0.9, "beta2": 0.99999, "debias": 0.5}
TUNED = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 36), "MALLOC_TOP_PAD_": str(1 << 28)}


@dataclass(frozen=True)
class Variant:
    """One variant of a step: name, form of the cavity, bytes per coordinate, and the step."""

    name: str
    cavity: str
    bytes: int
    step: Callable[[], Any]


def variants(count: int) -> Iterator[Variant]:
    """The five ways, with a cavity of numbers and of arrays."""
    ns, rng = badmm_kernels.load("ivon"), np.random.default_rng(0)
    # gradients so small that thousands of steps with one set of normals leave the precision where it is
    g, m = ((scale * rng.normal(size=count)).astype(np.float32) for scale in (1e-3, 1.0))
    s, v = rng.uniform(0.1, 1.0, count).astype(np.float32), np.zeros(count, np.float32)
    eps, theta = np.zeros(count, np.float32), np.zeros(count, np.float32)
    state = (m, s, v)
    # here the last sample stands for the gradient, and moves a state of its own
    own = {"g": g.copy(), "state": tuple(a.copy() for a in state)}
    arrays = (np.zeros(count, np.float32), np.full(count, 1e-4, np.float32))
    stored, again = {"noise": eps, "next_noise": eps}, {"step": 1}
    for label, cavity, more in (("numbers", (0.0, 1e-4), 0), ("arrays", arrays, 8)):

        def apart(keep: bool, cavity: Any = cavity) -> None:
            ns.sample(m, s, HYPER["ess"], seed=1, step=1, noise=eps if keep else None, out=(theta,))
            ns.update(g, *state, cavity, **HYPER, **({"noise": eps} if keep else {"seed": 1, "step": 1}), out=state)

        def fused(keep: bool, cavity: Any = cavity, g: Any = g, theta: Any = theta, state: Any = state) -> None:
            ns.update_sample(
                g, *state, cavity, **HYPER, seed=1, next_step=2, **(stored if keep else again), out=(*state, theta)
            )

        # sample reads m and s, writes theta (and eps); update reads g (and eps) and updates m, s and v
        yield Variant(SEPARATE, label, 56 + more, partial(apart, True))
        yield Variant("sample, update; drawn again", label, 44 + more, partial(apart, False))
        yield Variant("update_sample; normals stored", label, 44 + more, partial(fused, True))
        yield Variant("update_sample; drawn again", label, 36 + more, partial(fused, False))
        yield Variant(
            "update_sample in place; normals stored", label, 40 + more, partial(fused, True, theta=own["g"], **own)
        )


def peer_times(name: str, count: int, threads: int, repeats: int) -> list[float]:
    """Seconds of a peer's steps, in this process."""
    import torch

    torch.set_num_threads(threads)
    parameter = torch.nn.Parameter(torch.randn(count))
    gradient = torch.randn(count) * 1e-3
    if name == "adamw":
        parameter.grad = gradient
        adam = torch.optim.AdamW([parameter], lr=1e-4, fused=True)
        return times(adam.step, repeats)
    import ivon

    optimizer = ivon.IVON([parameter], lr=1e-4, ess=HYPER["ess"])

    def step() -> None:
        with optimizer.sampled_params(train=True):
            parameter.grad = gradient
        optimizer.step()

    return times(step, repeats)


def in_process(name: str, count: int, threads: int, repeats: int, environment: dict[str, str]) -> list[float]:
    """Return the same in a separate process, which reads malloc's settings."""
    own = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    own |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), **environment}
    command = [sys.executable, "-m", "benchmarks.ivon", "--peer", name, str(count), str(threads), str(repeats)]
    done = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout))


@dataclass
class Times:
    """Every measurement by what was measured."""

    seconds: dict[Any, list[float]] = field(default_factory=dict)

    def add(self, key: Any, seconds: list[float]) -> None:
        """More measurements."""
        self.seconds.setdefault(key, []).extend(seconds)

    def fastest(self, key: Any) -> float:
        """The least of what was measured."""
        return min(self.seconds[key])

    def median(self, key: Any) -> float:
        """The median of what was measured."""
        return statistics.median(self.seconds[key])


def measure(repeats: int) -> Times:
    """Rounds of everything in turn: a slow minute of the machine's slows all of it alike."""
    found = Times()
    buffer = np.ones(CEILING, np.float32)
    peers: tuple[tuple[str, str, dict[str, str]], ...]
    peers = (("ivon-opt", "ivon", {}), ("ivon-opt, malloc tuned", "ivon", TUNED), ("torch AdamW, fused", "adamw", {}))
    for size in SIZES:
        ours, more = list(variants(size)), max(1, 4_000_000 // size)
        for _ in range(2):
            for threads in THREADS:
                badmm_kernels.set_num_threads(threads)
                for variant in ours:
                    key = (variant.name, variant.cavity, variant.bytes, size, threads)
                    found.add(("ceiling", *key), times(update_bandwidth(buffer), 2))
                    # another process's turn on a core costs more than a step: the fastest of few would show that
                    found.add(key, times(variant.step, repeats * max(4, more)))
                for label, name, environment in peers:
                    count = repeats * more if name == "ivon" else 4 * repeats
                    found.add((label, size, threads), in_process(name, size, threads, count, environment))
    return found


def ceiling(found: Times, key: Any) -> float:
    """GB/s of the read-modify-write loop, measured in turn with a step: what others leave of the memory varies."""
    return 8 * CEILING / found.fastest(("ceiling", *key)) / 1e9


def our_rows(found: Times) -> Iterator[str]:
    """One row a variant, size and thread count."""
    columns = (
        "step, cavity, coordinates, threads, ns a coordinate, bytes, ceiling in GB/s, floor in ns, GB/s, of the ceiling"
    )
    titles = columns.split(", ")
    yield f"| {' | '.join(titles)} |"
    yield f"|{' --- |' * len(titles)}"
    for key in found.seconds:
        if len(key) == 5:
            name, cavity, moved, size, threads = key
            seconds, limit = found.fastest(key), ceiling(found, key)
            rate = moved * size / seconds / 1e9
            yield (
                f"| {name} | {cavity} | {size:.0e} | {threads} | {seconds / size * 1e9:.2f} | {moved} | "
                f"{limit:.1f} | {moved / limit:.2f} | {rate:.1f} | {rate / limit:.2f} |"
            )


def chosen(found: Times, cavity: str, size: int, threads: int) -> Any:
    """The key of the fastest way that keeps the gradient, as the peers do."""
    ours = [k for k in found.seconds if len(k) == 5 and (k[1], *k[3:]) == (cavity, size, threads)]
    ours = [k for k in ours if "in place" not in k[0]]
    return min(ours, key=found.fastest)


def apart(found: Times, cavity: str, size: int, threads: int) -> Any:
    """The key of a call to sample and one to update, where the parameters are at the mean in between."""
    (key,) = (
        k for k in found.seconds if len(k) == 5 and (k[1], *k[3:]) == (cavity, size, threads) and k[0] == SEPARATE
    )
    return key


def peer_rows(found: Times) -> Iterator[str]:
    """The peers beside the fastest way and `sample` and `update` with numbers for the cavity, as they compute."""
    yield "ns a coordinate, fastest / median; ours: the fastest way above, and what `badmm.ivon.IVON` does."
    yield ""
    yield "| coordinates | threads | optimizer | its step | ours | times faster | sample, update | times faster |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for key in found.seconds:
        if len(key) == 3:
            label, size, threads = key
            own = (chosen(found, "numbers", size, threads), apart(found, "numbers", size, threads))
            theirs, *ours = ([f(k) / size * 1e9 for f in (found.fastest, found.median)] for k in (key, *own))
            shown = [f"{theirs[0]:.2f} / {theirs[1]:.2f}"]
            for a, b in ours:
                shown += [f"{a:.2f} / {b:.2f}", f"{theirs[0] / a:.1f} / {theirs[1] / b:.1f}"]
            yield f"| {size:.0e} | {threads} | {label} | {' | '.join(shown)} |"


def summary(found: Times) -> Iterator[str]:
    """The ceilings, and the way to choose."""
    for threads in THREADS:
        limits = [ceiling(found, key) for key in found.seconds if len(key) == 5 and key[4] == threads]
        yield f"- ceiling, threads: {threads}: {min(limits):.1f} to {max(limits):.1f} GB/s"
    for cavity in ("numbers", "arrays"):
        names = [
            f"{chosen(found, cavity, size, threads)[0]} ({size:.0e} coordinates, threads: {threads})"
            for size in SIZES
            for threads in THREADS
        ]
        yield f"- fastest that keeps the gradient, with {cavity} for the cavity: {', '.join(names)}"
    yield (
        "- federated clients step with `update_sample` and stored normals (drawing them again saves an array and costs "
        "a second run of the generator); `badmm.ivon.IVON`, whose parameters are at the mean between two steps, with "
        "`sample` and `update`"
    )


def main(argv: list[str] | None = None) -> int:
    """Run all tables and print or write them."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ivon", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--peer", nargs=4, metavar=("NAME", "COUNT", "THREADS", "REPEATS"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.peer:
        name, *numbers = args.peer
        print(json.dumps(peer_times(name, *map(int, numbers))))
        return 0
    found = measure(args.repeats)
    about = (__doc__ or "").split("\n\n")[-1].strip()
    versions = describe(("torch", "ivon-opt"))
    lines = [
        "# Speed of the IVON step on the CPU",
        "",
        f"`python -m benchmarks.ivon --repeats {args.repeats}` on {versions}.",
    ]
    lines += ["", about, "", *summary(found), "", "## The step", "", *our_rows(found)]
    lines += ["", "## Beside other optimizers", "", *peer_rows(found)]
    print("\n".join(lines))
    if args.out:
        write(args.out, "\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

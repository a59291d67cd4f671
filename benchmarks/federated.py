"""python -m benchmarks.federated: time of a communication round of MNIST's size, batched over clients or one by one.

The round is that of the MNIST experiment of arXiv:2506.13150: 100 clients with 600 images of 28×28 levels and two
classes each, an MLP 784-200-100-10, 10 local epochs in batches of 64. Images are random levels, since time depends on
shapes alone. The paths take turns: IVON-ADMM with batched clients (one worker per core, each with a stack of clients),
the same local training of one client at a time in a torch loop with ivon-opt, batched FedAvg (torch's fused Adam), and
the matrix products alone on one core, divided by the number of cores, as the floor. `--out` writes
docs/federated-performance.md.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import ivon
import numpy as np
import torch
from torch import Tensor, nn

import badmm_kernels
from badmm.clients.federation import ClientData, Federation, LocalSettings, Task
from badmm.ivon import IVON
from badmm.methods import NETWORKS
from badmm.networks import dense, models
from badmm.networks.losses import CROSS_ENTROPY
from badmm.networks.stacked import Stacked
from badmm.rounds import network_round as rounds
from badmm.rounds.network_method import NetworkMethod
from benchmarks import machine

CLIENTS, POINTS, EPOCHS, BATCH = 100, 600, 10, 64
SIZES = (784, 200, 100, 10)


@dataclass(frozen=True)
class Plan:
    """How much is run: all clients in a batched round, `stack` together; `alone` of them one by one, and scaled."""

    clients: int
    stack: int
    alone: int
    repeats: int


def federation(clients: int) -> Federation:
    """The experiment's sizes with random images; two labels a client."""
    draw = torch.Generator().manual_seed(0)
    count = clients * POINTS
    images = torch.randint(0, 256, (count, 1, 28, 28), dtype=torch.uint8, generator=draw)
    labels = (torch.arange(count) // (POINTS // 2)) % 10
    network = models.build("mlp", (1, 28, 28), 10, 0)
    settings = LocalSettings(lr=0.02, epochs=EPOCHS, batch_size=BATCH)
    data = ClientData(images, labels, tuple(torch.arange(count).split(POINTS)), 255)
    return Federation(data, Stacked(network, CROSS_ENTROPY), settings, 0, torch.float32)


def batched(fed: Federation, method: NetworkMethod, stack: int) -> Callable[[], float]:
    """Seconds of a whole round: local training, dual and server lines."""
    state, workers = method.start(fed, fed.stack.initial(fed.dtype)), torch.get_num_threads()

    def run() -> float:
        began = time.perf_counter()
        outcome = rounds.play(method, fed, state, lr=fed.settings.lr, largest=stack, workers=workers)
        seconds = time.perf_counter() - began
        if outcome.excluded:
            raise RuntimeError(f"expected every client to be used, got {outcome.excluded}")
        return seconds

    return run


def one_by_one(fed: Federation, clients: int, make: Callable[[nn.Module], torch.optim.Optimizer]) -> float:
    """Seconds of the local training of `clients` clients, each in a plain torch loop."""
    began = time.perf_counter()
    for client in range(clients):
        network = models.build("mlp", (1, 28, 28), 10, 0)
        optimizer = make(network)
        index, _ = Task(fed, [client], 0, fed.settings.lr).batches()
        for rows in index[:, 0]:
            x, y = fed.data.points(rows, fed.dtype)
            local_step(network, optimizer, x, y)
    return time.perf_counter() - began


def local_step(network: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    """A step with one sample, or a plain one for an optimizer without samples."""
    if isinstance(optimizer, ivon.IVON | IVON):
        with optimizer.sampled_params(train=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x), y).backward()
    else:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
    optimizer.step()


OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "ivon-opt": lambda net: ivon.IVON(net.parameters(), lr=0.02, ess=POINTS, hess_init=0.005),
    "badmm.ivon.IVON": lambda net: IVON(net.parameters(), lr=0.02, ess=POINTS, hess_init=0.005, seed=0),
    "torch Adam (fused)": lambda net: torch.optim.Adam(net.parameters(), lr=1e-3, fused=True),
}


def floors(stack: int, repeats: int = 20) -> dict[str, float]:
    """Return the least seconds per client step of the matrix products of a forward and a backward pass on one core, by
    torch's batched product and by the operations of the batched path.
    """

    operands = []
    for place, (a, b) in enumerate(itertools.pairwise(SIZES)):
        x, w, y = (torch.rand(stack, *shape) for shape in ((BATCH, a), (b, a), (BATCH, b)))
        operands += [(x, w, torch.empty_like(y)), (y.mT, x.mT, torch.empty_like(w))]
        if place:
            operands.append((y, w.mT, torch.empty_like(x)))
    ways: dict[str, list[Callable[[], object]]] = {
        "torch.bmm": [partial(torch.bmm, x, w.mT, out=out) for x, w, out in operands],
        "here": [dense.product(x, w, None, out) for x, w, out in operands],
    }

    def run(products: list[Callable[[], object]]) -> None:
        for product in products:
            product()

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {name: machine.best(partial(run, products), repeats) / stack for name, products in ways.items()}
    finally:
        torch.set_num_threads(threads)


def measure(plan: Plan) -> dict[str, list[float]]:
    """Return the seconds of a round by path, one value per repetition; paths take turns, so that drift affects all."""
    fed = federation(plan.clients)
    methods = {"IVON-ADMM, batched": NETWORKS["ivon_admm"](), "FedAvg (Adam), batched": NETWORKS["fedavg"]()}
    whole = {name: batched(fed, method, plan.stack) for name, method in methods.items()}
    found: dict[str, list[float]] = {name: [] for name in (*whole, *OPTIMIZERS)}
    small = federation(plan.stack)  # loads the compiled kernels
    for method in methods.values():
        batched(small, method, plan.stack)()
    for make in OPTIMIZERS.values():
        one_by_one(small, 1, make)
    for number in range(plan.repeats):
        for name, run in whole.items():
            found[name].append(run())
        for name, make in OPTIMIZERS.items():
            found[name].append(one_by_one(fed, plan.alone, make) * plan.clients / plan.alone)
        print(f"{number + 1} of {plan.repeats}", file=sys.stderr)
    return found


def report(plan: Plan) -> str:
    """The tables of one number of threads."""
    threads, steps = torch.get_num_threads(), plan.clients * EPOCHS * -(-POINTS // BATCH)
    found = measure(plan)
    cores = min(threads, -(-plan.clients // plan.stack))
    bound = {name: seconds * steps / cores for name, seconds in floors(plan.stack).items()}
    floor = min(bound.values())
    slow, ours, adam = (float(np.mean(found[n])) for n in ("ivon-opt", *list(found)[:2]))
    lines = [
        f"## {threads} thread{'s' * (threads > 1)}",
        "",
        "| path | s a round | ms a local step | against ivon-opt, one by one |",
        "| --- | --- | --- | --- |",
    ]
    for name, seconds in found.items():
        title = name if "batched" in name else f"{name}, one by one"
        spread = f" ± {np.std(seconds, ddof=1):.1f}" if len(seconds) > 1 else ""
        mean = float(np.mean(seconds))
        lines.append(f"| {title} | {mean:.1f}{spread} | {1e3 * mean / steps:.2f} | {slow / mean:.1f}× |")
    alone = [float(np.mean(found[n])) for n in ("badmm.ivon.IVON", "torch Adam (fused)")]
    for name, least in bound.items():
        title = f"matrix products alone, {'as here' if name == 'here' else name}, one core's time / {cores}"
        lines.append(f"| {title} | {least:.1f} | {1e3 * least / steps:.2f} | {slow / least:.1f}× |")
    lines += [
        "",
        f"A batched round is {slow / ours:.1f}× faster than one by one with ivon-opt (target: 4×) and takes "
        f"{ours / floor:.1f}× the floor that the matrix products set. A local step of IVON takes {ours / adam:.2f}× "
        f"one of Adam where clients are batched, {alone[0] / alone[1]:.2f}× one by one (target: 1.3×).",
        "",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the page; write it to `--out`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.federated", description=__doc__)
    parser.add_argument("--threads", default=f"1,{os.cpu_count() or 1}", help="comma-separated (default: 1, all cores)")
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--stack", type=int, default=10, help="clients that train together (default: 10)")
    parser.add_argument("--alone", type=int, default=8, help="clients timed one by one, scaled up (default: 8)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="where to write the page")
    chosen = parser.parse_args(arguments)
    plan = Plan(chosen.clients, chosen.stack, min(chosen.alone, chosen.clients), chosen.repeats)
    versions = f"torch {torch.__version__}, ivon-opt {importlib.metadata.version('ivon-opt')}"
    lines = [
        "# A communication round, batched over clients",
        "",
        f"Written by `python -m benchmarks.federated --repeats {plan.repeats} --out docs/federated-performance.md`.",
        *(__doc__ or "").partition("\n")[2].rpartition(" `--out`")[0].splitlines(),
        "",
        f"{plan.clients} clients, {plan.stack} at a time; the paths one by one are timed on {plan.alone} clients and "
        f"scaled to all (local training alone, no dual and server lines). Mean ± sd of {plan.repeats} turns. "
        f"{machine.describe()}, {versions}.",
        "",
    ]
    for count in dict.fromkeys(int(part) for part in chosen.threads.split(",")):
        torch.set_num_threads(count)
        badmm_kernels.set_num_threads(count)
        lines.append(report(plan))
    text = "\n".join(lines).rstrip() + "\n"
    print(text)
    if chosen.out:
        machine.write(chosen.out, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

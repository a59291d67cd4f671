"""python -m tests.house.wheel_check: what a user gets who installs the wheel beside packages that could clash with it.

Builds the wheel and installs it into a fresh environment together with `kernels` and transformers from PyPI. There it
runs the command line, a program beside a file `kernels.py`, and mypy on a user's script. Prints one line per check;
exit status 1 where one fails. Needs a package index; pins come from constraints.txt.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"badmm", "badmm_kernels", "badmm_derive", "badmm_validation"}
NEIGHBOURS = ("kernels", "transformers")

TOP_LEVEL = """
from importlib.metadata import files
print(*sorted({p.parts[0] for p in files("bayesian-admm") if p.suffix == ".py" and ".." not in p.parts}))
"""

PROGRAM = """
import numpy as np
import torch
from transformers import BertConfig, BertModel

import badmm
import kernels
from badmm.ivon import IVON

assert kernels.OWNER == "the user", kernels
site = badmm.likelihoods.LinearRegression(np.eye(3), np.ones(3), noise_variance=1.0)
result = badmm.solve([site, site], family="full_gaussian", prior=badmm.Gaussian(np.zeros(3), 1.0))
np.testing.assert_allclose(result.posterior.mean, 2 / 3)

torch.manual_seed(0)
sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 11}
model = BertModel(BertConfig(**sizes))
optimizer = IVON(model.parameters(), lr=0.1, ess=100.0)
words = torch.arange(6)[None]
losses = []
for _ in range(5):
    with optimizer.sampled_params(train=True):
        optimizer.zero_grad()
        loss = model(words).last_hidden_state[..., 0].square().mean()
        loss.backward()
    optimizer.step()
    losses.append(float(loss.detach()))
assert losses[-1] < losses[0], losses
print("solved, trained")
"""

TYPED = """
import numpy as np
import badmm
reveal_type(badmm.solve([], family="gamma", prior=badmm.Gamma(1.0, 1.0)).rounds)
badmm.solve([], family=3, prior=badmm.Gaussian(np.zeros(2), 1.0))
"""


class Environment:
    """A fresh virtual environment with the wheel and its neighbours, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "environment"
        self.bin = self.root / "bin"
        venv.create(self.root)

    def run(self, *command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """A command of the environment, away from the checkout."""
        clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
        clean |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        line = [str(self.bin / str(command[0])), *map(str, command[1:])]
        return subprocess.run(line, cwd=cwd or self.folder, env=clean, capture_output=True, text=True)

    def install(self, wheel: Path) -> None:
        """The wheel after its neighbours: the last one installed wins where two packages have a file in common.

        This environment's pip installs there, or uv where UV names it, and nothing is compiled that is never imported.
        """
        uv = os.environ.get("UV")
        pip = [sys.executable, "-m", "pip", "--python", str(self.root), "--disable-pip-version-check"]
        start = (
            [uv, "pip", "install", "--python", str(self.bin / "python")] if uv else [*pip, "install", "--no-compile"]
        )
        wanted = [*NEIGHBOURS, "mypy", f"{wheel}[run,torch,derive]"]
        done = subprocess.run(
            [*start, "-q", "-c", str(ROOT / "constraints.txt"), *wanted], capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"pip install: expected exit status 0, got {done.returncode}\n{done.stderr}")


def build(folder: Path) -> Path:
    """The wheel of this checkout."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def expect(done: subprocess.CompletedProcess[str], text: str, status: int = 0) -> None:
    """Raise AssertionError unless the command ended with `status` and its output holds `text`."""
    shown = f"{done.stdout}{done.stderr}"
    assert done.returncode == status, f"expected exit status {status}, got {done.returncode}\n{shown}"
    assert text in shown, f"expected {text!r} in\n{shown}"


def top_level(env: Environment) -> None:
    """Only the four packages are at the wheel's top level."""
    done = env.run("python", "-c", TOP_LEVEL)
    assert set(done.stdout.split()) == PACKAGES, f"expected {sorted(PACKAGES)}, got {done.stdout}{done.stderr}"


def beside_kernels(env: Environment) -> None:
    """solve, IVON and transformers work with the package `kernels` installed, beside a user's file kernels.py."""
    user = env.folder / "user"
    user.mkdir()
    (user / "kernels.py").write_text('OWNER = "the user"\n', encoding="utf-8")
    (user / "program.py").write_text(PROGRAM, encoding="utf-8")
    expect(env.run("python", "program.py", cwd=user), "solved, trained")


def neighbours(env: Environment) -> None:
    """The package `kernels` from PyPI is intact after this one was installed."""
    expect(env.run("python", "-c", "import kernels, badmm; print(kernels.get_kernel.__name__)"), "get_kernel")


def command_line(env: Environment) -> None:
    """`badmm` knows its version, derives and validates."""
    expect(env.run("badmm", "--version"), "badmm ")
    expect(env.run("badmm", "derive", "gamma", "--show", "family"), "log_partition")
    expect(env.run("badmm", "derive", "gamma", "--check"), "generated files are what derive writes")
    expect(env.run("badmm", "derive", "gamma"), "--out: expected", status=2)
    expect(env.run("badmm", "run", "missing.toml"), "missing.toml", status=2)
    (env.folder / "small.toml").write_bytes((ROOT / "configs" / "breast_cancer.toml").read_bytes())
    expect(env.run("badmm", "run", "small.toml", "--quiet", "--out", "results"), "")
    assert (env.folder / "results" / "history.jsonl").is_file()


def validation(env: Environment) -> None:
    """`badmm validate` finds a family's oracle and passes; the kernels' code is compiled here, so one family."""
    expect(env.run("badmm", "validate", "--family", "exponential"), " 0 missed")


def types(env: Environment) -> None:
    """A user's mypy sees the types: it reveals one and finds a wrong argument."""
    (env.folder / "typed.py").write_text(TYPED, encoding="utf-8")
    done = env.run("python", "-m", "mypy", "--no-incremental", "typed.py")
    expect(done, "typed.py:4: note: Revealed type is", status=1)
    assert "int" in done.stdout.splitlines()[0] and "Any" not in done.stdout.splitlines()[0], done.stdout
    assert "typed.py:5: error" in done.stdout, done.stdout
    assert "missing library stubs or py.typed" not in done.stdout, done.stdout


CHECKS: tuple[Callable[[Environment], None], ...] = (
    top_level,
    neighbours,
    beside_kernels,
    types,
    command_line,
    validation,
)


def main(checks: Sequence[Callable[[Environment], None]] = CHECKS) -> int:
    """Build, install, check; the exit status."""
    failed = 0
    with tempfile.TemporaryDirectory(prefix="wheel-check-") as name:
        folder = Path(name)
        began = time.perf_counter()
        env = Environment(folder)
        env.install(build(folder))
        print(f"installed in {time.perf_counter() - began:.0f} s", flush=True)
        for check in checks:
            began = time.perf_counter()
            try:
                check(env)
                verdict = "ok  "
            except AssertionError as error:
                failed, verdict = failed + 1, "FAIL"
                print(error)
            print(f"{verdict} {check.__name__}: {check.__doc__} ({time.perf_counter() - began:.0f} s)", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())

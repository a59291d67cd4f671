"""Planted errors in the generated kernels are caught by the validation's checks (no digest is looked at)."""

import json
import os
import subprocess
import sys
from collections import Counter

import pytest

from badmm_kernels.registry import FAMILIES as ALL, OPTIMIZERS
from tests.kernels.mutant_table import MUTANTS
from tests.kernels.mutants import ROOT, planted, source

FAMILIES = tuple(name for name in (*ALL, *OPTIMIZERS) if name != "exponential")  # gamma has its every kernel


def kernel_of(where):
    """The kernel that a definition belongs to: loops in either type, matrix functions and records are one kernel."""
    return where.strip("_").lower().removesuffix("_f32").removesuffix("_f64").removesuffix("_one")


def test_there_are_enough_errors_of_every_sort():
    assert len(MUTANTS) >= 25
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    for family in FAMILIES:
        assert len({kernel_of(mutant.where) for mutant in MUTANTS if mutant.family == family}) >= 3
    kinds = Counter(mutant.kind.split()[0] for mutant in MUTANTS)
    for sort in ("sign", "factor", "swap", "index", "drop", "use"):
        assert kinds[sort] >= 2, sort


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_error_changes_the_generated_text(mutant):
    _, change = planted(source(mutant.file), mutant)
    before, after = change.split("  ->  ")
    assert before != after


@pytest.fixture(scope="module")
def verdicts():
    """By family: what the unchanged module misses, and what catches each error; all in one process."""
    path = os.pathsep.join(map(str, (ROOT, ROOT / "kernels")))  # this tree's kernels, wherever others are installed
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": path}
    command = [sys.executable, str(ROOT / "tests" / "kernels" / "mutants.py"), *FAMILIES]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_error_is_caught_and_the_unchanged_module_passes(verdicts, family):
    results = verdicts[family]
    assert results["baseline"] == []
    names = {mutant.name for mutant in MUTANTS if mutant.family == family}
    assert results["mutants"].keys() == names
    survivors = {name: result["change"] for name, result in results["mutants"].items() if not result["caught_by"]}
    assert survivors == {}

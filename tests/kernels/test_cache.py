"""Kernels where nothing can be kept: they compile into a temporary folder, and say so."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import badmm_kernels

CODE = """
import tempfile, warnings
import numpy as np
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import badmm_kernels
    ns = badmm_kernels.load("isotropic_gaussian")
print(float(ns.natural_from_standard(np.ones(2), precision=3.0)[0].sum()))
print([str(w.message) for w in caught if "NUMBA_CACHE_DIR" in str(w.message)])
"""


@pytest.mark.slow
@pytest.mark.parametrize("writable", [False, True])
def test_kernels_work_where_no_cache_can_be_written(tmp_path: Path, writable: bool) -> None:
    package = tmp_path / "badmm_kernels"
    shutil.copytree(Path(badmm_kernels.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    for part in (package, *(path for path in package.rglob("*") if path.is_dir())):
        (part / "__pycache__").write_text("")  # a file where a folder would be: cannot be written, whoever runs this
    hidden = {"HOME": "/dev/null", "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(tmp_path)}
    environment = {key: value for key, value in os.environ.items() if key not in ("XDG_CACHE_HOME", "NUMBA_CACHE_DIR")}
    environment |= hidden | ({"NUMBA_CACHE_DIR": str(tmp_path / "cache")} if writable else {})
    run = [sys.executable, "-c", CODE]
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    value, told = done.stdout.splitlines()
    assert value == "6.0"
    assert ("NUMBA_CACHE_DIR names a writable folder" in told) != writable
    assert not list(tmp_path.glob("badmm-kernels-*"))  # the temporary folder ends with the process

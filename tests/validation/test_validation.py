"""The validation: its units, its command, its files, and that every group of its checks can fail."""

import ast
import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mpmath
import numpy as np
import pytest

import badmm_kernels
from validation import __main__ as command, check as records, suite, ulps
from validation.checks import (
    agreement as checks_agreement,
    autograd as checks_autograd,
    device as checks_device,
    domain as checks_domain,
    elementwise as checks_elementwise,
    full as checks_full,
    full_reductions as checks_full_reductions,
    layout as checks_layout,
    reductions as checks_reductions,
    rounds as checks_rounds,
    special as checks_special,
)
from validation.report import page as report, table

ROOT = Path(__file__).resolve().parents[2]
ARRAY_FUNCTIONS = (
    "natural_from_standard",
    "standard_from_natural",
    "expectation_from_natural",
    "natural_from_expectation",
    "natural_gradient",
    "whiten",
    "log_density",
    "dual_update",
    "server_contribution",
    "client_map",
    "cavity",
    "bregman_dual_update",
    "contribution_change",
    "primal_residual",
    "dual_residual",
    "server_total",
    "server_update",
    "round_update",
)
REDUCTIONS = ("log_partition", "entropy", "kl")


def wrong_by(factor):
    """A loader whose kernels give every number times ``factor``, and refuse nothing when it is NaN."""

    def load(family, device="cpu"):
        right = badmm_kernels.load(family, device)

        def spoil(slots, out):
            wrong = tuple((slot * np.asarray(factor, slot.dtype)) for slot in slots)
            if out is None:
                return wrong
            for target, slot in zip(out, wrong, strict=True):
                target[...] = slot
            return out

        def spoiled(name):
            def call(*args, out=None, **kwargs):
                result = getattr(right, name)(*args, **kwargs)
                if not isinstance(result, tuple):
                    return result * factor
                if isinstance(result[0], tuple):
                    return tuple(spoil(group, None if out is None else out[g]) for g, group in enumerate(result))
                return spoil(result, out)

            return call

        functions = {name: spoiled(name) for name in ARRAY_FUNCTIONS + REDUCTIONS}
        scalars = {name: getattr(right, name) for name in dir(right) if name.endswith(("_f32", "_f64"))}
        return SimpleNamespace(**scalars, **functions)

    return load


def no_more(families):
    return []


class TestCheck:
    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_a_value_that_is_not_a_number_never_passes(self, value):
        assert not records.check("a", "b", "c", "d", value, math.inf).passed

    def test_the_tolerance_itself_passes_and_more_does_not(self):
        assert records.check("a", "b", "c", "d", 2.0, 2.0).passed
        assert not records.check("a", "b", "c", "d", np.nextafter(2.0, 3.0), 2.0).passed

    def test_many_samples_are_thinned_and_keep_the_largest(self):
        item = records.check("a", "b", "c", "d", 0.0, 1.0, samples=np.arange(100_000.0))
        assert len(item.samples) == records.SAMPLE_LIMIT
        assert max(item.samples) == 99_999.0

    def test_infinite_errors_are_valid_json(self):
        text = json.dumps(records.failed("a", "b", "c", "d", "why").as_dict(), allow_nan=False)
        assert json.loads(text)["value"] == "inf"


class TestUlps:
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("value", [1.0, 1.5, 3.0, 2.0**-20, 2.0**20])
    def test_the_next_number_is_one_ulp_away(self, value, dtype):
        start = np.array(value, dtype)
        after = np.nextafter(start, np.array(np.inf, dtype))
        assert ulps.in_ulps([[mpmath.mpf(value)]], dtype).errors(after) == [1.0]

    def test_the_unit_is_that_of_the_largest_term(self):
        terms = [mpmath.mpf(2) ** 60, -(mpmath.mpf(2) ** 60), mpmath.mpf(1)]
        assert ulps.in_ulps([terms], "float64").errors(np.zeros(1)) == [2.0**-8]

    def test_below_the_normal_numbers_the_unit_is_the_smallest_number(self):
        assert ulps.in_ulps([[mpmath.mpf(0)]], "float64").errors(np.array([5e-324])) == [1.0]

    def test_what_is_not_finite_is_infinitely_wrong(self):
        for expected in (ulps.in_ulps([[mpmath.mpf(1)]] * 2, "float64"), ulps.scaled([[mpmath.mpf(1)]] * 2)):
            assert expected.errors(np.array([math.nan, math.inf])) == [math.inf, math.inf]

    @pytest.mark.parametrize(("dtype", "decades"), [("float32", 37), ("float64", 300)])
    def test_an_error_is_that_of_fifty_digits(self, dtype, decades):
        """Over the whole range, below the normal numbers too, and where the terms cancel."""
        rng = np.random.default_rng(0)
        powers = rng.integers(-decades - 24, decades, 300)
        with mpmath.workdps(50):
            first = [
                mpmath.mpf(float(a)) * mpmath.mpf(10) ** int(p)
                for a, p in zip(rng.normal(size=300), powers, strict=True)
            ]
            terms = [[a, mpmath.mpf(float(b)) / 3] for a, b in zip(first, rng.normal(size=300), strict=True)]
            terms += [[a, -a * (1 + mpmath.mpf(k) / 2**60)] for k, a in enumerate(first)]
            got = np.array([float(mpmath.fsum(t)) for t in terms]).astype(dtype)
            got *= (1 + rng.integers(-3, 4, len(got)) * 2.0**-23).astype(dtype)

            def by_digits(size):
                return [
                    float(abs(mpmath.mpf(float(x)) - mpmath.fsum(t)) / size(t)) for x, t in zip(got, terms, strict=True)
                ]

            assert ulps.in_ulps(terms, dtype).errors(got) == pytest.approx(
                by_digits(lambda t: ulps.unit(ulps.largest(t), dtype)), rel=1e-12, abs=1e-15
            )
            for floor in (0.0, 1.0):
                expected = by_digits(lambda t, floor=floor: max(ulps.largest(t), mpmath.mpf(floor)))
                assert ulps.scaled(terms, floor).errors(got) == pytest.approx(expected, rel=1e-12, abs=1e-30)

    def test_a_wrong_value_of_no_size_is_infinitely_wrong(self):
        nothing = ulps.scaled([[mpmath.mpf(0)]] * 2)
        assert nothing.errors(np.array([0.0, 1e-300])) == [0.0, math.inf]


MODULES = {
    "elementwise": (checks_elementwise, "diagonal_gaussian"),
    "reductions": (checks_reductions, "gamma"),
    "autograd": (checks_autograd, "full_gaussian"),
    "rounds": (checks_rounds, "gamma"),
    "full": (checks_full, "full_gaussian"),
    "full reductions": (checks_full_reductions, "full_gaussian"),
    "device functions": (checks_device, "diagonal_gaussian"),
}
QUICK: dict[str, dict[str, Any]] = {
    "elementwise": {"count": 16, "map_count": 16},
    "reductions": {"count": 4, "large": False},
    "full": {"sizes": (1, 3)},
    "full reductions": {"sizes": (2,), "large": False},
    "device functions": {"count": 5},
}


class TestChecksCanFail:
    @pytest.mark.parametrize("name", MODULES)
    def test_numbers_wrong_by_a_millionth_are_missed_by_no_group(self, name):
        module, family = MODULES[name]
        right = module.checks(badmm_kernels.load(family), family, "float64", **QUICK.get(name, {}))
        assert [item for item in right if not item.passed] == []
        wrong = module.checks(wrong_by(1.0 + 1e-6)(family), family, "float64", **QUICK.get(name, {}))
        missed = [item.name for item in wrong if not item.passed]
        assert len(missed) > len(wrong) // 2, missed

    def test_a_result_that_depends_on_size_is_caught_by_layout(self):
        right = badmm_kernels.load("isotropic_gaussian")

        def uneven(dual, *rest, out=None):
            (slot,) = right.dual_update(dual, *rest)
            slot.flat[0] = np.nextafter(slot.flat[0], 0.0) if slot.size % 2 else slot.flat[0]
            return (slot,)

        wrong = SimpleNamespace(dual_update=uneven)
        call = next(
            c for c in checks_layout.sample_calls("isotropic_gaussian", "float64", 33) if c.function == "dual_update"
        )
        assert not checks_layout.size_check(wrong, "isotropic_gaussian", "float64", call).passed
        assert not checks_layout.client_axis_check(wrong, "isotropic_gaussian", "float64", call).passed
        assert not checks_layout.out_check(wrong, "isotropic_gaussian", "float64", call).passed

    def test_accepting_what_is_outside_the_domain_is_caught(self):
        accepting = SimpleNamespace(**{name: lambda *a, **k: None for name in ARRAY_FUNCTIONS + REDUCTIONS})
        for family in ("gamma", "full_gaussian"):
            assert not any(item.passed for item in checks_domain.checks(accepting, family, "float64"))

    def test_disagreeing_families_are_caught(self):
        diagonal, full = badmm_kernels.load("diagonal_gaussian"), wrong_by(1.0 + 1e-6)("full_gaussian")
        found = checks_agreement.full_as_diagonal(full, diagonal, "float64")
        assert not any(item.passed for item in found)
        isotropic = wrong_by(1.0 + 1e-6)("isotropic_gaussian")
        assert not any(item.passed for item in checks_agreement.diagonal_as_isotropic(diagonal, isotropic, "float64"))

    @pytest.mark.parametrize("family", ["gamma", "full_gaussian"])
    def test_special_functions_wrong_in_the_twelfth_digit_are_caught(self, family):
        right = checks_special.exported(badmm_kernels.load(family))
        assert right
        wrong = SimpleNamespace(**{n: lambda *x, f=f: f(*x) * (1.0 + 1e-12) for n, f in right.items()})
        found = checks_special.checks(wrong, family, "float64", count=40)
        assert {item.kernel for item in found} == set(right)
        assert not any(item.passed for item in found)

    def test_an_inverse_map_wrong_in_the_twelfth_digit_is_caught(self):
        right = badmm_kernels.load("gamma")
        wrong = SimpleNamespace(
            natural_from_expectation=lambda *mu: tuple(s * (1.0 + 1e-12) for s in right.natural_from_expectation(*mu))
        )
        assert not checks_elementwise.inverse_check(wrong, "gamma", "float64", count=40).passed


class TestCommand:
    @pytest.fixture
    def light(self, monkeypatch):
        """The real sections of the lightest modules, so that the command is quick."""
        chosen = ("rounds", "autograd", "domain")
        everything = suite.kernel_sections
        monkeypatch.setattr(command, "kernel_sections", lambda *a: [s for s in everything(*a) if s.name in chosen])
        monkeypatch.setattr(command, "without_oracle", lambda *a: [])

    def test_it_passes_and_writes_json_and_a_page(self, light, tmp_path, capsys):
        paths = tmp_path / "new" / "checks.json", tmp_path / "new" / "page.html"
        arguments = ["--family", "isotropic_gaussian", "gamma", "--json", str(paths[0]), "--report", str(paths[1])]
        assert command.main(arguments, extra=no_more) == 0
        record = json.loads(paths[0].read_text())
        assert record["passed"] is True
        assert {item["family"] for item in record["checks"]} == {"isotropic_gaussian", "gamma"}
        assert all(item["value"] <= item["tolerance"] for item in record["checks"])
        page = paths[1].read_text()
        assert "data:image/png;base64," in page
        assert "http" not in page.replace("http-equiv", "")
        assert sorted(path.name for path in paths[0].parent.iterdir()) == ["checks.json", "page.html"]
        assert f"{len(record['checks'])} checks, 0 missed" in capsys.readouterr().out

    def test_a_planted_error_makes_it_fail_and_say_where(self, light, tmp_path, capsys):
        path = tmp_path / "checks.json"
        arguments = ["--family", "isotropic_gaussian", "--json", str(path)]
        assert command.main(arguments, load=wrong_by(1.0 + 1e-6), extra=no_more) == 1
        assert "MISS isotropic_gaussian float64 [closed form] round with linear losses" in capsys.readouterr().out
        assert json.loads(path.read_text())["passed"] is False

    def test_a_kernel_that_raises_is_a_miss_and_the_run_goes_on(self, light, capsys):
        def load(family, device="cpu"):
            raise ImportError("no such kernels")

        assert command.main(["--family", "gamma"], load=load, extra=no_more) == 1
        text = capsys.readouterr().out
        assert text.count("ImportError: no such kernels") == 6

    def test_gpu_without_kernels_fails_in_one_line(self, capsys):
        assert command.main(["--device", "gpu"], extra=no_more) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        assert captured.err.startswith("validation: --device gpu: ")

    def test_all_devices_without_a_gpu_checks_the_cpu_and_says_what_was_skipped(self, light, capsys):
        assert command.main(["--device", "all", "--family", "isotropic_gaussian"], extra=no_more) == 0
        assert "GPU skipped: " in capsys.readouterr().out

    def test_an_unknown_family_and_a_directory_are_refused(self, tmp_path, capsys):
        with pytest.raises(SystemExit) as refused:
            command.main(["--family", "dirichlet"])
        assert refused.value.code == 2
        assert "dirichlet" in capsys.readouterr().err
        assert command.main(["--json", str(tmp_path)]) == 2
        assert str(tmp_path) in capsys.readouterr().err

    def test_the_command_line_of_the_package_runs(self):
        run = [sys.executable, "-m", "validation"]
        done = subprocess.run([*run, "--device", "gpu"], cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 2
        assert "--device gpu" in done.stderr

    def test_the_solver_parts_are_those_of_the_families(self):
        def names(*families):
            return [section.name for section in command.solver_sections(families)]

        assert names("full_gaussian") == ["family rounds", "one round"]
        assert names("gamma") == ["one round"]
        assert names("isotropic_gaussian") == ["recovery"]
        assert names(*badmm_kernels.FAMILIES) == ["family rounds", "one round", "recovery"]
        assert names("exponential") == names("poisson") == ["one round"]
        assert names("ivon") == []

    def test_a_family_without_kernels_of_its_own_is_checked_with_all(self, monkeypatch):
        found = [records.check("fine", "one round", name, "float64", 0.0, 1.0) for name in ("gamma", "gaussian_gamma")]
        monkeypatch.setattr("validation.runs.one_round.checks", lambda: found)

        def checked(*families):
            (section,) = [s for s in command.solver_sections(families) if s.name == "one round"]
            return [check.family for check in section.work()]

        assert checked("gamma") == ["gamma"]
        assert checked(*badmm_kernels.FAMILIES) == ["gamma", "gaussian_gamma"]


class TestReport:
    def test_misses_are_shown_and_text_is_escaped(self):
        good = records.check("fine", "ulp", "gamma", "float64", 0.5, 2.0, samples=[0.1, 0.5])
        bad = records.check("<wrong>", "one round", "gamma", "float64", 3.0, 2.0, "a & b", curve=[1.0, 0.1, 0.0])
        page = report.as_html([good, bad], 1.0, ["GPU skipped: none"])
        assert "1 missed" in page
        assert "&lt;wrong&gt;" in page
        assert "<wrong>" not in page
        assert "GPU skipped: none" in page
        assert page.count("data:image/png;base64,") == 3

    def test_a_file_is_written_whole_or_not_at_all(self, tmp_path):
        path = tmp_path / "report.html"
        report.write(path, "old")
        with pytest.raises(UnicodeEncodeError):
            report.write(path, "\ud800")
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]

    def test_the_table_is_plain_without_rich(self, monkeypatch, capsys):
        monkeypatch.setitem(sys.modules, "rich.console", None)
        table.show([records.check("a", "ulp", "gamma", "float64", 3.0, 2.0, "ulp")], 1.0)
        text = capsys.readouterr().out
        assert "1 MISSED" in text
        assert "MISS gamma float64 [ulp] a: 3 (tolerance 2) ulp" in text


def test_no_oracle_shares_code_with_the_derivation():
    for path in (ROOT / "validation").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] in ("derive", "sympy") for name in names), path.name

"""The command line: stages, families by name, families that cannot be read, claims that fail."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

import derive.families
from derive import generate
from derive.__main__ import main
from derive.claims.claim import Claim, ClaimError
from derive.families import family_names, load_families

FAMILIES = ("diagonal_gaussian", "full_gaussian", "gamma", "geometric", "isotropic_gaussian")  # one of every form


@pytest.mark.parametrize("stage", ["family", "calculus", "ir", "source"])
@pytest.mark.parametrize("name", FAMILIES)
def test_show_prints_a_stage(stage: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--show", stage]) == 0
    out = capsys.readouterr().out
    expected = {
        "family": "log_partition",
        "calculus": "Natural gradient",
        "ir": "natural_gradient",
        "source": "GENERATED",
    }
    assert expected[stage] in out


def test_unknown_family_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cauchy"]) == 2
    assert "expected one of round, bernoulli" in capsys.readouterr().err


def test_a_failing_claim_stops_the_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def false() -> str:
        raise ClaimError("planted")

    targets = tuple(n for m in generate.build().values() for n in m.callable_names)
    planted = Claim("planted", "round", "0=1", false, targets=targets)
    monkeypatch.setattr("derive.__main__.every_claim", lambda names: [planted])
    assert main(["--out", str(tmp_path)]) == 1
    assert "nothing was written" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_kernel_without_a_claim_stops_the_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build = generate.build

    def planted(names: object = None) -> object:
        gamma = build(names)["gamma"]  # type: ignore[arg-type]
        extra = dataclasses.replace(gamma.kernels[-1], name="planted")
        return {"gamma": dataclasses.replace(gamma, kernels=(*gamma.kernels, extra))}

    monkeypatch.setattr(generate, "build", planted)
    assert main(["gamma", "--out", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert "FAIL gamma.planted: expected a claim with this kernel as its target, got none" in err
    assert list(tmp_path.iterdir()) == []


BROKEN = {
    "syntax": "def",
    "import": "import a_module_that_is_not_there",
    "no family": "x = 1",
    "name": "from derive.families.gamma import FAMILY",
    "record": "from derive.families.gamma import FAMILY\nimport dataclasses\ndataclasses.replace(FAMILY, natural=())",
}


def place(kinds: Iterable[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Put a file per kind beside the families; return the names of the families that they would be."""
    folder.mkdir()
    names = [f"zeta_{number}" for number, _ in enumerate(kinds)]
    for name, kind in zip(names, kinds, strict=True):
        (folder / f"{name}.py").write_text(BROKEN[kind], encoding="utf-8")
        monkeypatch.delitem(sys.modules, f"derive.families.{name}", raising=False)
    monkeypatch.setattr(derive.families, "__path__", [*derive.families.__path__, str(folder)])
    return names


@pytest.fixture(params=BROKEN)
def broken(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file beside the families that cannot be read."""
    return place([request.param], tmp_path / "families", monkeypatch)[0]


@pytest.mark.parametrize(
    "arguments", [["zeta_0"], ["zeta_0", "--check"], ["zeta_0", "--show", "family"], [], ["--check"]]
)
def test_a_broken_family_is_one_line(
    broken: str, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"families/{broken}.py: expected ")
    assert captured.err.count("\n") == 1


def test_broken_families_do_not_matter_to_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = place(list(BROKEN), tmp_path / "families", monkeypatch)
    assert {*names} < {*family_names()}
    assert main(["isotropic_gaussian", "--check"]) == 0
    assert main(["isotropic_gaussian", "--show", "ir"]) == 0
    assert [*load_families(["gamma", "isotropic_gaussian"])] == ["gamma", "isotropic_gaussian"]
    assert main(["isotropic_gaussian", "--out", str(tmp_path / "out")]) == 0
    assert not {f"derive.families.{name}" for name in names} & {*sys.modules}
    assert "claims proved" in capsys.readouterr().out

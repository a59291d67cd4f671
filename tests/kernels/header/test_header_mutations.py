"""Planted errors in the C header are caught on the host by the checks that the header passes (no digest counts)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kernels import header_backend
from tests.kernels.mutants import misses

ISOTROPIC, DIAGONAL, FULL, GAMMA = "isotropic_gaussian", "diagonal_gaussian", "full_gaussian", "gamma"
FLAGS = ("-std=c99", "-O1")


@dataclass(frozen=True)
class Mutant:
    """A change in the text of one function of one header, and the family whose checks have to notice."""

    name: str
    family: str
    function: str
    old: str
    new: str

    @property
    def header(self) -> str:
        """The file that defines the function."""
        own = next((n for n in (self.family, "round") if self.function.startswith(f"badmm_{n}_")), "special")
        return f"badmm/{own}.h"


MUTANTS = (
    Mutant("dual steps away from the server", DIAGONAL, "badmm_round_dual_update_f64",
           "natural_global - natural_client", "natural_client - natural_global"),
    Mutant("penalty without damping", ISOTROPIC, "badmm_round_dual_update_f32", "damping * rho", "rho"),
    Mutant("client map without a fused multiply-add", GAMMA, "badmm_round_client_map_f32",
           "fmaf(u0, dual - gradient, natural_global)", "natural_global + u0 * dual - u0 * gradient"),
    Mutant("server adds the duals", FULL, "badmm_round_server_contribution_f64", "-dual * u0", "dual * u0"),
    Mutant("sum over clients forgets to divide", FULL, "badmm_round_server_total_term",
           "(1.0 - alpha) / num_clients", "1.0 - alpha"),
    Mutant("fused server line reads the old dual", DIAGONAL, "badmm_round_round_update_f32",
           "-eta_new * u1", "-dual * u1"),
    Mutant("fused results exchanged", ISOTROPIC, "badmm_round_round_update_f64",
           "double *out_dual, double *out_contribution", "double *out_contribution, double *out_dual"),
    Mutant("natural gradient with + H m", DIAGONAL, "badmm_diagonal_gaussian_natural_gradient_f64",
           "fma(-expected_hessian", "fma(expected_hessian"),
    Mutant("second moment by a difference of rounded squares", DIAGONAL,
           "badmm_diagonal_gaussian_natural_from_expectation_f64",
           "fma(mean, mean, 2.0 * half_negative_second_moment)", "(mean * mean + 2.0 * half_negative_second_moment)"),
    Mutant("variance with twice its weight", DIAGONAL, "badmm_diagonal_gaussian_expectation_from_natural_f64",
           "-0.5 * t11", "-t11"),
    Mutant("KL without Kahan's correction", DIAGONAL, "badmm_diagonal_gaussian_kl_term", "(t3 + t2)", "t3"),
    Mutant("KL of the other order", GAMMA, "badmm_gamma_kl_term",
           "double natural_q_shape, double natural_q_rate, double natural_p_shape, double natural_p_rate",
           "double natural_p_shape, double natural_p_rate, double natural_q_shape, double natural_q_rate"),
    Mutant("phi's first coefficient in float", GAMMA, "badmm_ratio_divergence", "0.6666666666666666", "0.66666669"),
    Mutant("lgamma shifted by one recurrence too few", GAMMA, "badmm_lgamma", "x >= 9.5", "x >= 10.5"),
    Mutant("Newton stops after one step", GAMMA, "badmm_shape_from_gap", "pass < 20", "pass < 1"),
    Mutant("an intermediate value in float", GAMMA, "badmm_gamma_natural_gradient_f64",
           "const double t0_3", "const float t0_3"),
    Mutant("domain test lets zero pass", DIAGONAL, "badmm_outside_f64", "bound < value", "bound <= value"),
    Mutant("domain test lets NaN pass", ISOTROPIC, "badmm_outside_f32",
           "!(bound < value && value <= 3.4028234663852886e38f)", "(bound >= value || value > 3.4028234663852886e38f)"),
)  # fmt: skip


def planted(text: str, mutant: Mutant) -> str:
    """The header's text with the error in the body or the head of the function."""
    start = text.index(f" {mutant.function}(")
    stop = text.index("\n}\n", start)
    body = text[start:stop]
    assert mutant.old in body, f"{mutant.name}: {mutant.old!r} is not in {mutant.function}"
    return text[:start] + body.replace(mutant.old, mutant.new) + text[stop:]


def first_miss(include: Path, family: str) -> str:
    """The first check that the header in a folder does not pass ("" if it passes all)."""
    library = header_backend.compiled("gcc", FLAGS, (family,), include)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # planted errors overflow
        return next(misses(header_backend.namespace(family, library), family), "")


needs_gcc = pytest.mark.skipif(bool(header_backend.missing("gcc")), reason=header_backend.missing("gcc"))


def test_there_are_enough_errors_of_every_sort() -> None:
    assert len(MUTANTS) >= 10
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert {mutant.family for mutant in MUTANTS} == {ISOTROPIC, DIAGONAL, FULL, GAMMA}


@needs_gcc
@pytest.mark.parametrize("family", [ISOTROPIC, DIAGONAL, FULL, GAMMA])
def test_the_unchanged_header_passes(family: str) -> None:
    assert first_miss(header_backend.INCLUDE, family) == ""


@needs_gcc
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_error_is_caught(mutant: Mutant, tmp_path: Path) -> None:
    include = header_backend.copied_headers(tmp_path)
    path = include / mutant.header
    path.write_text(planted(path.read_text(encoding="utf-8"), mutant), encoding="utf-8")
    assert first_miss(include, mutant.family) != ""

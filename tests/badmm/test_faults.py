"""Kinds of fault at the places where data, settings and memory come in, and where inputs of each kind are tested.

`FURTHER` names at least three inputs of every kind: a test of its own, or one of a table, whose name is in brackets.
The tests below are of kinds that no module owns.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from badmm import Gaussian, solve
from badmm.likelihoods import CloglogRegression, LogisticRegression, NegativeBinomialRegression, PoissonRegression

TESTS = Path(__file__).resolve().parents[1]
FURTHER: dict[str, dict[str, tuple[str, ...]]] = {
    "the optimizer and the parameters' memory": {
        "badmm/ivon/test_memory.py": (
            "test_channels_last_keeps_every_entry_with_its_state",
            "test_a_part_is_saved_alone",
            "test_assigned_parameters_of_another_object_are_not_followed_silently",
        ),
        "badmm/ivon/test_sharing.py": (
            "test_two_threads_train_one_shared_model_as_hogwild_does",
            "test_a_tie_made_later_is_refused",
            "test_parts_of_one_tensor_that_are_apart_train",
            "test_what_cannot_nest_is_refused",
        ),
    },
    "what happens between a sample and its step": {
        "badmm/ivon/test_gradients.py": (
            "test_two_networks_send_gradients_through_each_other",
            "test_gradients_zeroed_in_place_between_two_samples_are_refused",
            "test_gradients_set_by_hand_inside_the_block_count",
            "test_second_derivatives_may_be_taken_inside_the_block",
        ),
    },
    "frozen parameters": {
        "badmm/ivon/test_frozen.py": (
            "test_freezing_in_the_middle_keeps_state_and_normals",
            "test_freezing_between_the_sample_and_its_step_keeps_the_parameter",
            "test_a_stale_gradient_of_a_frozen_parameter_does_not_move_it",
            "test_a_frozen_backbone_costs_no_state",
        ),
    },
    "state and arguments beyond one path": {
        "badmm/ivon/test_state.py": (
            "test_a_run_of_ivon_opt_goes_on",
            "test_a_sparse_table_beside_a_dense_layer_with_a_backward_in_between",
            "test_state_that_a_user_clears_starts_anew",
        ),
        "badmm/ivon/test_settings.py": (
            "test_a_setting_of_another_kind_is_refused[rescale_lr]",
            "test_a_setting_that_is_changed_to_no_value_is_named_by_the_step[weight_decay]",
            "test_a_tensor_learning_rate_is_scheduled_in_place",
        ),
    },
    "client problems that have a solution": {
        "badmm/clients/test_hard_problems.py": (
            "test_a_weak_prior_and_any_units_are_solved[calendar years]",
            "test_a_weak_prior_and_any_units_are_solved[more columns than rows]",
            "test_a_weak_prior_and_any_units_are_solved[separated]",
            "test_a_loss_that_is_not_convex_is_descended",
        ),
        "badmm/test_faults.py": ("test_a_site_without_events_and_raw_columns_is_solved[cloglog]",),
    },
    "what is taken for a number": {
        "badmm/test_checks.py": (
            "test_all_else_is_refused_in_one_short_line[durations]",
            "test_all_else_is_refused_in_one_short_line[records]",
            "test_all_else_is_refused_in_one_short_line[timedelta64]",
            "test_a_wrong_entry_of_many_is_named",
        ),
        "badmm/glm/test_messy_input.py": (
            "test_identifiers_beside_missing_values_stay_apart[Int128]",
            "test_columns_that_arrow_holds_are_those_of_pandas[kind]",
        ),
    },
    "file reading": {
        "badmm/glm/test_messy_input.py": (
            "test_malformed_input_is_one_line_and_status_2[two files in one]",
            "test_malformed_input_is_one_line_and_status_2[a line of totals]",
            "test_malformed_input_is_one_line_and_status_2[digits of another script]",
            "test_harmless_differences_change_nothing[the old Macintosh's]",
            "test_an_empty_cell_in_quotes_is_a_missing_value_and_no_blank_line",
        ),
        "badmm/glm/test_streamed.py": ("test_what_is_wrong_in_a_late_chunk_is_named[another kind]",),
        "badmm/data/test_files.py": (
            "test_other_encodings_are_named",
            "test_names_of_sites_are_what_is_written[12E4]",
        ),
    },
    "rows and sites that leave without a word": {
        "badmm/glm/test_messy_input.py": (
            "test_malformed_input_is_one_line_and_status_2[a level called NULL]",
            "test_malformed_input_is_one_line_and_status_2[a spreadsheet's error]",
            "test_wrong_arguments_are_named[a site that is missing]",
        ),
        "badmm/data/test_files.py": (
            "test_two_spellings_of_a_site_are_named[NORTH]",
            "test_a_missing_site_of_an_archive_is_named",
        ),
        "badmm/glm/test_estimators.py": ("test_a_row_without_a_site_is_refused",),
    },
    "keys that do not apply or overrule others": {
        "badmm/glm/test_messy_input.py": (
            "test_malformed_input_is_one_line_and_status_2[an exposure of odds]",
            "test_malformed_input_is_one_line_and_status_2[two priors of the intercept]",
            "test_malformed_input_is_one_line_and_status_2[a prior of no intercept]",
            "test_wrong_arguments_are_named[a tempered mode]",
        ),
        "badmm/experiments/test_config.py": ("test_keys_that_have_no_effect_are_refused",),
    },
    "numerical zeros": {
        "badmm/experiments/test_problems.py": (
            "test_a_column_that_varies_by_rounding_is_constant",
            "test_components_of_constant_columns_are_refused",
            "test_a_column_of_any_unit_has_variance_one",
        ),
        "badmm/test_faults.py": ("test_a_column_may_be_constant_at_a_site",),
    },
    "sizes taken from data": {
        "badmm/test_faults.py": ("test_labels_are_levels_whatever_their_size",),
        "badmm/test_checks.py": ("test_large_class_labels_need_no_identity_matrix",),
        "badmm/experiments/test_problems.py": ("test_class_labels_are_numbered_from_zero",),
        "badmm/glm/test_messy_input.py": (
            "test_wrong_arguments_are_named[identifiers as levels]",
            "test_wrong_arguments_are_named[classes that are measurements]",
        ),
    },
    "resuming": {
        "badmm/experiments/test_run_folder.py": (
            "test_resuming_something_else_is_refused_by_name[expected method.rho as in]",
            "test_resuming_something_else_is_refused_by_name[run.rounds of at least 5]",
            "test_data_may_move",
        ),
        "badmm/experiments/test_cli.py": ("test_resuming_another_problem_is_refused",),
        "badmm/experiments/test_store.py": ("test_a_history_other_than_the_checkpoints_is_refused",),
    },
    "surroundings": {
        "badmm/experiments/test_problems.py": ("test_a_terminal_of_any_encoding_is_written_to[cp1252]",),
        "kernels/test_cache.py": ("test_kernels_work_where_no_cache_can_be_written",),
        "kernels/test_threads.py": (
            "test_a_call_ends_where_no_thread_can_start",
            "test_a_fork_while_another_thread_calls",
        ),
        "badmm/experiments/test_federated_run.py": ("test_event_files_need_their_package",),
    },
    "weights, offsets and priors that models need": {
        "badmm/likelihoods/test_weights_and_offsets.py": (
            "test_a_row_of_weight_zero_adds_nothing_where_its_loss_overflows",
            "test_exposures_of_a_poisson_regression_are_offsets",
            "test_weighted_linear_regression_is_solved_in_closed_form",
        ),
        "badmm/glm/test_messy_input.py": ("test_an_offset_is_an_expression",),
        "badmm/experiments/test_problems.py": ("test_the_intercept_may_have_a_prior_of_its_own[softmax_regression]",),
    },
    "two processes and one folder": {
        "badmm/experiments/test_fit.py": ("test_a_folder_that_another_run_uses_is_told",),
        "badmm/experiments/test_store.py": (
            "test_a_locked_folder_is_told",
            "test_a_file_is_no_folder",
        ),
    },
    "files that are believed": {
        "badmm/experiments/test_store.py": (
            "test_every_flipped_bit_is_told",
            "test_a_safetensors_file_without_a_seal_is_refused",
        ),
        "badmm/data/test_files.py": ("test_every_flipped_bit_of_an_archive_is_told_or_harmless",),
        "badmm/data/test_federated_data.py": (
            "test_a_pickle_cannot_build_other_array_kinds",
            "test_damaged_gzip_is_named",
        ),
    },
    "histories": {
        "badmm/experiments/test_store.py": (
            "test_history_survives_a_torn_line",
            "test_a_line_that_is_no_record_is_named",
            "test_a_failed_write_leaves_the_old_file_and_nothing_else",
        ),
        "badmm/experiments/test_run_folder.py": ("test_a_run_killed_at_any_write_resumes_to_the_same_bytes",),
    },
    "convergence": {
        "badmm/test_faults.py": (
            "test_no_coefficient_hides_behind_a_precise_one[a column in millionths]",
            "test_no_coefficient_hides_behind_a_precise_one[a column in millions]",
            "test_no_coefficient_hides_behind_a_precise_one[units twelve orders apart]",
        ),
        "badmm/rounds/test_policy.py": ("test_plain_rounds_take_over_where_mixing_stalls",),
    },
    "arguments of another kind": {
        "badmm/rounds/test_bad_input.py": (
            "test_solve[rho a word]",
            "test_solve[no client object]",
            "test_command_line[unknown key]",
        ),
        "badmm/ivon/test_state.py": ("test_a_prior_of_other_shapes_or_values_is_refused",),
        "badmm/experiments/test_run_folder.py": ("test_a_folder_of_any_name[:smile:]",),
    },
    "reproducibility and permissions": {
        "badmm/experiments/test_store.py": (
            "test_equal_arrays_give_equal_bytes",
            "test_permissions_are_the_users",
        ),
        "badmm/experiments/test_fit.py": ("test_results_are_the_users_alone_and_equal_runs_leave_equal_bytes",),
    },
    "several processes of torch": {
        "badmm/ivon/test_ranks.py": (
            "test_the_estimate_is_the_losses_curvature[bucket views]",
            "test_ranks_stay_alike_and_ddp_changes_nothing",
            "test_one_process_alone_may_ask_for_ranks",
        ),
    },
}


@cache
def written(path: Path) -> tuple[set[str], set[Any]]:
    """The functions and the texts of a file of tests."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    functions = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    return functions, {node.value for node in nodes if isinstance(node, ast.Constant)}


@pytest.mark.parametrize("kind", FURTHER)
def test_every_kind_has_three_further_inputs(kind: str) -> None:
    found = [(path, name) for path, names in FURTHER[kind].items() for name in names]
    for path, name in found:
        functions, texts = written(TESTS / path)
        function, _, value = name.removesuffix("]").partition("[")
        assert function in functions, (path, function)
        assert not value or value in texts, (path, value)
    assert len(set(found)) >= 3


RNG = np.random.default_rng(17)
N, K = 80, 4
AGE, DOSE = RNG.uniform(20, 80, N), RNG.normal(size=N)
EVENTS = (RNG.random(N) < 1 / (1 + np.exp(-DOSE))).astype(int)
PARTS = np.array_split(np.arange(N), K)
QUIET = np.where(np.arange(N) < N // K, 0, EVENTS)
"""No event at the first site."""


def pooled_distance(make: Any, X: np.ndarray, prior: Gaussian, family: str = "full_gaussian", **options: Any) -> float:
    """The largest distance of a coefficient from that of all rows at one site, in posterior standard deviations."""
    parts = [make(X[part], part) for part in PARTS]
    apart, whole = (
        solve(clients, family=family, prior=prior, tol=tol, **options)
        for clients, tol in ((parts, 1e-5), ([make(X, np.arange(N))], 1e-9))
    )
    assert apart.converged and whole.converged, (apart.reason, whole.reason)
    away = (apart.posterior.mean - whole.posterior.mean) / np.sqrt(whole.posterior.variance)
    return float(np.abs(away).max())


QUIET_SITES: dict[str, Any] = {
    "poisson": lambda X, rows: PoissonRegression(X, QUIET[rows]),
    "cloglog": lambda X, rows: CloglogRegression(X, QUIET[rows]),
    "negative binomial": lambda X, rows: NegativeBinomialRegression(X, QUIET[rows], 2.0),
    "logistic": lambda X, rows: LogisticRegression(X, QUIET[rows]),
}


@pytest.mark.parametrize(("name", "expectation"), [*((name, "delta") for name in QUIET_SITES), ("logistic", "auto")])
def test_a_site_without_events_and_raw_columns_is_solved(name: str, expectation: str) -> None:
    """Ages as they are, a dose in millionths, and a prior that lets both go anywhere near what they can be."""
    X = np.column_stack([np.ones(N), AGE, 1e6 * DOSE])
    prior = Gaussian(np.zeros(3), np.array([1e-2, 1e-1, 1e10]))
    assert pooled_distance(QUIET_SITES[name], X, prior, expectation=expectation) < 1e-3


FIXED: dict[str, tuple[np.ndarray, np.ndarray]] = {
    "a coefficient that the prior fixes": (np.ones(3), np.array([1.0, 1e12, 1.0])),
    "a column in millionths": (np.array([1.0, 1.0, 1e6]), np.array([1.0, 1.0, 1.0])),
    "a column in millions": (np.array([1.0, 1e-6, 1.0]), np.array([1.0, 1e-12, 1.0])),
    "units twelve orders apart": (np.array([1.0, 1e-6, 1e6]), np.array([1.0, 1e-9, 1e9])),
}


@pytest.mark.parametrize("family", ["full_gaussian", "diagonal_gaussian"])
@pytest.mark.parametrize("name", FIXED)
def test_no_coefficient_hides_behind_a_precise_one(name: str, family: str) -> None:
    """Who has converged is near the pooled solution in every coefficient's own standard deviation."""
    unit, precision = FIXED[name]
    X = np.column_stack([np.ones(N), (AGE - 50) / 20, DOSE]) * unit
    order = np.argsort(DOSE)  # sites that differ as much as they can

    def make(rows: np.ndarray, part: np.ndarray) -> LogisticRegression:
        return LogisticRegression(X[order[part]], EVENTS[order[part]])

    assert pooled_distance(make, X, Gaussian(np.zeros(3), precision), family, expectation="delta") < 1e-3


@pytest.mark.parametrize("value", [0.1, 14.62, 1e8 + 0.1])
def test_a_column_may_be_constant_at_a_site(value: float) -> None:
    """The rows of that site count as they would among all."""
    pytest.importorskip("formulaic", reason="needs the extra glm")
    from badmm.glm import fit

    frame = pd.DataFrame({"y": EVENTS, "x": np.where(np.arange(N) < N // K, value, value + DOSE)})
    apart = fit("y ~ x", {str(k): frame.iloc[part] for k, part in enumerate(PARTS)}, family="binomial")
    whole = fit("y ~ x", {"all": frame}, family="binomial")
    np.testing.assert_allclose(apart.to_frame()["estimate"], whole.to_frame()["estimate"], rtol=1e-5)


@pytest.mark.parametrize("labels", [(5, 10**15, -3), (60000, 60001, 60002), (2**62, 2**62 + 1, 0)])
def test_labels_are_levels_whatever_their_size(labels: tuple[int, ...]) -> None:
    """Nothing is as large as a label: neither of a response nor of a term."""
    pytest.importorskip("formulaic", reason="needs the extra glm")
    from badmm.glm import fit

    codes = np.array(labels)[np.arange(N) % 3]
    frame = pd.DataFrame({"y": EVENTS, "x": DOSE, "code": codes, "kind": codes.astype(str)})
    sites = {10**12 + k: frame.iloc[part] for k, part in enumerate(PARTS)}
    small = frame.assign(code=np.array(list("abc"))[np.argsort(np.argsort(labels))][np.arange(N) % 3])
    found = fit("y ~ x + C(code)", {str(k): site for k, site in sites.items()}, family="binomial")
    wanted = fit("y ~ x + C(code)", {"all": small}, family="binomial")
    np.testing.assert_allclose(found.to_frame()["estimate"], wanted.to_frame()["estimate"], atol=1e-6)

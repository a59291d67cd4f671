"""What a kernel's face promises about arrays, seen from a call: which shapes share, what is refused, by which name."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

import badmm_kernels
from badmm_kernels.face import rows
from badmm_kernels.gpu import launch

DTYPES = ("float32", "float64")
ELEMENTWISE = ("diagonal_gaussian", "gamma")


def of(family: str, shape: tuple[int, ...], dtype: str = "float64", seed: int = 0) -> tuple[Any, ...]:
    rng = np.random.default_rng(seed)
    return tuple(rng.uniform(0.5, 2.0, shape).astype(dtype) for _ in badmm_kernels.load(family).NATURAL)


class TestShapes:
    @pytest.mark.parametrize("family", ELEMENTWISE)
    @pytest.mark.parametrize("shape", [(3,), (1, 3), (2, 1), (4, 2), (1,), (), (4, 1, 3), (1, 2, 3)])
    def test_an_operand_of_another_rank_or_size_is_refused_and_not_broadcast(
        self, family: str, shape: tuple[int, ...]
    ) -> None:
        ns = badmm_kernels.load(family)
        clients = of(family, (4, 2, 3))
        with pytest.raises(ValueError, match=r"natural_global\.\w+: expected shape"):
            ns.dual_update(clients, of(family, shape), clients, 0.5, 1.0)

    @pytest.mark.parametrize("family", ELEMENTWISE)
    def test_what_is_shared_by_clients_counts_for_each_of_them(self, family: str) -> None:
        ns = badmm_kernels.load(family)
        dual, client, server = of(family, (4, 2, 3)), of(family, (4, 2, 3), seed=1), of(family, (2, 3), seed=2)
        together = ns.dual_update(dual, server, client, 0.5, 1.0)
        for k in range(4):
            alone = ns.dual_update(tuple(s[k] for s in dual), server, tuple(s[k] for s in client), 0.5, 1.0)
            for a, b in zip(alone, together, strict=True):
                np.testing.assert_array_equal(a, b[k])

    def test_an_optimizers_operands_share_the_same_way(self) -> None:
        ns = badmm_kernels.load("ivon")
        many, row = np.ones((4, 2, 3)), np.ones((2, 3))
        assert ns.accumulate(many, many, many, noise=row)[0].shape == many.shape
        for bad in (np.ones(3), np.ones((1, 2, 3)), np.ones((4, 2)), np.ones((4, 3))):
            with pytest.raises(ValueError, match="noise: expected shape"):
                ns.accumulate(many, many, many, noise=bad)


class TestWhatIsRefused:
    @pytest.mark.parametrize("name", ["mean", "precision"])
    def test_a_masked_array_by_name(self, name: str) -> None:
        given = {"mean": np.ones(4), "precision": np.ones(4)}
        given[name] = np.ma.masked_array(given[name], mask=[False, True, False, False])
        with pytest.raises(TypeError, match=f"{name}: expected an array without a mask, got a masked array"):
            badmm_kernels.load("diagonal_gaussian").natural_from_standard(**given)

    def test_a_masked_array_as_an_output(self) -> None:
        out = (np.ma.masked_array(np.ones(4), mask=[False, True, False, False]), np.ones(4))
        with pytest.raises(TypeError, match=r"out\[0\]: expected an array without a mask"):
            badmm_kernels.load("diagonal_gaussian").natural_from_standard(np.ones(4), np.ones(4), out=out)

    @pytest.mark.parametrize("family", ELEMENTWISE)
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_a_sum_over_clients_that_overflows(self, family: str, dtype: str) -> None:
        """Every term is finite; the sum is not."""
        largest = np.finfo(dtype).max
        ns = badmm_kernels.load(family)
        dual = tuple(np.full((3, 5), -0.9 * largest, dtype) for _ in ns.NATURAL)
        client = of(family, (3, 5), dtype)
        with pytest.raises(ValueError, match=f"the sum overflows {dtype}"):
            ns.server_total(client, dual, 0.9)
        small = tuple(slot / 10 for slot in dual)
        assert all(np.isfinite(slot).all() for slot in ns.server_total(client, small, 0.9))

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_asymmetry_is_measured_by_the_largest_entry(self, dtype: str) -> None:
        """8 d ulp of the largest entry pass, whatever the others are; ten times as much does not."""
        ns, d = badmm_kernels.load("full_gaussian"), 6
        allowed = 8 * d * float(np.finfo(dtype).eps)
        for factor, refused in ((0.5, False), (10.0, True)):
            matrix = np.diag([1.0, *np.full(d - 1, 1e-2)]).astype(dtype)
            matrix[3, 1] += np.asarray(factor * allowed, dtype)
            if refused:
                with pytest.raises(ValueError, match="precision: expected a symmetric matrix"):
                    ns.standard_from_natural(np.ones(d, dtype), matrix)
            else:
                ns.standard_from_natural(np.ones(d, dtype), matrix)


eye = np.eye(3)
vectors, matrices = np.ones((2, 3)), np.stack([np.eye(3)] * 2)


class TestVectorsAndMatrices:
    @pytest.mark.parametrize(
        ("mean", "precision", "kind", "message"),
        [
            (np.ones(3), np.ones((3, 2)), ValueError, r"^precision: expected shape \(\.\.\., d, d\), got \(3, 2\)"),
            (np.ones(3), np.ones(3), ValueError, r"^precision: expected shape \(\.\.\., d, d\), got \(3,\)"),
            (np.ones(()), eye, ValueError, r"^mean: expected shape \(\.\.\., d\), got \(\)"),
            (np.ones(0), np.ones((0, 0)), ValueError, r"^mean: expected at least one coordinate, got shape \(0,\)"),
            (np.ones(2), eye, ValueError, r"^precision: expected shape \(2, 2\), got \(3, 3\)"),
            (vectors, np.stack([eye] * 4), ValueError, r"^precision: expected shape \(2, 3, 3\), got \(4, 3, 3\)"),
            (np.ones(3), eye.astype("float32"), TypeError, "^precision: expected dtype float64 like mean, got float32"),
            ([1.0], eye, TypeError, "^mean: expected an array of float32 or float64, got list"),
        ],
    )
    def test_a_bad_one_is_refused_by_name(self, mean: Any, precision: Any, kind: type[Exception], message: str) -> None:
        with pytest.raises(kind, match=f"{message}$"):
            badmm_kernels.load("full_gaussian").natural_from_standard(mean, precision)

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("lead", [(), (1,), (4,), (2, 3)])
    @pytest.mark.parametrize("d", [1, 2])
    def test_leading_axes_are_members_and_one_without_them_is_shared(
        self, lead: tuple[int, ...], d: int, dtype: str
    ) -> None:
        ns, rng = badmm_kernels.load("full_gaussian"), np.random.default_rng(0)
        mean = rng.normal(size=(*lead, d)).astype(dtype)
        shared = (2.0 * np.eye(d)).astype(dtype)
        xi, precision = ns.natural_from_standard(mean, shared)
        assert (xi.dtype, xi.shape, precision.shape) == (np.dtype(dtype), (*lead, d), (*lead, d, d))
        np.testing.assert_array_equal(xi, 2 * mean)
        np.testing.assert_array_equal(precision, np.broadcast_to(shared, precision.shape))
        assert np.shape(ns.entropy(xi, precision, axis=-1)) == lead
        assert ns.natural_gradient(mean, mean, shared)[1].shape == (*lead, d, d)


class TestSlots:
    def test_slots_must_have_one_type_and_one_shape(self) -> None:
        ns, x = badmm_kernels.load("diagonal_gaussian"), np.ones((2, 3))
        with pytest.raises(TypeError, match=r"dual\.precision: expected dtype float64 like dual\.precision_mean"):
            ns.dual_update(*[(x, x.astype("float32"))] * 3, 0.5, 1.0)
        with pytest.raises(ValueError, match=r"dual\.precision: expected the shape of a slot beside \(2, 3\)"):
            ns.dual_update(*[(x, np.ones((2, 4)))] * 3, 0.5, 1.0)
        full = badmm_kernels.load("full_gaussian")
        for lead in ((), (2,), (4, 2)):
            slot = np.ones((*lead, 3)), np.broadcast_to(eye, (*lead, 3, 3)).copy()
            assert [s.shape for s in full.dual_update(slot, slot, slot, 0.5, 1.0)] == [(*lead, 3), (*lead, 3, 3)]
        with pytest.raises(ValueError, match=r"^axis: expected None or -1, got 1$"):
            full.entropy(np.ones(3), eye, axis=1)
        for bad in ((2, 3, 2), (2, 2, 3), (3, 3, 3), (1, 3, 3), (3,)):
            with pytest.raises(ValueError, match=r"dual\.precision: expected the shape of a slot beside \(2, 3\)"):
                full.dual_update(*[(vectors, np.ones(bad))] * 3, 0.5, 1.0)

    @pytest.mark.parametrize("library", ["numpy", "torch"])
    def test_the_callers_own_outputs_come_back(self, library: str) -> None:
        make = np.ones if library == "numpy" else importlib.import_module("torch").ones
        kind: dict[str, Any] = {"dtype": "float64" if library == "numpy" else importlib.import_module("torch").float64}
        ns, given = badmm_kernels.load("diagonal_gaussian"), (make(5, **kind), make(5, **kind))
        out = (make(5, **kind), make(5, **kind))
        returned = ns.dual_update(given, given, given, 0.5, 1.0, out=out)
        assert all(a is b for a, b in zip(returned, out, strict=True))
        both = ((make(5, **kind), make(5, **kind)), (make(5, **kind), make(5, **kind)))
        for group, expected in zip(ns.round_update(given, given, given, 0.5, 1.0, 0.4, 5, out=both), both, strict=True):
            assert all(a is b for a, b in zip(group, expected, strict=True))
        with pytest.raises(ValueError, match=r"out\[1\]: expected a tuple of 2 arrays"):
            ns.round_update(given, given, given, 0.5, 1.0, 0.4, 5, out=(out, None))

    def test_a_coefficient_of_zero_is_no_loss(self) -> None:
        """(1 − α)/K at α = 1; one that rounding makes zero or infinite is."""
        ns, x = badmm_kernels.load("diagonal_gaussian"), np.ones((2, 3), "float32")
        for slot in ns.server_contribution((x, x), (2.0 * x, 2.0 * x), 1.0, 2):
            np.testing.assert_array_equal(slot, -2.0 * x)
        with pytest.raises(
            ValueError, match=r"^rho, damping: expected a coefficient that float32 can hold, got 1e\+40$"
        ):
            ns.dual_update((x, x), (x, x), (x, x), 1e40, 1.0)

    def test_a_sum_over_clients_takes_one_client_and_single_numbers(self) -> None:
        ns = badmm_kernels.load("diagonal_gaussian")
        for shape in ((1, 3), (4,), (1,)):
            client, dual = (np.full(shape, 2.0),) * 2, (np.full(shape, 0.5),) * 2
            for slot in ns.server_total(client, dual, 0.4):
                np.testing.assert_allclose(slot, np.full(shape[1:], 0.6 * 2.0 - 0.4 * 0.5 * shape[0]), rtol=1e-15)
        with pytest.raises(ValueError, match=r"dual\.precision_mean: expected a leading client axis"):
            ns.server_total((vectors,) * 2, (np.ones(3),) * 2, 0.4)
        with pytest.raises(ValueError, match="expected a leading client axis"):
            ns.server_total((np.ones(()),) * 2, (np.ones(()),) * 2, 0.4)

    @pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 5), (1, 5), (5, 1), (2, 3, 5), (2, 1, 5)])
    @pytest.mark.parametrize("shared", [False, True])
    def test_a_value_per_row_is_one_per_index_before_the_last_axis(self, shape: tuple[int, ...], shared: bool) -> None:
        ns, rng = badmm_kernels.load("gamma"), np.random.default_rng(1)
        q = tuple(rng.uniform(0.5, 2.0, shape) for _ in range(2))
        p = tuple(rng.uniform(0.5, 2.0, shape[1:] if shared else shape) for _ in range(2))
        if shared and not shape:
            pytest.skip("nothing to share")
        rows, total = np.asarray(ns.kl(q, p, axis=-1)), ns.kl(q, p)
        single = [np.broadcast_to(slot, shape).copy().reshape(-1, 1) for slot in (*q, *p)]
        each = np.asarray(ns.kl(tuple(single[:2]), tuple(single[2:]), axis=-1)).reshape(shape)
        wanted = each.sum(axis=-1) if len(shape) > 1 else each.sum().reshape(rows.shape)
        np.testing.assert_allclose(rows, wanted, rtol=1e-13)
        assert total == pytest.approx(each.sum(), rel=1e-13)


class TestRowsOfAnOptimizer:
    def test_a_bad_list_or_pair_is_refused_by_name(self) -> None:
        ns, x = badmm_kernels.load("ivon"), np.ones((3, 4))
        with pytest.raises(TypeError, match=r"^ess: expected a number, or one per row, got dict"):
            ns.sample(x, x, {}, noise=x)
        for value in ([1.0, 2.0], np.ones((3, 1)), (1.0,) * 4):
            with pytest.raises(
                ValueError, match=r"^ess: expected a number, or an array of shape \(3,\), one per row, got"
            ):
                ns.sample(x, x, value, noise=x)
        wanted = ns.sample(x, x, [1.0, 2.0, 4.0], noise=x)[0]
        torch = importlib.import_module("torch")
        for same in ((1.0, 2.0, 4.0), np.array([1, 2, 4]), torch.tensor([1.0, 2.0, 4.0])):
            np.testing.assert_array_equal(ns.sample(x, x, same, noise=x)[0], wanted)
        step: dict[str, Any] = {"ess": 1.0, "lr": 0.1, "beta1": 0.9, "beta2": 0.9, "debias": 0.5, "clip": None}
        message = r"^cavity: expected a tuple of 2 arrays \(precision_mean, precision\), got float"
        with pytest.raises(ValueError, match=message):
            ns.update(x, x, x, x, 0.5, **step, noise=x)

    def test_numbers_of_any_type_and_size_and_arrays_that_are_read_only_are_taken(self) -> None:
        ns, x = badmm_kernels.load("ivon"), np.linspace(0.5, 2.0, 4)
        wanted = ns.sample(x, x, 2.0, noise=x)[0]
        for ess in (np.float32(2.0), np.int64(2), 2, np.float64(2.0)):
            np.testing.assert_array_equal(ns.sample(x, x, ess, noise=x)[0], wanted)
        fixed = x.copy()
        fixed.flags.writeable = False
        np.testing.assert_array_equal(ns.sample(fixed, fixed, 2.0, noise=fixed)[0], wanted)
        for array in (fixed, x, fixed.reshape(2, 2)):
            seen = rows.flat(array)
            assert seen.flags.writeable and seen.shape == (4,) and np.shares_memory(seen, array)
        for dtype in DTYPES:
            largest = np.finfo(dtype).max
            for value in (largest, -largest, 0):
                assert rows.number("c", float(value), np.dtype(dtype)) == value
            with pytest.raises(ValueError, match=r"^c: expected a finite number that float"):
                rows.number("c", float("nan"), np.dtype(dtype))

    @pytest.mark.parametrize("module", ["cpu", "torch"])
    def test_a_rows_seed_and_step_count_in_all_their_bits(self, module: str) -> None:
        ns = importlib.import_module(f"badmm_kernels.{module}.ivon")
        seeds = [5, 5 + 2**32, 5 + 2**63, 5]
        steps = [1, 1, 1, 1 + 2**32]

        def buffer(*shape: int) -> Any:
            return importlib.import_module("torch").empty(shape) if module == "torch" else np.empty(shape, "float32")

        drawn = np.asarray(ns.noise(seeds, steps, out=buffer(4, 200)))
        for i in range(4):
            alone = np.asarray(ns.noise([seeds[i]], [steps[i]], out=buffer(1, 200)))
            np.testing.assert_array_equal(drawn[i], alone[0])
            for j in range(i):
                assert np.mean(drawn[i] == drawn[j]) < 0.05, (i, j)

    @pytest.mark.parametrize("kind", [int, np.uint64])
    def test_an_array_and_a_list_of_seeds_of_any_integer_type_are_one(self, kind: Any) -> None:
        ns, seeds = badmm_kernels.load("ivon"), [5, 5 + 2**32, 2**63 + 1]
        listed = ns.noise([kind(s) for s in seeds], 1, out=np.empty((3, 60)))
        np.testing.assert_array_equal(listed, ns.noise(np.array(seeds, np.uint64), 1, out=np.empty((3, 60))))
        np.testing.assert_array_equal(listed[1], ns.noise(kind(seeds[1]), 1, out=np.empty(60)))
        assert np.mean(listed[0] == listed[1]) < 0.05

    @pytest.mark.parametrize("module", ["cpu", "torch"])
    def test_an_operand_that_could_be_either_is_shared_by_the_rows(self, module: str) -> None:
        """(K, 1) beside rows of that shape: an array without the leading axis, not a number per row."""
        ns = importlib.import_module(f"badmm_kernels.{module}.ivon")
        wrap = importlib.import_module("torch").from_numpy if module == "torch" else np.asarray
        x = wrap(np.ones((3, 3, 1)))
        shared = wrap(np.array([[0.1], [0.2], [0.4]]))
        step: dict[str, Any] = {"ess": 1.0, "lr": 0.1, "beta1": 0.0, "beta2": 0.9, "noise": x}
        mean = np.asarray(ns.update(x, x, x, x, (shared, 0.1), **step)[0])
        for row in mean:
            np.testing.assert_array_equal(row, mean[0])
        assert len(np.unique(mean[0])) == 3

    @pytest.mark.parametrize("width", [3, 5])
    def test_numbers_per_row_belong_to_rows_even_where_there_are_as_many_coordinates(self, width: int) -> None:
        torch = importlib.import_module("torch")
        plain, compiled = importlib.import_module("badmm_kernels.torch.ivon"), badmm_kernels.load("ivon")
        rows, rng = 3, np.random.default_rng(3)
        mean, noise = rng.normal(size=(rows, width)), rng.normal(size=(rows, width))
        precision, ess = rng.uniform(0.5, 2.0, (rows, width)), [10.0, 1000.0, 1e5]
        got = plain.sample(*map(torch.tensor, (mean, precision)), ess, noise=torch.tensor(noise))[0].numpy()
        wanted = mean + noise / np.sqrt(np.array(ess)[:, None] * precision)
        np.testing.assert_allclose(got, wanted, rtol=1e-13)
        np.testing.assert_allclose(compiled.sample(mean, precision, ess, noise=noise)[0], wanted, rtol=1e-13)
        step = {
            "ess": ess,
            "lr": [0.1, 0.2, 0.3],
            "beta1": 0.9,
            "beta2": [0.9, 0.99, 0.999],
            "debias": 0.5,
            "clip": None,
        }
        dual = (0.0, np.ascontiguousarray(precision[:, :1]))
        given = (noise, mean, precision, noise, dual)
        tensors = (*map(torch.tensor, given[:4]), (0.0, torch.tensor(dual[1])))
        first = compiled.update(*given, **step, noise=noise)
        second = plain.update(*tensors, **step, noise=torch.tensor(noise))
        for a, b in zip(first, second, strict=True):
            np.testing.assert_allclose(a, b.numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("where", ["inputs", "outputs"])
def test_sixteen_bytes_move_as_one_only_where_every_array_is_aligned(where: str, dtype: str) -> None:
    """An address that a vector load cannot take would be an error of the device, whichever array it is of."""
    places = {"inputs": [0, 4096], "outputs": [8192, 16384]}
    slot = launch.Slot(places["inputs"], [64, 64], places["outputs"], 1, 64)
    pack = launch.PACK // np.dtype(dtype).itemsize
    assert launch.pack_size([slot], np.dtype(dtype), "map") == pack
    for k in range(2):
        moved = {**places, where: [a + (8 if i == k else 0) for i, a in enumerate(places[where])]}
        slot = launch.Slot(moved["inputs"], [64, 64], moved["outputs"], 1, 64)
        assert launch.pack_size([slot], np.dtype(dtype), "map") == 1


class TestPlacesInMemory:
    def test_an_output_may_begin_where_an_input_ends(self) -> None:
        """Also where the fast acceptance path leaves the call to the full checks: a matrix family, another library."""
        buffer = np.ones(4 * 3 + 2 * 9)
        ns, d = badmm_kernels.load("full_gaussian"), 3
        mean, xi = buffer[:d], buffer[d : 2 * d]
        precision, out = buffer[2 * d : 2 * d + 9].reshape(3, 3), buffer[2 * d + 9 : 2 * d + 18].reshape(3, 3)
        precision[...] = np.eye(3)
        found = ns.natural_from_standard(mean, precision, out=(xi, out))
        assert found[0] is xi and found[1] is out and xi.tolist() == [1.0] * 3
        with pytest.raises(ValueError, match=r"^out\[0\]: expected memory of its own, got an overlap with mean$"):
            ns.natural_from_standard(mean, precision, out=(buffer[d - 1 : 2 * d - 1], out))

    def test_a_coefficient_that_the_type_cannot_hold_is_the_one_named(self) -> None:
        ns, x = badmm_kernels.load("ivon"), np.ones((3, 2), "float32")
        with pytest.raises(ValueError, match="coefficient that float32 can hold") as caught:
            ns.sample(x, x, [1.0, 1e-100, 4.0], noise=x)
        value = float(str(caught.value).rpartition(" ")[2])
        assert value < 1e-40 or value > 1e40

    def test_a_tuple_of_another_length_is_counted(self) -> None:
        ns, x = badmm_kernels.load("diagonal_gaussian"), np.ones(3)
        with pytest.raises(ValueError, match=r"^natural_q: expected a tuple of 2 arrays \(.*\), got 1 of them$"):
            ns.kl((x,), (x, x))
        with pytest.raises(ValueError, match=r"^natural_q: expected a tuple of 2 arrays \(.*\), got ndarray$"):
            ns.kl(x, (x, x))
        with pytest.raises(ValueError, match=r"^out: expected a tuple of 2 arrays, got 1 of them$"):
            ns.natural_from_standard(x, x, out=(x,))
        with pytest.raises(ValueError, match=r"^out: expected a tuple of 2 arrays, got ndarray$"):
            ns.natural_from_standard(x, x, out=np.ones(2))

from typing import Any

import numpy as np
import pytest
import torch

from advisor.merging.number_formats import to_storage, to_working


def test_bfloat16_rounds_as_torch_does() -> None:
    rng = np.random.default_rng(0)
    values = (rng.normal(size=20_000) * 10.0 ** rng.integers(-30, 30, 20_000)).astype(np.float32)
    halfway = np.array([1.00390625, 1.01171875, -1.00390625, 0.0, -0.0], dtype=np.float32)
    values = np.concatenate([values, halfway])
    expected = torch.from_numpy(values).to(torch.bfloat16)
    assert np.array_equal(to_storage(values, "BF16"), expected.view(torch.int16).numpy().view(np.uint16))
    assert np.array_equal(to_working(to_storage(values, "BF16"), "BF16"), expected.float().numpy())


@pytest.mark.parametrize(("dtype", "kind"), [("F16", np.float16), ("F32", np.float32), ("F64", np.float64)])
def test_storage_and_working_formats_round_trip(dtype: str, kind: type) -> None:
    raw: Any = np.linspace(-3, 3, 17).astype(kind)
    assert np.array_equal(to_storage(to_working(raw, dtype), dtype), raw)


@pytest.mark.parametrize(("dtype", "kind"), [("F16", np.float16), ("BF16", np.uint16)])
def test_narrow_numbers_are_widened_into_memory_that_is_given(dtype: str, kind: type) -> None:
    raw: Any = np.arange(0, 31_000, 7, dtype=np.uint16).view(kind)
    out = np.empty(raw.size, np.float32)
    found = to_working(raw, dtype, out)
    assert np.shares_memory(found, out)
    assert np.array_equal(out, to_working(raw, dtype))


def test_fp64_is_merged_in_fp64_and_the_rest_in_fp32() -> None:
    assert to_working(np.zeros(2, np.float64), "F64").dtype == np.float64
    assert to_working(np.zeros(2, np.float16), "F16").dtype == np.float32


@pytest.mark.parametrize(
    ("dtype", "value"), [("F16", 1e5), ("BF16", 3.4e38), ("F32", np.inf), ("F32", np.nan), ("F64", -np.inf)]
)
def test_values_that_do_not_fit_are_refused(dtype: str, value: float) -> None:
    with np.errstate(over="ignore"), pytest.raises(OverflowError, match=f"not finite in dtype={dtype}"):
        to_storage(np.array([1.0, value], dtype=np.float32), dtype)


def test_large_values_whose_sum_overflows_are_stored() -> None:
    values = np.full(4, 3e38, dtype=np.float32)
    with np.errstate(over="ignore"):
        assert np.array_equal(to_storage(values, "F32"), values)

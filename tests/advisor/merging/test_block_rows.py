"""Rows of one block against sums in fp64, for every storage dtype, from files and from memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from advisor.merging import IncompatibleCheckpoints
from advisor.merging.block_rows import RunningStatistics, empty_rows, read_rows
from advisor.merging.compatibility import MergeInputs, open_inputs

SIZE = 1000
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def tensors(dtype: torch.dtype = torch.float32, count: int = 5) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(SIZE, generator=generator).to(dtype) for _ in range(count)]


def open_tensors(values: list[torch.Tensor], folder: Path | None = None) -> MergeInputs:
    places: list[Any] = []
    for number, value in enumerate(values):
        places.append({"w": value})
        if folder is not None:
            safetensors.torch.save_file(places[-1], folder / f"{number}.safetensors")
            places[-1] = folder / f"{number}.safetensors"
    return open_inputs(places[0], places[1:], mixed_dtypes=True)


def expected_rows(values: list[torch.Tensor]) -> np.ndarray[Any, Any]:
    base, *others = (value.double().numpy() for value in values)
    return np.stack([base, *(other - base for other in others)])


@pytest.mark.parametrize("from_files", [True, False])
@pytest.mark.parametrize("base_dtype", DTYPES)
def test_rows_are_the_base_and_the_differences_to_it(base_dtype: torch.dtype, from_files: bool, tmp_path: Path) -> None:
    values = [tensors(dtype)[row] for row, dtype in enumerate((base_dtype, *DTYPES))]
    inputs = open_tensors(values, tmp_path if from_files else None)
    expected = expected_rows(values)
    rows = empty_rows(inputs, "w", SIZE)
    assert rows.dtype == (np.float64 if base_dtype == torch.float64 else np.float32)
    for start, stop in ((0, 300), (300, 700), (700, SIZE)):
        read_rows(inputs, "w", start, stop, rows[:, start:stop])
    precise = 1e-15 if base_dtype == torch.float64 else 1e-6
    np.testing.assert_allclose(rows, expected, rtol=precise, atol=precise)
    for value, place in zip(values, [inputs.base, *inputs.experts], strict=True):  # sources are left alone
        raw = place.read("w", 0, SIZE)
        kept = value.view(torch.int16).numpy().view(np.uint16) if value.dtype == torch.bfloat16 else value.numpy()
        assert np.array_equal(raw, kept)


def test_differences_to_a_narrower_base_are_rounded_once(tmp_path: Path) -> None:
    base, expert = torch.full((SIZE,), 1.0), torch.full((SIZE,), 1.0 + 2.0**-40, dtype=torch.float64)
    rows = empty_rows(inputs := open_tensors([base, expert], tmp_path), "w", SIZE)
    read_rows(inputs, "w", 0, SIZE, rows)
    assert set(rows[1].tolist()) == {2.0**-40}


@pytest.mark.parametrize("size", [0, 1, 37, SIZE])
def test_memory_begins_with_a_cache_line(size: int) -> None:
    rows = empty_rows(open_tensors(tensors()), "w", size)
    assert rows.shape == (5, size)
    assert size == 0 or rows.ctypes.data % 64 == 0


@pytest.mark.parametrize("count", [2, 3, 5, 9])
def test_statistics_of_blocks_add_up_to_those_of_the_tensor(count: int) -> None:
    values = tensors(count=count)
    inputs, exact = open_tensors(values), expected_rows(values)
    statistics = RunningStatistics(inputs, "w")
    for start, stop in ((0, 999), (999, SIZE)):
        rows = empty_rows(inputs, "w", stop - start)
        read_rows(inputs, "w", start, stop, rows)
        statistics.add(rows)
    found = statistics.total()
    np.testing.assert_allclose(found.gram, exact[1:] @ exact[1:].T, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(found.base_square, exact[0] @ exact[0], rtol=1e-6)


def test_products_too_large_for_fp32_are_formed_in_fp64() -> None:
    values = [value * 1e25 for value in tensors()]
    inputs, exact = open_tensors(values), expected_rows(values)
    statistics, rows = RunningStatistics(inputs, "w"), empty_rows(inputs, "w", SIZE)
    read_rows(inputs, "w", 0, SIZE, rows)
    with np.errstate(over="ignore", invalid="ignore"):
        statistics.add(rows)
    np.testing.assert_allclose(statistics.total().gram, exact[1:] @ exact[1:].T, rtol=1e-6, atol=1e46)
    np.testing.assert_allclose(statistics.total().base_square, exact[0] @ exact[0], rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("row", "name"), [(0, "base"), (1, "expert0"), (4, "expert3")])
@pytest.mark.parametrize("position", [0, 517, SIZE - 1])
def test_a_single_number_that_is_not_finite_is_found_and_its_owner_named(
    row: int, name: str, value: float, position: int
) -> None:
    values = tensors()
    values[row][position] = value
    inputs = open_tensors(values)
    rows = empty_rows(inputs, "w", SIZE)
    with np.errstate(over="ignore", invalid="ignore"):
        read_rows(inputs, "w", 0, SIZE, rows)
        with pytest.raises(IncompatibleCheckpoints, match=f"{name}.*tensor 'w' holds NaN or infinity"):
            RunningStatistics(inputs, "w").add(rows)

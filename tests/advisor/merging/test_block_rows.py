"""Rows of one block against sums in fp64, for every storage dtype, from files and from memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from advisor.merging import IncompatibleCheckpoints, block_rows
from advisor.merging.block_rows import RowReader, RunningStatistics, empty_rows, row_readers
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
    found = []
    for reader, starts in row_readers(inputs, "w", 300):
        assert reader.rows.dtype == (np.float64 if base_dtype == torch.float64 else np.float32)
        for start in starts:
            reader.read(start)
            found.append(reader.rows.copy())
    rows = np.hstack(found)
    precise = 1e-15 if base_dtype == torch.float64 else 1e-6
    np.testing.assert_allclose(rows, expected, rtol=precise, atol=precise)
    for value, place in zip(values, [inputs.base, *inputs.experts], strict=True):  # sources are left alone
        raw = place.read("w", 0, SIZE)
        kept = value.view(torch.int16).numpy().view(np.uint16) if value.dtype == torch.bfloat16 else value.numpy()
        assert np.array_equal(raw, kept)


def test_differences_to_a_narrower_base_are_rounded_once(tmp_path: Path) -> None:
    base, expert = torch.full((SIZE,), 1.0), torch.full((SIZE,), 1.0 + 2.0**-40, dtype=torch.float64)
    reader = RowReader(open_tensors([base, expert], tmp_path), "w", SIZE)
    reader.read(0)
    assert set(reader.rows[1].tolist()) == {2.0**-40}


@pytest.mark.parametrize(
    ("length", "blocks"),
    [(300, [range(0, 900, 300), range(900, 1000, 300)]), (500, [range(0, 1000, 500)]), (2000, [range(0, 1000, 2000)])],
)
def test_readers_cover_a_tensor_once(length: int, blocks: list[range]) -> None:
    found = [(reader.rows.shape[1], starts) for reader, starts in row_readers(open_tensors(tensors()), "w", length)]
    assert [starts for _, starts in found] == blocks
    covered = [position for size, starts in found for start in starts for position in range(start, start + size)]
    assert covered == list(range(SIZE))


@pytest.mark.parametrize("size", [0, 1, 37, SIZE])
def test_memory_begins_with_a_cache_line(size: int) -> None:
    rows = empty_rows(open_tensors(tensors()), "w", size)
    assert rows.shape == (5, size)
    assert size == 0 or rows.ctypes.data % 64 == 0


@pytest.mark.parametrize("count", [2, 3, 5, 9])
@pytest.mark.parametrize("small_product", [1, 700, 10**6])  # sliced to the utmost, sliced, in one product
def test_statistics_of_blocks_add_up_to_those_of_the_tensor(
    count: int, small_product: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_rows, "_SMALL_PRODUCT", small_product)
    values = tensors(count=count)
    inputs, exact = open_tensors(values), expected_rows(values)
    statistics = RunningStatistics(inputs, "w")
    for reader, starts in row_readers(inputs, "w", 999):
        for start in starts:
            reader.read(start)
            statistics.add(reader.rows)
    found = statistics.total()
    np.testing.assert_allclose(found.gram, exact[1:] @ exact[1:].T, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(found.base_square, exact[0] @ exact[0], rtol=1e-6)


def test_products_too_large_for_fp32_are_formed_in_fp64() -> None:
    values = [value * 1e25 for value in tensors()]
    inputs, exact = open_tensors(values), expected_rows(values)
    statistics, reader = RunningStatistics(inputs, "w"), RowReader(inputs, "w", SIZE)
    reader.read(0)
    with np.errstate(over="ignore", invalid="ignore"):
        statistics.add(reader.rows)
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
    reader = RowReader(inputs, "w", SIZE)
    with np.errstate(over="ignore", invalid="ignore"):
        reader.read(0)
        with pytest.raises(IncompatibleCheckpoints, match=f"{name}.*tensor 'w' holds NaN or infinity"):
            RunningStatistics(inputs, "w").add(reader.rows)

"""One block of one tensor in all inputs, read into the same memory again and again, and what is measured of it.

    rows = [x₀, τ_1, ..., τ_N]   [N + 1, n],     τ_t = x_t − x₀,     G += τ τᵀ,     ‖x₀‖² += x₀ᵀ x₀

Every number passes here, so the rows stay in the cache and no memory is made on the way.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from advisor.merging.compatibility import IncompatibleCheckpoints, MergeInputs
from advisor.merging.grams import GramMatrix, TensorStatistics
from advisor.merging.number_formats import STORAGE, FloatArray, to_working, working_dtype
from advisor.merging.sources import Source

_CACHE_LINE = 64  # bytes
_SMALL_PRODUCT = 900_000  # multiplications: above a million OpenBLAS copies both matrices first, six times slower


def empty_rows(inputs: MergeInputs, name: str, size: int) -> FloatArray:
    """Memory for rows [N + 1, size] that begins with a cache line: NumPy's own does not, and is a seventh slower."""
    dtype, count = working_dtype(inputs.base.tensors[name].dtype), len(inputs.experts) + 1
    length = count * size * dtype.itemsize
    memory = np.empty(length + _CACHE_LINE, dtype=np.uint8)
    begin = -memory.ctypes.data % _CACHE_LINE
    rows: FloatArray = memory[begin : begin + length].view(dtype).reshape(count, size)
    return rows


class RowReader:
    """Reads blocks of one tensor in all inputs into ``rows`` [N + 1, size]: base first, then task vectors.

    What is the same for every block is settled once: between blocks of some 100 µs, looking it up counts.
    """

    def __init__(self, inputs: MergeInputs, name: str, size: int) -> None:
        working = working_dtype(inputs.base.tensors[name].dtype)
        self.rows = empty_rows(inputs, name, size)
        self._base, *vectors = self.rows
        self._read_base = _row_reading(inputs.base, name, working)
        self._experts = [
            (vector, _row_reading(expert, name, working))
            for vector, expert in zip(vectors, inputs.experts, strict=True)
        ]

    def read(self, start: int) -> None:
        """Fill the rows with elements [start, start + size)."""
        base = self._base
        stop = start + base.size
        numbers = self._read_base(start, stop, base)
        if numbers is not base:
            base[:] = numbers
        for vector, read in self._experts:
            np.subtract(read(start, stop, vector), base, out=vector)


def row_readers(inputs: MergeInputs, name: str, length: int) -> Iterator[tuple[RowReader, range]]:
    """Readers that cover a tensor, each with the first elements of its blocks: full ones, then what is left."""
    size = inputs.base.tensors[name].size
    full = size - size % length
    if full:
        yield RowReader(inputs, name, length), range(0, full, length)
    if full < size:
        yield RowReader(inputs, name, size - full), range(full, size, length)


def _row_reading(source: Source, name: str, working: np.dtype[Any]) -> Callable[[int, int, FloatArray], FloatArray]:
    """How to get numbers [start, stop): in the row given, unless the source lends its memory or its dtype is wider."""
    dtype = source.tensors[name].dtype
    if STORAGE[dtype] == working:
        return partial(source.read, name)
    if working_dtype(dtype) == working:
        return lambda start, stop, row: to_working(source.read(name, start, stop), dtype, row)
    return lambda start, stop, row: to_working(source.read(name, start, stop), dtype)


class RunningStatistics:
    """Statistics of one tensor, block by block: products in the working dtype, sums in fp64."""

    def __init__(self, inputs: MergeInputs, name: str) -> None:
        self._inputs, self._name = inputs, name
        self._gram: GramMatrix = np.zeros((len(inputs.labels), len(inputs.labels)))
        self._base_square = 0.0

    def add(self, rows: FloatArray) -> None:
        """Take in one block; inner products that are finite prove that every input value is."""
        base_square = float(np.dot(rows[0], rows[0]))
        products = _inner_products(rows)
        if not math.isfinite(base_square + float(products.sum())):
            self._require_finite(rows)
            exact = rows.astype(np.float64)
            base_square, products = float(np.dot(exact[0], exact[0])), exact[1:] @ exact[1:].T
        self._gram += products
        self._base_square += base_square

    def total(self) -> TensorStatistics:
        """Gram matrix and base norm of all blocks so far."""
        return TensorStatistics(gram=self._gram, base_square=self._base_square)

    def _require_finite(self, rows: FloatArray) -> None:
        for row, source in zip(rows, (self._inputs.base, *self._inputs.experts), strict=True):
            if not np.isfinite(row).all():
                raise IncompatibleCheckpoints(f"{source.place}: tensor {self._name!r} holds NaN or infinity")


def _inner_products(rows: FloatArray) -> FloatArray:
    """⟨τ_a, τ_b⟩ [N, N] of one block."""
    count, size = rows.shape
    width = 1 << max(1, _SMALL_PRODUCT // (count * (count - 1))).bit_length() - 1  # a power of two keeps parts aligned
    # Two different operands, for of a matrix and its own transpose NumPy makes a rank-k update (syrk), which is
    # up to ten times slower for so few and so long rows.
    if size <= width:
        whole: FloatArray = np.dot(rows[1:], rows.T)[:, 1:]
        return whole
    products: FloatArray = np.zeros((count - 1, count), dtype=rows.dtype)
    for start in range(0, size, width):
        part = rows[:, start : start + width]
        products += np.matmul(part[1:], part.T)  # not dot, which copies parts of rows first
    return products[:, 1:]

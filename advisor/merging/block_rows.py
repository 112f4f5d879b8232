"""One block of one tensor in all inputs, read into the same memory again and again, and what is measured of it.

    rows = [x₀, τ_1, ..., τ_N]   [N + 1, n],     τ_t = x_t − x₀,     G += τ τᵀ,     ‖x₀‖² += x₀ᵀ x₀

Every number passes here, so the rows stay in the cache and no memory is made on the way.
"""

import math

import numpy as np

from advisor.merging.compatibility import IncompatibleCheckpoints, MergeInputs
from advisor.merging.grams import GramMatrix, TensorStatistics
from advisor.merging.number_formats import STORAGE, FloatArray, to_working, working_dtype
from advisor.merging.sources import Source

_CACHE_LINE = 64  # bytes


def empty_rows(inputs: MergeInputs, name: str, size: int) -> FloatArray:
    """Memory for rows [N + 1, size] that begins with a cache line: NumPy's own does not, and is a seventh slower."""
    dtype, count = working_dtype(inputs.base.tensors[name].dtype), len(inputs.experts) + 1
    length = count * size * dtype.itemsize
    memory = np.empty(length + _CACHE_LINE, dtype=np.uint8)
    begin = -memory.ctypes.data % _CACHE_LINE
    rows: FloatArray = memory[begin : begin + length].view(dtype).reshape(count, size)
    return rows


def read_rows(inputs: MergeInputs, name: str, start: int, stop: int, rows: FloatArray) -> None:
    """Base and task vectors of elements [start, stop) into ``rows`` [N + 1, stop − start], the base first."""
    base, *vectors = rows
    numbers = _read_numbers(inputs.base, name, start, stop, base)
    if numbers is not base:
        base[:] = numbers
    for vector, expert in zip(vectors, inputs.experts, strict=True):
        np.subtract(_read_numbers(expert, name, start, stop, vector), base, out=vector)


def _read_numbers(source: Source, name: str, start: int, stop: int, row: FloatArray) -> FloatArray:
    """Working numbers [n]; they lie in ``row`` unless the source lends its own memory or its dtype is wider."""
    dtype = source.tensors[name].dtype
    if row.dtype == STORAGE[dtype]:
        return source.read(name, start, stop, row)
    return to_working(source.read(name, start, stop), dtype, row if row.dtype == working_dtype(dtype) else None)


class RunningStatistics:
    """Statistics of one tensor, block by block: products in the working dtype, sums in fp64."""

    def __init__(self, inputs: MergeInputs, name: str) -> None:
        self._inputs, self._name = inputs, name
        self._gram: GramMatrix = np.zeros((len(inputs.labels), len(inputs.labels)))
        self._base_square = 0.0

    def add(self, rows: FloatArray) -> None:
        """Take in one block; inner products that are finite prove that every input value is."""
        base_square = float(np.dot(rows[0], rows[0]))
        # Two different operands, for of a matrix and its own transpose NumPy makes a rank-k update (syrk), which is
        # up to ten times slower for so few and so long rows.
        products = np.dot(rows[1:], rows.T)[:, 1:]
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

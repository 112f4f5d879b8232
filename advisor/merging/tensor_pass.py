"""One pass over all tensors: read a block, subtract the base, collect the Gram matrix, merge, write.

    for each tensor, for each block of 2¹⁵ elements:
        τ_t = x_t − x₀        G += τ τᵀ        x_avg = x₀ + Π(τ)

Elementwise operators never hold more than one block of each input; the others hold N + 2 tensors (τ, base, result).
Workers are threads, each on its own tensor; a tensor's result depends on nothing but its own inputs and
(seed, tensor name, expert label), so any number of workers writes the same bytes.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import numpy as np

from advisor.merging.compatibility import IncompatibleCheckpoints, MergeInputs
from advisor.merging.grams import TensorStatistics
from advisor.merging.number_formats import STORAGE, FloatArray, RawArray, to_storage, to_working, working_dtype
from advisor.merging.operator import Coefficients, Operator, TensorVectors
from advisor.merging.sources import Source

BLOCK = (
    1 << 15
)  # elements: 128 KB of fp32, small enough for the cache and for malloc to keep, so no page is faulted twice

CoefficientsOf = Callable[[str], Coefficients]
Result = TypeVar("Result")


class Sink(Protocol):
    """Where merged numbers go. Calls for different tensors may come from different threads."""

    def write(self, name: str, start: int, values: RawArray) -> None:
        """Store elements from `start` of the flattened tensor, in storage dtype."""


def run_pass(
    inputs: MergeInputs, operator: Operator, coefficients: CoefficientsOf, sink: Sink, *, seed: int, workers: int
) -> dict[str, TensorStatistics]:
    """Merge every tensor into the sink; statistics of each parameter, tied tensors once, in the base's order."""

    def work(name: str) -> TensorStatistics | None:
        # Inputs that are not finite are refused in _measure, results in to_storage, both by name; warnings add nothing.
        with np.errstate(over="ignore", invalid="ignore"):
            return _merge_tensor(inputs, name, operator, coefficients(name), sink, seed)

    names = list(inputs.roles)
    found = map_tensors(work, names, workers)
    return {
        name: statistics
        for name, statistics in zip(names, found, strict=True)
        if statistics is not None and inputs.key(name) == name
    }


def map_tensors(work: Callable[[str], Result], names: list[str], workers: int) -> list[Result]:
    """Results of `work` in the order of `names`, from one thread or several.

    Raises:
        ValueError: fewer than one worker.
    """
    if workers < 1:
        raise ValueError(f"workers={workers} must be at least 1")
    if workers == 1:
        return [work(name) for name in names]
    with ThreadPoolExecutor(max_workers=workers) as pool:
        futures = [pool.submit(work, name) for name in names]
        try:
            return [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            raise


def read_blocks(inputs: MergeInputs, coefficients: CoefficientsOf, *, seed: int) -> Iterator[TensorVectors]:
    """All parameters block by block, tied tensors once: what a survey reads."""
    for name in inputs.names("parameter"):
        if inputs.key(name) == name:
            for start, stop in _spans(inputs.base.tensors[name].size):
                yield _as_vectors(inputs, name, _read(inputs, name, start, stop), coefficients(name), seed)


def measure_tensor(inputs: MergeInputs, name: str) -> TensorStatistics:
    """Gram matrix and base norm of one parameter, without merging."""
    statistics = _empty_statistics(inputs)
    for start, stop in _spans(inputs.base.tensors[name].size):
        statistics = _add(statistics, _measure(inputs, name, _read(inputs, name, start, stop)))
    return statistics


def _merge_tensor(
    inputs: MergeInputs, name: str, operator: Operator, coefficients: Coefficients, sink: Sink, seed: int
) -> TensorStatistics | None:
    role = inputs.roles[name]
    if role in ("integer", "kept"):
        agreed = role == "integer" and experts_agree(inputs, name)
        source = inputs.experts[0] if agreed else inputs.base
        for start, stop in _spans(inputs.base.tensors[name].size):
            sink.write(name, start, source.read(name, start, stop))
        return None
    info = inputs.base.tensors[name]
    statistics = _empty_statistics(inputs)
    if operator.elementwise or role == "statistic" or info.size <= BLOCK:
        rows = _empty_rows(inputs, name, min(info.size, BLOCK))
        for start, stop in _spans(info.size):
            rows = _read(inputs, name, start, stop, rows)
            statistics = _add(statistics, _measure(inputs, name, rows))
            block = _as_vectors(inputs, name, rows, coefficients, seed)
            _write(name, start, info.dtype, block, _change(operator, role, block), sink)
    else:
        rows, statistics = _read_whole(inputs, name)
        whole = _as_vectors(inputs, name, rows, coefficients, seed)
        change = operator.merge(whole)
        for start, stop in _spans(info.size):
            _write(name, start, info.dtype, whole, change[start:stop], sink, within=slice(start, stop))
    return statistics if role == "parameter" else None


def _change(operator: Operator, role: str, block: TensorVectors) -> FloatArray:
    if role == "statistic":
        return block.weighted_sum() if operator.rest == "sum" else block.weighted_mean()
    return operator.merge(block)


def _read(inputs: MergeInputs, name: str, start: int, stop: int, rows: FloatArray | None = None) -> FloatArray:
    """Base and task vectors of elements [start, stop): rows [N + 1, n], the base first, in ``rows`` if it fits."""
    if rows is None or rows.shape[1] != stop - start:
        rows = _empty_rows(inputs, name, stop - start)
    base = _numbers(inputs.base, name, start, stop, rows[0])
    if base is not rows[0]:
        rows[0] = base
    with np.errstate(invalid="ignore", over="ignore"):  # values that are not finite are refused by name in _measure
        for row, expert in zip(rows[1:], inputs.experts, strict=True):
            np.subtract(_numbers(expert, name, start, stop, row), rows[0], out=row)
    return rows


def _empty_rows(inputs: MergeInputs, name: str, size: int) -> FloatArray:
    return np.empty((len(inputs.experts) + 1, size), dtype=working_dtype(inputs.base.tensors[name].dtype))


def _numbers(source: Source, name: str, start: int, stop: int, row: FloatArray) -> FloatArray:
    """Working numbers [n]; they lie in ``row`` if storage and working dtype agree and the source copies."""
    dtype = source.tensors[name].dtype
    return to_working(source.read(name, start, stop, row if row.dtype == STORAGE[dtype] else None), dtype)


def _read_whole(inputs: MergeInputs, name: str) -> tuple[FloatArray, TensorStatistics]:
    size = inputs.base.tensors[name].size
    whole, rows = _empty_rows(inputs, name, size), _empty_rows(inputs, name, min(size, BLOCK))
    statistics = _empty_statistics(inputs)
    for start, stop in _spans(size):
        rows = _read(inputs, name, start, stop, rows)
        statistics = _add(statistics, _measure(inputs, name, rows))
        whole[:, start:stop] = rows
    return whole, statistics


def _as_vectors(
    inputs: MergeInputs, name: str, rows: FloatArray, coefficients: Coefficients, seed: int
) -> TensorVectors:
    return TensorVectors(
        name=name,
        key=inputs.key(name),
        shape=inputs.base.tensors[name].shape,
        base=rows[0],
        vectors=rows[1:],
        coefficients=coefficients,
        labels=inputs.labels,
        seed=seed,
    )


def _measure(inputs: MergeInputs, name: str, rows: FloatArray) -> TensorStatistics:
    """Inner products of one block; their finiteness proves that every input value is finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        base_square = float(np.dot(rows[0], rows[0]))
        # Two different operands, for of a matrix and its own transpose NumPy makes a rank-k update (syrk), which is
        # up to ten times slower for so few and so long rows.
        gram = (rows[1:] @ rows.T)[:, 1:].astype(np.float64)
    if np.isfinite(base_square) and np.isfinite(gram).all():
        return TensorStatistics(gram=gram, base_square=base_square)
    if not np.isfinite(rows[0]).all():
        raise IncompatibleCheckpoints(f"{inputs.base.place}: tensor {name!r} holds NaN or infinity")
    for row, expert in zip(rows[1:], inputs.experts, strict=True):
        if not np.isfinite(row).all():
            raise IncompatibleCheckpoints(f"{expert.place}: tensor {name!r} holds NaN or infinity")
    exact = rows.astype(np.float64)
    return TensorStatistics(gram=exact[1:] @ exact[1:].T, base_square=float((exact[0] ** 2).sum()))


def _write(
    name: str,
    start: int,
    dtype: str,
    block: TensorVectors,
    change: FloatArray,
    sink: Sink,
    within: slice = slice(None),
) -> None:
    merged = np.add(block.base[within], change, out=change)
    if name.endswith("running_var") and merged.size and not merged.min() >= 0:
        raise ValueError(
            f"tensor {name!r}: the merged variance is {float(merged.min()):.4g}, below 0: these coefficients "
            "extrapolate too far for BatchNorm; lower them, or pass keep_base=['*running_*'] and re-estimate on data"
        )
    try:
        sink.write(name, start, to_storage(merged, dtype))
    except OverflowError as error:
        raise ValueError(
            f"tensor {name!r}: {error}; lower the coefficients or store the base in a wider dtype"
        ) from None


def experts_agree(inputs: MergeInputs, name: str) -> bool:
    """Whether all experts hold the same numbers."""
    first, *others = inputs.experts
    for start, stop in _spans(inputs.base.tensors[name].size):
        block = first.read(name, start, stop)
        if not all(np.array_equal(block, other.read(name, start, stop)) for other in others):
            return False
    return True


def _spans(size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, size, BLOCK):
        yield start, min(start + BLOCK, size)


def _empty_statistics(inputs: MergeInputs) -> TensorStatistics:
    count = len(inputs.labels)
    return TensorStatistics(gram=np.zeros((count, count)), base_square=0.0)


def _add(first: TensorStatistics, second: TensorStatistics) -> TensorStatistics:
    return TensorStatistics(gram=first.gram + second.gram, base_square=first.base_square + second.base_square)

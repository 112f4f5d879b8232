"""One pass over all tensors: read a block, subtract the base, collect the Gram matrix, merge, write.

    for each tensor, for each block of 2¹⁶ elements:
        τ_t = x_t − x₀        G += τ τᵀ        x_avg = x₀ + Π(τ)

Elementwise operators never hold more than one block of each input and four of the output; the others hold N + 2
tensors (τ, base, result).
Workers are threads, each on its own tensor; a tensor's result depends on nothing but its own inputs and
(seed, tensor name, expert label), so any number of workers writes the same bytes.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import numpy as np

from advisor.merging.block_rows import RunningStatistics, empty_rows, row_readers
from advisor.merging.compatibility import MergeInputs
from advisor.merging.grams import TensorStatistics
from advisor.merging.number_formats import STORAGE, FloatArray, RawArray, to_storage
from advisor.merging.operator import Coefficients, Operator, TensorVectors

BLOCK = 1 << 16  # elements: 256 KB of fp32; larger ones leave the cache, smaller ones cost more calls
_BLOCKS_A_WRITE = 4  # one write of 1 MB costs a file system half of what eight smaller ones cost

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
        # Inputs that are not finite are refused by RunningStatistics, results by to_storage; warnings add nothing.
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
    """All parameters block by block, tied tensors once: what a survey reads. A block is good until the next is read."""
    for name in inputs.names("parameter"):
        if inputs.key(name) == name:
            for reader, starts in row_readers(inputs, name, BLOCK):
                block = _as_vectors(inputs, name, reader.rows, coefficients(name), seed)
                for start in starts:
                    with np.errstate(over="ignore", invalid="ignore"):  # as in run_pass
                        reader.read(start)
                    yield block


def measure_tensor(inputs: MergeInputs, name: str) -> TensorStatistics:
    """Gram matrix and base norm of one parameter, without merging."""
    statistics = RunningStatistics(inputs, name)
    with np.errstate(over="ignore", invalid="ignore"):  # as in run_pass
        for reader, starts in row_readers(inputs, name, BLOCK):
            for start in starts:
                reader.read(start)
                statistics.add(reader.rows)
    return statistics.total()


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
    by_block = operator.elementwise or role == "statistic" or inputs.base.tensors[name].size <= BLOCK
    merge = _merge_blocks if by_block else _merge_whole
    statistics = merge(inputs, name, operator, coefficients, sink, seed)
    return statistics if role == "parameter" else None


def _merge_blocks(
    inputs: MergeInputs, name: str, operator: Operator, coefficients: Coefficients, sink: Sink, seed: int
) -> TensorStatistics:
    info, run = inputs.base.tensors[name], _BLOCKS_A_WRITE * BLOCK
    statistics = RunningStatistics(inputs, name)
    merged = np.empty(min(info.size, run), dtype=STORAGE[info.dtype])
    for reader, starts in row_readers(inputs, name, BLOCK):
        rows = reader.rows
        block = _as_vectors(inputs, name, rows, coefficients, seed)
        for start in starts:
            reader.read(start)
            statistics.add(rows)
            begin, stop = start // run * run, start + rows.shape[1]
            change = _change(operator, inputs.roles[name], block)
            part = merged[start - begin : stop - begin]
            stored = _add_change(name, info.dtype, rows[0], change, part if part.dtype == change.dtype else change)
            if stored is not part:
                part[:] = stored
            if stop in (begin + run, info.size):
                sink.write(name, begin, merged[: stop - begin])
    return statistics.total()


def _merge_whole(
    inputs: MergeInputs, name: str, operator: Operator, coefficients: Coefficients, sink: Sink, seed: int
) -> TensorStatistics:
    info = inputs.base.tensors[name]
    rows, statistics = _read_whole(inputs, name)
    change = operator.merge(_as_vectors(inputs, name, rows, coefficients, seed))
    for start, stop in _spans(info.size):
        part = change[start:stop]
        sink.write(name, start, _add_change(name, info.dtype, rows[0, start:stop], part, part))
    return statistics


def _read_whole(inputs: MergeInputs, name: str) -> tuple[FloatArray, TensorStatistics]:
    rows, statistics = empty_rows(inputs, name, inputs.base.tensors[name].size), RunningStatistics(inputs, name)
    for reader, starts in row_readers(inputs, name, BLOCK):
        for start in starts:
            reader.read(start)  # in the cache first: reading into fresh memory costs a seventh of all of TIES
            statistics.add(reader.rows)
            rows[:, start : start + reader.rows.shape[1]] = reader.rows
    return rows, statistics.total()


def _change(operator: Operator, role: str, block: TensorVectors) -> FloatArray:
    if role == "statistic":
        return block.weighted_sum() if operator.rest == "sum" else block.weighted_mean()
    return operator.merge(block)


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


def _add_change(name: str, dtype: str, base: FloatArray, change: FloatArray, out: FloatArray) -> RawArray:
    """x₀ + Π(τ) in storage dtype: ``out`` [n] itself if that is its dtype."""
    merged = np.add(base, change, out=out)
    if name.endswith("running_var") and merged.size and not merged.min() >= 0:
        raise ValueError(
            f"tensor {name!r}: the merged variance is {float(merged.min()):.4g}, below 0: these coefficients "
            "extrapolate too far for BatchNorm; lower them, or pass keep_base=['*running_*'] and re-estimate on data"
        )
    try:
        return to_storage(merged, dtype)
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

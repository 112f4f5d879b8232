r"""The test samples that a prediction will be compared with, as far as their number and sharing decide its interval.

A figure measured on m samples has a relative sampling error s/sqrt(m), s the relative spread of single losses.  Tasks
whose test sets hold the same samples are easy or hard together: their errors count as correlated by the share of
samples that they have in common,

    o_ij = |S_i and S_j| / sqrt(|S_i| |S_j|),     Var(sum_i w_i r_i) = sum_ij w_i w_j e_i e_j o_ij

Only names are read, from ``splits.json``; the samples stay closed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.run_manifest import DamagedArtefact
from advisor.runs import RunDirectory
from estimators.splits import SPLITS_FILE, read_records
from estimators.stored_tasks import sample_sides

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredOn:
    """Test samples of every task.

    Attributes:
        sizes: task -> number of test samples m, at least 1.
        shared: task -> task -> o_ij in [0, 1]; pairs that are not named share nothing.
    """

    sizes: Mapping[str, int]
    shared: Mapping[str, Mapping[str, float]]

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not all(size >= 1 for size in self.sizes.values()):
            raise ValueError(
                f"sizes={dict(self.sizes)} must be at least 1 for each task; leave out tasks without tests"
            )
        if not all(0 <= share <= 1 for row in self.shared.values() for share in row.values()):
            raise ValueError(
                f"shared={dict(self.shared)} must lie in [0, 1]; divide by the geometric mean of the sizes"
            )

    @classmethod
    def of_run(cls, run: RunDirectory) -> MeasuredOn | None:
        """The test samples of a run's tasks; ``None`` where they are not split yet.

        Raises:
            DamagedArtefact: if the splits of the run cannot be what this program wrote.
        """
        if not (run.path / SPLITS_FILE).exists():
            return None
        try:
            return cls.of_names(
                {
                    name: [sample for sample, side in sample_sides(record).items() if side == "test"]
                    for name, record in read_records(run.path).items()
                }
            )
        except (KeyError, AttributeError, TypeError) as error:
            raise DamagedArtefact(
                f"{SPLITS_FILE} of run {run.id!r} holds something else than this program writes "
                f"({type(error).__name__}: {error}); run `merge-advisor probe` on this run again: it is made again and "
                "must come out the same"
            ) from None

    @classmethod
    def of_names(cls, names: Mapping[str, Sequence[str]]) -> MeasuredOn:
        """From the names of every task's test samples; equal names are one sample."""
        sets = {task: frozenset(samples) for task, samples in names.items()}
        return cls(
            sizes={task: len(samples) for task, samples in sets.items()},
            shared={
                one: {
                    two: len(sets[one] & sets[two]) / (len(sets[one]) * len(sets[two])) ** 0.5
                    for two in sets
                    if two != one and sets[one] & sets[two]
                }
                for one in sets
            },
        )

    def size_array(self, names: Sequence[str]) -> FloatArray:
        """Number of samples m of each task [N]; infinite where it is not known."""
        return np.array([self.sizes.get(name, np.inf) for name in names], dtype=np.float64)

    def overlap(self, names: Sequence[str]) -> FloatArray:
        """o_ij [N, N], 1 on the diagonal."""
        cells = [[1.0 if i == j else self.shared.get(i, {}).get(j, 0.0) for j in names] for i in names]
        return np.array(cells, dtype=np.float64)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"sizes": dict(self.sizes), "shared": {name: dict(row) for name, row in self.shared.items()}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MeasuredOn:
        """The inverse of :meth:`to_json`."""
        return cls(sizes=dict(data["sizes"]), shared={name: dict(row) for name, row in data["shared"].items()})

r"""The Optuna study of a tuning: every measured merge is a trial, stored as soon as it is known.

Trials carry coefficients, goal and what had been predicted (as the trial's interval), in a journal file that
optuna-dashboard reads.  x_0 and other merges outside the simplex are left out where coefficients must lie on it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from advisor.coefficients_search import is_allowed
from studies.coefficient_space import CoefficientSpace
from studies.storage import Record, StudyStorage, open_study
from studies.trials import TrialLog

FloatArray = NDArray[np.float64]


class MeasuredStudy:
    """A log of measured merges.

    Args:
        path: the journal file; ``None`` keeps nothing.
        space: box or simplex.
        fingerprint: identity of experts and data.
        name: name of the study.
    """

    def __init__(self, path: Path | None, space: CoefficientSpace, *, fingerprint: str, name: str) -> None:
        self.space = space
        self.log: TrialLog | None = None
        if path is not None:
            settings = {"coefficients": [sorted(space.names), space.low, space.high, space.total]}
            opened = open_study(StudyStorage(path=path, fingerprint=fingerprint, name=name), settings=settings)
            self.log = TrialLog(knobs=space.knobs, opened=opened)
        self.notes: tuple[str, ...] = () if self.log is None else tuple(self.log.notes)
        self.asked = 0

    def add(self, row: FloatArray, goal: float, predicted: float = np.nan) -> None:
        """Store one measured merge."""
        self.asked += 1
        if self.log is None or not is_allowed(self.space, row):
            return
        unit = self.space.encode(np.clip(row, 0, None) if self.space.total else row)
        ends = sorted((goal, predicted if np.isfinite(predicted) else goal))
        self.log.add(
            Record(
                key=f"merge-{self.asked:06d}",
                kind="sampler" if np.isfinite(predicted) else "sweep",
                unit=tuple(unit.tolist()),
                goal=goal,
                low=ends[0],
                high=ends[1],
                violation=-1.0 if np.isfinite(goal) else 1.0,
            )
        )

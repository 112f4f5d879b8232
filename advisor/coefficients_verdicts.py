r"""What measured merges say about the experts: who disturbs whom, who may stay out, whether to merge at all.

disturbance_ji = r_j(merge) - r_j(merge without expert i)         measured; one more merge for each expert
leave out i    if goal(without i) - goal(merge) is below one standard error of that difference
merge          if goal(merge) + 1.645 errors < goal of every single model: x_0 and each expert alone
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.advice import Predicted
from advisor.coefficients_evidence import Criterion
from advisor.coefficients_result import TaskOutcome

FloatArray = NDArray[np.float64]
NORMAL_90 = 1.645
NEGLIGIBLE = 1e-3  # coefficients below this count as 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeasuredModels:
    """Logits [S] of everything the verdicts compare.

    Attributes:
        criterion: the goal.
        initial: of x_0.
        experts: expert -> its own logits.
        merged: of the chosen merge.
        without: expert -> of the merge without it; an expert that has no part in the merge is not there.
    """

    criterion: Criterion
    initial: FloatArray
    experts: Mapping[str, FloatArray]
    merged: FloatArray
    without: Mapping[str, FloatArray]

    def disturbance(self) -> FloatArray:
        """Entry (j, i): what task j's risk loses when expert i is left out."""
        merged = self.criterion.risks(self.merged)
        rows = np.zeros((len(merged), len(self.experts)))
        for i, name in enumerate(self.experts):
            if name in self.without:
                other = self.criterion.risks(self.without[name])
                rows[:, i] = [merged[task] - other[task] for task in merged]
        return rows

    def leave_out(self) -> tuple[str, ...]:
        """Experts without whom the goal is measurably no worse."""
        return tuple(name for name in self.experts if not self._is_missed(name))

    def _is_missed(self, name: str) -> bool:
        if name not in self.without:
            return False
        change = self.criterion.value(self.without[name]) - self.criterion.value(self.merged)
        return change > self.criterion.error(self.without[name], self.merged)

    def best_single(self) -> tuple[str, FloatArray]:
        """The single model of the lowest goal: ``x_0`` or an expert."""
        models = {"x_0": self.initial, **self.experts}
        whole = {name: z for name, z in models.items() if np.isfinite(z).all()}
        name = min(whole, key=lambda name: self.criterion.value(whole[name]))
        return name, whole[name]

    def is_worth_merging(self) -> bool:
        """Whether the merge is surely better than every single model."""
        _, single = self.best_single()
        gain = self.criterion.value(single) - self.criterion.value(self.merged)
        return gain > NORMAL_90 * self.criterion.error(single, self.merged)

    def outcomes(self, optimism: Mapping[str, float]) -> dict[str, TaskOutcome]:
        """Risks of every task; predictions add the choice's optimism, intervals the sampling error."""
        initial, merged = self.criterion.risks(self.initial), self.criterion.risks(self.merged)
        alone = {name: self._risks(z) for name, z in self.experts.items()}
        logits = self.criterion.split(self.merged)
        found = {}
        for task, risk in merged.items():
            losses = self.criterion.evidence[task].losses(logits[task])
            error = float(losses.std(ddof=1)) / len(losses) ** 0.5 if len(losses) > 1 else 0.0
            value = risk + optimism[task]
            found[task] = TaskOutcome(
                initial=initial[task],
                expert=alone[task][task],
                measured=risk,
                predicted=Predicted(
                    value=value,
                    low=max(min(risk, value) - NORMAL_90 * error, 0.0) if risk >= 0 else value,
                    high=value + NORMAL_90 * error,
                ),
                best_single=min(alone, key=lambda name: alone[name][task]),
            )
        return found

    def _risks(self, values: FloatArray) -> dict[str, float]:
        if not np.isfinite(values).all():
            return dict.fromkeys(self.criterion.evidence, np.inf)
        return self.criterion.risks(values)


def describe(models: MeasuredModels, tasks: Mapping[str, TaskOutcome], what: str) -> tuple[str, ...]:
    """The verdicts in sentences; ``what`` names the risk."""
    name, single = models.best_single()
    merged, other = models.criterion.value(models.merged), models.criterion.value(single)
    word = "worth merging" if models.is_worth_merging() else "not worth merging on this evidence"
    error = models.criterion.error(single, models.merged)
    said = [
        f"{word[0].upper()}{word[1:]}: goal {merged:.4f} ({what}), the best single model for all tasks ({name}) has "
        f"{other:.4f}, standard error of the difference {error:.4f}."
    ]
    worse = [task for task, cell in tasks.items() if cell.measured > cell.expert]
    against = [task for task, cell in tasks.items() if cell.measured > cell.initial]
    said.append(
        f"The merge is worse than the task's own expert on {len(worse)} of {len(tasks)} tasks{_listed(worse)} and "
        f"worse than x_0 on {len(against)}{_listed(against)}."
    )
    said += _disturbing(models, list(tasks))
    out = models.leave_out()
    if out:
        said.append(f"Nothing measurable is lost by leaving out any one of: {', '.join(out)}.")
    return tuple(said)


def _disturbing(models: MeasuredModels, tasks: Sequence[str]) -> list[str]:
    """The strongest harm that one expert does to another's task."""
    matrix = models.disturbance().copy()
    for j, task in enumerate(tasks):
        for i, name in enumerate(models.experts):
            if task == name:
                matrix[j, i] = -np.inf
    if not matrix.size or not matrix.max() > 0:
        return []
    j, i = divmod(int(matrix.argmax()), matrix.shape[1])
    return [f"The strongest harm: {list(models.experts)[i]} costs task {tasks[j]} {matrix[j, i]:.4f} nats."]


def _listed(names: Sequence[str]) -> str:
    return f" ({', '.join(names)})" if names else ""

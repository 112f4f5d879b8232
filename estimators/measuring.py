r"""The default set of constants of all tasks, within a budget of units.

One draw of gradients of a task serves sigma^2, the noise scale, ||grad F_i||, the Gram matrix, zeta^2 and the noise and
drift directions; what an estimator cannot deliver is noted in ``TaskConstants.failures`` and the rest is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from estimators.constants import Constants, Estimate, TaskConstants
from estimators.cost import CostMeter, full_fine_tune_units
from estimators.gradient_rows import GradientMeasurement
from estimators.gradient_variance import GradientVariance
from estimators.heterogeneity import Heterogeneity
from estimators.initial_gradient import InitialGradientNorm, InitialRisk, ProgressRate
from estimators.objectives import ClassificationObjective
from estimators.outcomes import LossNotFinite, MeasurementFailed
from estimators.sample_budget import SampleBudget
from estimators.sampling import stable_seed
from estimators.smoothness import TopCurvature
from estimators.tasks import Task

DEFAULT_SHARE = 0.1  # of one full fine-tune of all tasks
DEFAULT_MAX_STEPS = 640


class TasksNotMeasurable(MeasurementFailed):
    """Some tasks have no finite loss at x_0.

    Attributes:
        reasons: task name -> why.
        partial: the constants of the other tasks; ``None`` if there are none.
    """

    def __init__(self, reasons: dict[str, str], partial: Constants | None) -> None:
        self.reasons, self.partial = reasons, partial
        kept = [] if partial is None else list(partial.names)
        super().__init__(
            f"tasks {list(reasons)} cannot be measured at x_0: {next(iter(reasons.values()))}; "
            f"the results of {kept} are kept in .partial; repair or leave out the others"
        )


def measure_constants(
    objectives: Mapping[str, ClassificationObjective],
    tasks: Mapping[str, Task],
    *,
    task_weights: Mapping[str, float] | None = None,
    seed: int = 0,
    meter: CostMeter | None = None,
    max_units: float | None = None,
    weights: Tensor | None = None,
    memory_budget: float | None = None,
) -> Constants:
    """Measure the default constants of all tasks at x_0.

    Args:
        objectives: task name -> loss, on one backbone.
        tasks: task name -> data, in the same order.
        task_weights: goal weights p_i; ``None`` for equal ones.
        seed: decides draws and start vectors.
        meter: books the units, split by purpose.
        max_units: budget for all tasks together; ``None`` for a tenth of a full fine-tune of 640 steps.
        weights: measure at other weights [P] than x_0.
        memory_budget: bytes for per-sample gradients; ``None`` for half of what a training step takes.

    Raises:
        TasksNotMeasurable: if a task's loss is not finite; it carries the others' constants.
    """
    names = list(objectives)
    if names != list(tasks):
        raise ValueError(f"objectives {names} and tasks {list(tasks)} must name the same tasks in one order")
    units = DEFAULT_SHARE * full_fine_tune_units(len(names), DEFAULT_MAX_STEPS) if max_units is None else max_units
    own_meter = CostMeter()
    run = _Measuring(
        objectives=dict(objectives),
        tasks=dict(tasks),
        budget=SampleBudget.plan(units / len(names)),
        seed=seed,
        meter=own_meter,
        weights=weights,
        memory_budget=memory_budget,
    )
    constants, reasons = run.everything(task_weights)
    if meter is not None:
        for purpose, spent in own_meter.by_purpose().items():
            meter.add_units(purpose, spent)
    if reasons:
        raise TasksNotMeasurable(reasons, constants)
    if constants is None:
        raise ValueError("objectives={} must name at least one task; build the objectives first")
    return constants


class _Measuring:
    """One pass over the estimators; each failure stays with its task and field."""

    def __init__(
        self,
        *,
        objectives: dict[str, ClassificationObjective],
        tasks: dict[str, Task],
        budget: SampleBudget,
        seed: int,
        meter: CostMeter,
        weights: Tensor | None,
        memory_budget: float | None,
    ) -> None:
        self.objectives, self.tasks, self.budget, self.seed, self.meter = objectives, tasks, budget, seed, meter
        self.weights, self.memory_budget = weights, memory_budget
        self.fields: dict[str, dict[str, Any]] = {name: {} for name in objectives}
        self.failures: dict[str, dict[str, str]] = {name: {} for name in objectives}
        self.gradients: dict[str, GradientMeasurement] = {}

    def everything(self, task_weights: Mapping[str, float] | None) -> tuple[Constants | None, dict[str, str]]:
        """All estimators; constants of the measurable tasks, and why others are not measurable."""
        reasons: dict[str, str] = {}
        for name in list(self.objectives):
            try:
                self.initial_risk(name)
            except LossNotFinite as error:
                reasons[name] = str(error)
                del self.objectives[name]
        for name in self.objectives:
            self.attempt(name, "gradient_variance", self.gradient_statistics)
            self.attempt(name, "heldout_gradient_variance", self.heldout_variance)
            self.attempt(name, "top_curvature", self.top_curvature)
        if not self.objectives:
            return None, reasons
        shares = None if task_weights is None or reasons else task_weights
        gram = self.shared_gradients(shares)
        return self.constants(gram), reasons

    def attempt(self, name: str, field: str, measure: Callable[[str], None]) -> None:
        """Run one estimator for one task; a named outcome is noted under ``field``."""
        try:
            measure(name)
        except MeasurementFailed as error:
            self.failures[name][field] = str(error)

    def draw(self, name: str, purpose: str) -> int:
        """The seed of one draw."""
        return stable_seed("constants", self.seed, name, purpose)

    def initial_risk(self, name: str) -> None:
        """r_0, accuracy and gap on validation samples."""
        with self.meter.purpose("initial risk"):
            risk = InitialRisk(num_samples=self.budget.risk_samples, random_state=self.draw(name, "risk")).fit(
                self.objectives[name], self.tasks[name].validation, self.weights, meter=self.meter
            )
        self.fields[name] |= {
            "initial_risk": risk.estimate_,
            "initial_accuracy": risk.accuracy_,
            "initial_gap": risk.gap_,
        }

    def gradient_statistics(self, name: str) -> None:
        """sigma^2, noise scale and gradient norm from one draw of training gradients."""
        with self.meter.purpose("gradients"):
            variance = GradientVariance(
                num_samples=self.budget.gradients,
                num_single=self.budget.single_gradients,
                memory_budget=self.memory_budget,
                random_state=self.draw(name, "gradients"),
            ).fit(self.objectives[name], self.tasks[name].train, self.weights, meter=self.meter)
        self.gradients[name] = variance.gradients_
        self.fields[name] |= {
            "gradient_variance": variance.estimate_,
            "noise_scale": variance.noise_scale_,
            "initial_gradient_norm": InitialGradientNorm().fit(variance.gradients_.best).estimate_,
        }

    def heldout_variance(self, name: str) -> None:
        """sigma^2 on held-out samples."""
        with self.meter.purpose("held-out gradients"):
            variance = GradientVariance(
                num_samples=self.budget.heldout_gradients,
                memory_budget=self.memory_budget,
                random_state=self.draw(name, "held-out"),
            ).fit(self.objectives[name], self.tasks[name].validation, self.weights, meter=self.meter)
        self.fields[name]["heldout_gradient_variance"] = variance.estimate_

    def top_curvature(self, name: str) -> None:
        """Largest Hessian eigenvalue."""
        with self.meter.purpose("curvature"):
            found = TopCurvature(
                num_samples=self.budget.curvature_samples,
                max_products=self.budget.curvature_products,
                random_state=self.draw(name, "curvature"),
            ).fit(self.objectives[name], self.tasks[name].train, self.weights, meter=self.meter)
        self.fields[name]["top_curvature"] = found.estimate_

    def shared_gradients(self, task_weights: Mapping[str, float] | None) -> tuple[tuple[Estimate, ...], ...] | None:
        """Gram matrix, heterogeneity and progress rates, which need every task's gradient."""
        missing = [name for name in self.objectives if name not in self.gradients]
        if missing:
            for name in self.objectives:
                self.failures[name]["heterogeneity"] = f"needs the gradients of {missing}, which failed; repair them"
            return None
        rows = {name: self.gradients[name].best for name in self.objectives}
        try:
            spread = Heterogeneity(task_weights=task_weights).fit(rows)
        except MeasurementFailed as error:
            for name in self.objectives:
                self.failures[name]["heterogeneity"] = str(error)
            return None
        gaps = {name: self.fields[name]["initial_gap"] for name in self.objectives}
        rates = ProgressRate(shares=task_weights).fit(rows, gaps)
        for name in self.objectives:
            self.fields[name]["heterogeneity"] = spread.estimates_[name]
            self.fields[name]["progress_rate"] = rates.estimates_[name]
        return spread.gram_

    def constants(self, gram: tuple[tuple[Estimate, ...], ...] | None) -> Constants:
        """What was measured, as a value."""
        names = list(self.objectives)
        return Constants(
            tasks={name: TaskConstants(**self.fields[name], failures=self.failures[name]) for name in names},
            num_samples={name: len(self.tasks[name].train) for name in names},
            num_classes={name: self.tasks[name].num_classes for name in names},
            num_parameters=self.objectives[names[0]].num_shared,
            gradient_gram=gram,
            cost=self.meter.units,
        )

r"""The default set of constants of all tasks, within a budget of units.

One draw of gradients of a task serves sigma^2, the noise scale, ||grad F_i||, the Gram matrix, zeta^2 and the noise and
drift directions; what an estimator cannot deliver is noted in ``TaskConstants.failures`` and the rest is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from estimators.choosing_curvature import fit_top_curvature
from estimators.constants import Constants, Estimate, Matrix, TaskConstants
from estimators.cost import CostMeter, full_fine_tune_units
from estimators.critical_sharpness import CriticalSharpness
from estimators.directional_curvature import DriftCurvature, NoiseCurvature, RelativeSharpness
from estimators.gradient_variance import GradientVariance, samples_can_be_chosen
from estimators.heterogeneity import Heterogeneity
from estimators.initial_gradient import InitialGradientNorm, InitialRisk, ProgressRate
from estimators.measured_pieces import Findings, MeasuredPieces, measuring_basis
from estimators.objectives import ClassificationObjective
from estimators.outcomes import LossNotFinite, MeasurementFailed, TasksNotMeasurable
from estimators.sample_budget import SampleBudget
from estimators.sample_design import SampleKnowledge
from estimators.sampling import stable_seed
from estimators.snapshot_folder import NotKept, Snapshots
from estimators.tasks import Split, Task

DEFAULT_SHARE = 0.1  # of one full fine-tune of all tasks
DEFAULT_MAX_STEPS = 640


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
    kept: Snapshots | None = None,
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
        kept: where each estimator's result is kept on the way; what is there is not measured again.

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
        budget=SampleBudget.plan(
            units / len(names),
            num_tasks=len(names),
            known=all(
                samples_can_be_chosen(objectives[name], task.train, SampleKnowledge.of_task(task), weights)
                for name, task in tasks.items()
            ),
        ),
        seed=seed,
        meter=own_meter,
        weights=weights,
        memory_budget=memory_budget,
        kept=NotKept() if kept is None else kept,
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
        kept: Snapshots,
    ) -> None:
        self.objectives, self.tasks, self.budget, self.seed, self.meter = objectives, tasks, budget, seed, meter
        self.weights, self.memory_budget = weights, memory_budget
        self.knowledge = {name: SampleKnowledge.of_task(task) for name, task in tasks.items()}
        self.found = Findings(fields={name: {} for name in objectives}, failures={name: {} for name in objectives})
        basis = measuring_basis(objectives, tasks, weights, budget, seed, memory_budget)
        self.pieces = MeasuredPieces(kept, meter, basis)

    def everything(self, task_weights: Mapping[str, float] | None) -> tuple[Constants | None, dict[str, str]]:
        """All estimators; constants of the measurable tasks, and why others are not measurable."""
        reasons: dict[str, str] = {}
        for name in list(self.objectives):
            try:
                self.piece(f"initial risk of {name}", lambda name=name: self.initial_risk(name))  # type: ignore[misc]
            except LossNotFinite as error:
                reasons[name] = str(error)
                del self.objectives[name]
        for name in self.objectives:
            self.attempt(name, "gradient_variance", self.gradient_statistics)
            self.attempt(name, "heldout_gradient_variance", self.heldout_variance)
            self.attempt(name, "top_curvature", self.top_curvature)
            if self.budget.search_samples:
                self.attempt(name, "critical_sharpness", self.critical_sharpness)
            if self.budget.drift_samples and "noise_curvature" in self.found.fields[name]:
                self.attempt(name, "drift_curvature", self.drift_curvature)
        if not self.objectives:
            return None, reasons
        shares = task_weights
        if task_weights is not None and reasons:  # the goal of the tasks that are left
            total = sum(task_weights[name] for name in self.objectives)
            shares = {name: task_weights[name] / total for name in self.objectives} if total > 0 else None
        gram = self.shared_gradients(shares)
        self.piece(f"goal curvature for {shares}", lambda: self.goal_curvature(shares))
        self.piece("relative sharpness", self.relative_sharpness)
        return self.constants(gram), reasons

    def attempt(self, name: str, field: str, measure: Callable[[str], None]) -> None:
        """Run one estimator for one task, once; a named outcome is noted under ``field``."""

        def tried() -> None:
            try:
                measure(name)
            except MeasurementFailed as error:
                self.found.failures[name][field] = str(error)

        self.piece(f"{field} of {name}", tried)

    def piece(self, what: str, measure: Callable[[], None]) -> None:
        """Let ``measure`` add to what is found, or take what it added before it was cut off."""
        before = self.found.copy()

        def added(own: CostMeter) -> Findings:
            outer, self.meter = self.meter, own
            try:
                measure()
            finally:
                self.meter = outer
            return self.found.since(before)

        device = next(iter(self.objectives.values())).initial.device
        found = self.pieces.once(what, device, added)
        self.found = before
        self.found.take(found)

    def train_splits(self) -> dict[str, Split]:
        """Training samples of the measurable tasks."""
        return {name: self.tasks[name].train for name in self.objectives}

    def draw(self, name: str, purpose: str) -> int:
        """The seed of one draw."""
        return stable_seed("constants", self.seed, name, purpose)

    def initial_risk(self, name: str) -> None:
        """r_0, accuracy and gap on validation samples, with the head's cross-validated losses."""
        with self.meter.purpose("initial risk"):
            risk = InitialRisk(num_samples=self.budget.risk_samples, random_state=self.draw(name, "risk")).fit(
                self.objectives[name],
                self.tasks[name].validation,
                self.weights,
                meter=self.meter,
                further=self.tasks[name].held_out_losses if self.weights is None else None,
            )
        self.found.fields[name] |= {
            "initial_risk": risk.estimate_,
            "initial_accuracy": risk.accuracy_,
            "initial_gap": risk.gap_,
        }

    def gradient_statistics(self, name: str) -> None:
        """sigma^2, noise scale and gradient norm from one draw of training gradients."""
        noise = NoiseCurvature(
            num_directions=self.budget.noise_directions,
            num_samples=self.budget.noise_samples,
            num_exact=self.budget.noise_exact,
            random_state=self.draw(name, "noise"),
        ).start(
            self.objectives[name],
            self.tasks[name].train,
            self.weights,
            meter=self.meter,
            knowledge=self.knowledge[name],
        )
        with self.meter.purpose("gradients"):
            variance = GradientVariance(
                num_samples=self.budget.gradients,
                num_single=self.budget.single_gradients,
                memory_budget=self.memory_budget,
                random_state=self.draw(name, "gradients"),
            ).fit(
                self.objectives[name],
                self.tasks[name].train,
                self.weights,
                meter=self.meter,
                on_batch=self._booked(noise.observe) if self.budget.noise_directions else None,
                knowledge=self.knowledge[name],
            )
        self.found.rows[name] = variance.gradients_.best
        self.found.fields[name] |= {
            "gradient_variance": variance.estimate_,
            "noise_scale": variance.noise_scale_,
            "initial_gradient_norm": InitialGradientNorm().fit(self.found.rows[name]).estimate_,
        }
        if self.budget.noise_directions:
            try:
                self.keep(name, noise_curvature=noise.finish().estimate_)
            except MeasurementFailed as error:
                self.found.failures[name]["noise_curvature"] = str(error)

    def keep(self, name: str, **estimates: Estimate) -> None:
        """Store fields of one task."""
        self.found.fields[name] |= estimates

    def _booked(self, observe: Callable[[Tensor], None]) -> Callable[[Tensor], None]:
        def booked(noise: Tensor) -> None:
            with self.meter.purpose("noise and drift curvature"):
                observe(noise)

        return booked

    def heldout_variance(self, name: str) -> None:
        """sigma^2 on held-out samples."""
        with self.meter.purpose("held-out gradients"):
            variance = GradientVariance(
                num_samples=self.budget.heldout_gradients,
                memory_budget=self.memory_budget,
                random_state=self.draw(name, "held-out"),
            ).fit(self.objectives[name], self.tasks[name].validation, self.weights, meter=self.meter)
        self.found.fields[name]["heldout_gradient_variance"] = variance.estimate_

    def top_curvature(self, name: str) -> None:
        """Largest eigenvalue of the Hessian and the Gauss-Newton matrix, and the sharpest sample met."""
        with self.meter.purpose("top curvature"):
            found = fit_top_curvature(
                {name: self.objectives[name]},
                self.train_splits(),
                self.found.rows,
                self.knowledge,
                self.weights,
                budget=self.budget,
                random_state=self.draw(name, "curvature"),
                meter=self.meter,
            )
        self.keep(name, top_curvature=found.estimate_, sample_smoothness=found.sample_smoothness_)
        if found.gauss_newton_ is not None:
            self.keep(name, gauss_newton_curvature=found.gauss_newton_)

    def critical_sharpness(self, name: str) -> None:
        """2/eta_c along the first SGD step of a small batch."""
        top = self.found.fields[name].get("top_curvature")
        with self.meter.purpose("critical sharpness"):
            found = CriticalSharpness(
                num_samples=self.budget.search_samples,
                first_step=1 / top.value if top is not None and top.value > 0 else 0.01,
                random_state=self.draw(name, "search"),
            ).fit(self.objectives[name], self.tasks[name].train, None, self.weights, meter=self.meter)
        self.keep(name, critical_sharpness=found.estimate_)

    def drift_curvature(self, name: str) -> None:
        """Curvature along the mean gradient."""
        rows = self.found.rows[name]
        with self.meter.purpose("noise and drift curvature"):
            found = DriftCurvature(
                num_samples=self.budget.drift_samples,
                num_exact=self.budget.drift_exact,
                random_state=self.draw(name, "drift"),
            ).fit(
                self.objectives[name],
                self.tasks[name].train,
                rows,
                InitialGradientNorm().fit(rows).squared_,
                self.found.fields[name]["noise_curvature"],
                self.weights,
                meter=self.meter,
                knowledge=self.knowledge[name],
            )
        self.keep(name, drift_curvature=found.estimate_)

    def goal_curvature(self, task_weights: Mapping[str, float] | None) -> None:
        """Largest Hessian eigenvalue of the goal's risk; there is none if it failed or there is but one task."""
        if not self.budget.goal_fresh_samples:
            return
        try:
            with self.meter.purpose("top curvature"):
                self.found.goal = fit_top_curvature(
                    self.objectives,
                    self.train_splits(),
                    self.found.rows,
                    self.knowledge,
                    self.weights,
                    budget=self.budget,
                    random_state=self.draw("goal", "curvature"),
                    goal=task_weights,
                    meter=self.meter,
                ).estimate_
        except MeasurementFailed as error:
            for name in self.objectives:
                self.found.failures[name]["goal_top_curvature"] = str(error)

    def relative_sharpness(self) -> None:
        """Every task's curvature along every other's mean gradient (an SGD update up to its length)."""
        vectors = {name: self.found.rows[name].mean for name in self.objectives if name in self.found.rows}
        still = [name for name in self.objectives if name not in vectors or not bool(vectors[name].any())]
        if still or not self.budget.relative_samples:
            for name in still:
                self.found.failures[name]["relative_sharpness"] = (
                    "the task has no gradient at x_0, so no update to look along"
                )
            return
        try:
            with self.meter.purpose("relative sharpness"):
                self.found.relative = (
                    RelativeSharpness(
                        num_samples=self.budget.relative_samples,
                        num_exact=self.budget.relative_exact,
                        random_state=self.seed,
                    )
                    .fit(
                        self.objectives,
                        self.train_splits(),
                        vectors,
                        self.weights,
                        meter=self.meter,
                        knowledge=self.knowledge,
                    )
                    .matrix_
                )
        except MeasurementFailed as error:
            for name in self.objectives:
                self.found.failures[name]["relative_sharpness"] = str(error)

    def shared_gradients(self, task_weights: Mapping[str, float] | None) -> Matrix | None:
        """Gram matrix, heterogeneity and progress rates, which need every task's gradient."""
        missing = [name for name in self.objectives if name not in self.found.rows]
        if missing:
            for name in self.objectives:
                self.found.failures[name]["heterogeneity"] = (
                    f"needs the gradients of {missing}, which failed; repair them"
                )
            return None
        rows = {name: self.found.rows[name] for name in self.objectives}
        try:
            spread = Heterogeneity(task_weights=task_weights).fit(rows)
        except MeasurementFailed as error:
            for name in self.objectives:
                self.found.failures[name]["heterogeneity"] = str(error)
            return None
        gaps = {name: self.found.fields[name]["initial_gap"] for name in self.objectives}
        rates = ProgressRate(shares=task_weights).fit(rows, gaps)
        for name in self.objectives:
            self.found.fields[name]["heterogeneity"] = spread.estimates_[name]
            self.found.fields[name]["progress_rate"] = rates.estimates_[name]
        return spread.gram_

    def constants(self, gram: Matrix | None) -> Constants:
        """What was measured, as a value."""
        names = list(self.objectives)
        return Constants(
            tasks={
                name: TaskConstants(**self.found.fields[name], failures=self.found.failures[name]) for name in names
            },
            num_samples={name: len(self.tasks[name].train) for name in names},
            num_classes={name: self.tasks[name].num_classes for name in names},
            num_parameters=self.objectives[names[0]].num_shared,
            goal_top_curvature=self.found.goal,
            gradient_gram=gram,
            relative_sharpness=self.found.relative,
            cost=self.meter.units,
        )

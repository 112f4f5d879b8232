r"""One tuning on data, from the design's merges to the verdicts (``advisor.coefficients`` is its door).

design       x_0; the simple average; what the weights suggest; the same with each expert raised (each expert alone
             instead where labels are scarce: there its own logits are the evidence)
evidence     labels, the experts' opinions (their own logits come from the design), or both
search       task-wise, for each operator compared; on with the merges that the verdicts need; then layer groups where
             they were asked for
verdicts     the chosen merge without each expert, intervals, predictions for new samples
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from advisor.coefficients import LAYER_STEPS, LINEAR, METHODS, OPERATOR_MERGES, TOLERANCE, Settings
from advisor.coefficients_design import BEFORE_STEPS, first_merges, operator_merges, response_metric
from advisor.coefficients_evidence import Criterion, TaskEvidence, agreeing, labelled, partly_labelled
from advisor.coefficients_intervals import Uncertainty, sampling_error
from advisor.coefficients_layers import LayerOutcome, descend_layers
from advisor.coefficients_memory import MeasuredMemory, key_of
from advisor.coefficients_problem import TuningProblem
from advisor.coefficients_recombining import layer_groups
from advisor.coefficients_result import Source, TunedCoefficients
from advisor.coefficients_search import MeasuredMerges, SearchOutcome, search_merges
from advisor.coefficients_study import MeasuredStudy
from advisor.coefficients_verdicts import NEGLIGIBLE, MeasuredModels, describe
from advisor.progress import Progress, silent
from studies.coefficient_space import CoefficientSpace

FloatArray = NDArray[np.float64]
RISK_WORDS = {
    "validation": "risk on the validation labels",
    "few labels": "labels where they are known, disagreement with the experts elsewhere",
    "unlabelled": "disagreement with each task's expert, no label seen",
}


@dataclass(slots=True, kw_only=True)
class Tuning:
    """One tuning.

    Attributes:
        problem: experts, heads, samples.
        settings: how to tune.
        study: where the Optuna study is kept.
        progress: told every measured merge.
        memory: what was measured, here or by a tuning that was stopped.
        measured: the questions that this tuning asked of it.
        studies: the log of every operator.
        notes: what was repaired or cut short.
        identity: who the experts and samples are.
    """

    problem: TuningProblem
    settings: Settings
    study: Path | None = None
    progress: Progress = silent
    memory: MeasuredMemory = field(default_factory=MeasuredMemory)
    measured: set[str] = field(default_factory=set)
    studies: dict[str, MeasuredStudy] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    identity: str = field(init=False)

    def __post_init__(self) -> None:
        """Say once who the experts and samples are."""
        self.identity = self.problem.identify()

    @property
    def names(self) -> tuple[str, ...]:
        """The experts."""
        return self.problem.merges.labels

    def run(self) -> TunedCoefficients:
        """Tune and judge."""
        criterion = self.criterion()
        found = self.settle(self.search(LINEAR, criterion, first_merges(self.problem.merges, self.settings)), criterion)
        outcomes = {LINEAR: found}
        wanted = METHODS if self.settings.method == "auto" else (self.settings.method,)
        for method in wanted:
            if method != LINEAR:
                best = found.merges.rows[found.merges.best]
                outcomes[method] = self.search(method, criterion, operator_merges(method, best, self.settings))
        method = self.choose(outcomes, criterion, wanted)
        layers = self.layers(criterion, outcomes[LINEAR]) if self.settings.granularity == "group" else None
        return self.conclude(method, outcomes, criterion, layers)

    def measure(self, method: str, row: FloatArray) -> FloatArray:
        """Logits [S] of a merge; equal questions are answered from memory."""
        operator = method if row.any() else LINEAR
        key = key_of("merge", self.identity, operator, row, self.settings.seed if operator != LINEAR else "")
        self.measured.add(key)
        known = self.memory.find(key)
        if known is None:
            weights = self.problem.merges.by_operator(operator, row, seed=self.settings.seed, options={})
            known = {"logits": self.problem.logits(weights)}
            self.memory.keep(key, known)
        return known["logits"]

    def settle(self, found: SearchOutcome, criterion: Criterion) -> SearchOutcome:
        """Go on with what the verdicts need anyway, each expert alone and the best merge without each of them.

        Where labels are scarce the experts alone began the search, and nothing is done here.
        """
        if self.settings.labels != "all":
            return found
        alone = list(np.eye(len(self.names)))
        without = self.without(found.merges.rows[found.merges.best]).values()
        return self.search(LINEAR, criterion, [*alone, *without], known=found.merges)

    def without(self, row: FloatArray) -> dict[str, FloatArray]:
        """A merge without each expert that has a part in it."""
        inside = [i for i, value in enumerate(row) if value > NEGLIGIBLE and len(row) > 1]
        return {self.names[i]: np.where(np.arange(len(row)) == i, 0.0, row) for i in inside}

    def metric(self) -> FloatArray:
        """Inner products [N, N] that distances between merges are measured with."""
        gram = self.problem.merges.gram()
        if self.settings.labels != "all" or self.settings.simplex:
            return gram
        rows = first_merges(self.problem.merges, self.settings)[BEFORE_STEPS:]
        return response_metric(gram, rows, [self.measure(LINEAR, row) for row in rows])

    def criterion(self) -> Criterion:
        """The goal, from what is known of the samples."""
        labels = self.settings.labels
        evidence: dict[str, TaskEvidence] = {}
        count = len(self.names)
        for name, split in self.problem.samples.items():
            known_labels = split.labels.cpu().numpy()
            classes = self.problem.heads[name].num_classes
            if labels == "all":
                evidence[name] = labelled(known_labels, classes)
                continue
            own = self.measure(LINEAR, np.eye(count)[self.names.index(name)])
            teacher = self._part(own, name)
            if not np.isfinite(teacher).all():
                raise ValueError(f"expert {name!r} has no finite output on its own task; leave it out")
            known = self._known(name, known_labels, classes, labels)
            evidence[name] = partly_labelled(known_labels, known, teacher) if known.any() else agreeing(teacher)
        plain = Criterion(evidence=evidence, goal=self.problem.goal)
        drop = self.problem.goal.max_drop
        if drop is None:
            return plain
        initial = plain.risks(self.measure(LINEAR, np.zeros(count)))
        return dataclasses.replace(plain, limits={name: risk + drop for name, risk in initial.items()})

    def _part(self, values: FloatArray, wanted: str) -> FloatArray:
        start = 0
        for name, split in self.problem.samples.items():
            classes = self.problem.heads[name].num_classes
            if name == wanted:
                return values[start : start + len(split) * classes].reshape(-1, classes)
            start += len(split) * classes
        raise ValueError(f"task {wanted!r} has no samples; give it some")

    def _known(self, name: str, labels: NDArray[np.int64], classes: int, count: int) -> NDArray[np.bool_]:
        """Which labels are looked at: so many of each class, drawn by the seed."""
        digest = hashlib.sha256(f"{self.settings.seed}\0{name}".encode()).digest()
        rng = np.random.default_rng(list(digest))
        known = np.zeros(len(labels), dtype=np.bool_)
        for label in range(classes):
            known[rng.permutation(np.flatnonzero(labels == label))[:count]] = True
        return known

    def search(
        self, method: str, criterion: Criterion, design: list[FloatArray], *, known: MeasuredMerges | None = None
    ) -> SearchOutcome:
        """Find the task-wise coefficients of one operator."""
        space = self.settings.space(self.names)
        own = method == LINEAR
        most = self.settings.max_merges or 6 * len(self.names) + 12
        most = max(most if own else len(design) + OPERATOR_MERGES, len(design) + (len(known.rows) if known else 0))
        study = self.study_of(method, space)

        def found(row: FloatArray, goal: float, predicted: float) -> None:
            study.add(row, goal, predicted)
            self.progress(f"merges by {method}", study.asked, most, goal=goal)

        outcome = search_merges(
            lambda row: self.measure(method, row),
            criterion,
            space,
            self.metric(),
            design,
            max_merges=most,
            tolerance=TOLERANCE,
            found=found,
            known=known,
        )
        self.progress(f"merges by {method}", most, most)
        return outcome

    def study_of(self, method: str, space: CoefficientSpace) -> MeasuredStudy:
        """The log of an operator's merges, opened once."""
        if method not in self.studies:
            study = MeasuredStudy(self.study, space, fingerprint=self.fingerprint(), name=method)
            self.notes += [note for note in study.notes if note not in self.notes]
            self.studies[method] = study
        return self.studies[method]

    def fingerprint(self) -> str:
        """Identity of experts, samples, labels and goal: of everything that the search depends on."""
        labels = [split.labels.cpu().numpy().astype(np.float64) for split in self.problem.samples.values()]
        goal, settings = self.problem.goal, self.settings
        rules = (dict(goal.weights), goal.kind, goal.max_drop, settings.labels, settings.seed)
        return key_of(self.identity, rules, *(labels if settings.labels else ()))

    def choose(self, outcomes: dict[str, SearchOutcome], criterion: Criterion, wanted: tuple[str, ...]) -> str:
        """The operator: task arithmetic unless another is better by more than a standard error."""
        if LINEAR not in wanted:
            return wanted[0]
        chosen = LINEAR
        for method in wanted:
            now, other = outcomes[chosen].merges, outcomes[method].merges
            gain = now.goals[now.best] - other.goals[other.best]
            if method != chosen and gain > criterion.error(now.values[now.best], other.values[other.best]):
                chosen = method
        return chosen

    def layers(self, criterion: Criterion, found: SearchOutcome) -> LayerOutcome:
        """Layer groups, from the task-wise best."""
        merges = self.problem.merges
        grouped = TuningProblem(
            merges=merges.grouped(layer_groups(merges.backbone)),
            heads=self.problem.heads,
            samples=self.problem.samples,
            goal=self.problem.goal,
            meter=self.problem.meter,
        )
        start = found.merges.rows[found.merges.best]
        outcome = descend_layers(
            grouped,
            criterion,
            start,
            bounds=self.settings.bounds,
            max_steps=LAYER_STEPS,
            memory=self.memory,
            question=self.fingerprint(),
        )
        if not outcome.kept:
            self.notes.append(
                "Coefficients for each layer group gained no more than chance would on so many samples: every "
                "group has the task-wise ones."
            )
        return outcome

    def conclude(
        self, method: str, outcomes: dict[str, SearchOutcome], criterion: Criterion, layers: LayerOutcome | None
    ) -> TunedCoefficients:
        """Verdicts on the chosen merge."""
        found = outcomes[method]
        merges = found.merges
        row = merges.rows[merges.best]
        values = merges.values[merges.best]
        groups, by_tensor = {}, {}
        uncertain = self.uncertainty(found, criterion, row)
        if layers is not None and layers.kept:
            grouped = self.problem.merges.grouped(layer_groups(self.problem.merges.backbone))
            values = self.problem.logits(grouped.weights(layers.row))
            cells = layers.row.reshape(len(grouped.groups), -1)
            groups = {
                name: dict(zip(self.names, cells[k].tolist(), strict=True)) for k, name in enumerate(grouped.groups)
            }
            by_tensor = grouped.by_tensor(layers.row)
        models = self.models(method, criterion, row, values)
        tasks = models.outcomes(uncertain.optimism)
        source = self.source()
        low, high = uncertain.interval(row, *((0.0, 1.0) if self.settings.simplex else self.settings.bounds))
        return TunedCoefficients(
            source=source,
            method=method,
            coefficients=dict(zip(self.names, row.tolist(), strict=True)),
            intervals=dict(zip(self.names, zip(low.tolist(), high.tolist(), strict=True), strict=True)),
            groups=groups,
            tensor_coefficients=by_tensor,
            tasks=tasks,
            disturbance=models.disturbance(),
            leave_out=models.leave_out(),
            merge=models.is_worth_merging(),
            verdicts=describe(models, tasks, RISK_WORDS[source]),
            notes=(*self.problem.notes, *self.notes, *self.caveats(found, row), *self.memories()),
            methods={name: outcome.merges.goals[outcome.merges.best] for name, outcome in outcomes.items()},
            merges=len(self.measured) + (layers.steps if layers else 0),
            units=self.problem.meter.units,
            rows=np.stack(merges.rows),
            goals=np.array(merges.goals),
            foretold=np.array(merges.predicted),
            converged=found.converged,
        )

    def uncertainty(self, found: SearchOutcome, criterion: Criterion, row: FloatArray) -> Uncertainty:
        """Sampling error of the coefficients; those at a bound are held there for the optimism."""
        low, high = (0.0, 1.0) if self.settings.simplex else self.settings.bounds
        free = ((row > low + NEGLIGIBLE) & (row < high - NEGLIGIBLE)).astype(np.float64)
        return sampling_error(found.surrogate, criterion, row, free)

    def models(self, method: str, criterion: Criterion, row: FloatArray, values: FloatArray) -> MeasuredModels:
        """Everything the verdicts compare; measures the merge without each expert that has a part in it."""
        count = len(self.names)
        without = {name: self.measure(method, less) for name, less in self.without(row).items()}
        return MeasuredModels(
            criterion=criterion,
            initial=self.measure(LINEAR, np.zeros(count)),
            experts={name: self.measure(LINEAR, np.eye(count)[i]) for i, name in enumerate(self.names)},
            merged=values,
            without=without,
        )

    def memories(self) -> list[str]:
        """What was taken from a tuning that was stopped, and what of it could not be, in sentences."""
        said = []
        if self.memory.reused:
            said.append(
                f"{self.memory.reused} measurements were taken from an earlier tuning of the same experts that was "
                "stopped; the cost counts only what was measured since."
            )
        if self.memory.damaged:
            said.append(f"Damaged measurements were made again: {', '.join(sorted(self.memory.damaged))}.")
        return said

    def source(self) -> Source:
        """What the choice rests on."""
        if self.settings.labels == "all":
            return "validation"
        return "few labels" if self.settings.labels else "unlabelled"

    def caveats(self, found: SearchOutcome, row: FloatArray) -> list[str]:
        """Limits of this tuning, in sentences."""
        said = []
        if not found.converged:
            said.append(f"The search ended at its limit of {len(found.merges.rows)} merges while it was still gaining.")
        high = 1.0 if self.settings.simplex else self.settings.bounds[1]
        edge = [name for name, value in zip(self.names, row, strict=True) if value >= high - NEGLIGIBLE]
        if edge:
            said.append(
                f"The coefficients of {', '.join(edge)} are at the upper bound {high:g}; widen it to look beyond."
            )
        if self.settings.labels != "all":
            said.append(
                "Chosen on unlabelled validation images by agreement with each task's own expert, so an expert's "
                "errors count as right answers. The heads were fitted beforehand. Figures about these very images are "
                "transductive; on new images they are not."
            )
        return said

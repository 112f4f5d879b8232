r"""Risk of merged models without touching the disk: x_0 + sum_i lambda_i tau_i is formed in memory and evaluated.

Risks of merge and x_0 are taken on the same samples, so their difference is paired: its standard error is
std(l(x; z) - l(x_0; z)) / sqrt(E) over the E evaluation samples, far below that of either risk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from advisor.merging import merge_state_dicts
from advisor.observations import DisplacementTrace, MergeObservation
from advisor.plan import Plan
from advisor.probing import LINEAR_METHOD
from estimators.backbone import TorchBackbone
from estimators.cost import CostMeter
from estimators.fine_tuning import FineTuned
from estimators.objectives import ClassificationObjective, Evaluation, evaluate
from estimators.tasks import Split

EvaluateMany = Callable[[Mapping[str, Tensor], Mapping[str, int]], dict[str, Evaluation]]

TRACE_POINTS = 24  # log-spaced points kept of a displacement trace


@dataclass(slots=True)
class MergedRisks:
    """Evaluates merges of given experts on fixed samples of every task.

    Args:
        objectives: task -> its loss.
        splits: task -> the samples to evaluate on.
        meter: counts every forward pass.
        elsewhere: evaluates (task -> weights, task -> number of samples) on workers instead of here.
    """

    objectives: Mapping[str, ClassificationObjective]
    splits: Mapping[str, Split]
    meter: CostMeter | None = None
    elsewhere: EvaluateMany | None = None
    _initial: dict[str, Evaluation] | None = None

    def initial(self) -> dict[str, Evaluation]:
        """x_0 on every task, evaluated once."""
        if self._initial is None:
            self._initial = {
                name: evaluate(self.objectives[name], self.objectives[name].initial, split, meter=self.meter)
                for name, split in self.splits.items()
            }
        return self._initial

    def evaluate(self, weights: Tensor, experts: Mapping[str, Tensor]) -> dict[str, Evaluation]:
        """Shared weights [P] on every task; a task whose head was trained uses its own expert's head."""
        whole = {name: with_head(weights, experts.get(name)) for name in self.splits}
        if self.elsewhere is not None:
            if self.meter is not None:
                self.meter.add(forwards=sum(map(len, self.splits.values())))
            return self.elsewhere(whole, {name: len(split) for name, split in self.splits.items()})
        return {
            name: evaluate(self.objectives[name], whole[name], split, meter=self.meter)
            for name, split in self.splits.items()
        }

    def measure(self, plan: Plan, experts: Mapping[str, Tensor | None], *, seed: int) -> MergeObservation:
        """Merge the experts of ``plan`` and measure; an expert that diverged (``None``) makes every risk infinite.

        Args:
            plan: recipes (whose ``steps`` are the checkpoint's), coefficients and method.
            experts: task -> weights [D].
            seed: seed of the experts' runs.
        """
        initial = self.initial()
        alive = {name: weights for name, weights in experts.items() if weights is not None}
        merged_anyway = [name for name, value in plan.coefficients.items() if value > 0 and name not in alive]
        if merged_anyway:
            evaluations: dict[str, Evaluation] | None = None
        else:
            start = next(iter(self.objectives.values())).initial
            evaluations = self.evaluate(self.merge(plan, start, alive), alive)
        taus = {name: self.task_vector(name, weights) for name, weights in alive.items()}
        risks = {name: math.inf if evaluations is None else finite_risk(evaluations[name].risk) for name in self.splits}
        return MergeObservation(
            plan=plan,
            risks=risks,
            initial_risks={name: value.risk for name, value in initial.items()},
            num_samples=min(map(len, self.splits.values())),
            noise={
                name: 0.0
                if evaluations is None or math.isinf(risks[name])
                else paired_error(evaluations[name].losses, initial[name].losses)
                for name in self.splits
            },
            squared_displacements={
                name: float(taus[name].cpu().double().square().sum()) if name in taus else math.inf
                for name in plan.names
            },
            displacement_gram=_gram(taus, plan.names) if len(taus) == len(plan.names) else None,
            seed=seed,
        )

    def task_vector(self, name: str, weights: Tensor) -> Tensor:
        """Task vector x - x_0 of the shared weights [P]."""
        objective = self.objectives[name]
        shared = objective.num_shared
        return weights[:shared].to(objective.initial.device) - objective.initial[:shared]

    def merge(self, plan: Plan, start: Tensor, experts: Mapping[str, Tensor]) -> Tensor:
        """The merged shared weights [P]."""
        used = {name: value for name, value in plan.coefficients.items() if value > 0}
        shared = next(iter(self.objectives.values())).num_shared
        if plan.method == LINEAR_METHOD or not used:
            merged = start[:shared].clone()
            for name, value in used.items():
                merged += value * self.task_vector(name, experts[name])
            return merged
        backbone = next(iter(self.objectives.values())).backbone
        if not isinstance(backbone, TorchBackbone):
            raise TypeError(f"method={plan.method!r} needs named tensors (a TorchBackbone); use {LINEAR_METHOD}")
        return merge_flat(backbone, start[:shared], {n: experts[n][:shared] for n in used}, used, plan.method)


def merge_flat(
    backbone: TorchBackbone,
    start: Tensor,
    experts: Mapping[str, Tensor],
    coefficients: Mapping[str, float],
    method: str,
) -> Tensor:
    """Any operator of ``advisor.merging`` on flat weights [P]."""
    merged = merge_state_dicts(
        {name: value.cpu() for name, value in backbone.unflatten(start).items()},
        [{n: v.cpu() for n, v in backbone.unflatten(weights).items()} for weights in experts.values()],
        method=method,
        coefficients=[coefficients[name] for name in experts],
        trust_base=True,  # they were trained from it: one that was thrown far is an outcome, not a mix-up
    )
    return torch.cat([merged[name].reshape(-1).float() for name in backbone.names]).to(start.device)


def with_head(weights: Tensor, expert: Tensor | None) -> Tensor:
    """Shared weights followed by the expert's own head where it has one."""
    if expert is None or expert.numel() == weights.numel():
        return weights
    return torch.cat([weights, expert[weights.numel() :].to(weights.device)])


def paired_error(losses: Tensor, initial: Tensor) -> float:
    """Standard error of the mean difference of two loss vectors [E]; 0 for a single sample."""
    if len(losses) < 2:
        return 0.0
    error = float((losses - initial).std()) / math.sqrt(len(losses))
    return error if math.isfinite(error) else 0.0


def displacement_trace(result: FineTuned) -> DisplacementTrace | None:
    """The trace of a run at log-spaced steps, the last included; ``None`` if it died at its first step."""
    count = len(result.squared_displacements)
    if count == 0:
        return None
    steps = np.unique(np.geomspace(1, count, TRACE_POINTS).round().astype(np.int64))
    return DisplacementTrace(
        task=result.run.task,
        recipe=result.run.recipe,
        seed=result.run.seed,
        steps=steps,
        squared_displacements=np.nan_to_num(result.squared_displacements[steps - 1], nan=np.inf, posinf=np.inf),
        losses=np.nan_to_num(result.losses[steps - 1], nan=np.inf, posinf=np.inf),
    )


def finite_risk(risk: float) -> float:
    """A measured risk; NaN, where a model computes no number any more, is infinite.

    >>> finite_risk(0.5), finite_risk(float("nan"))
    (0.5, inf)
    """
    return risk if math.isfinite(risk) else math.inf


def _gram(taus: Mapping[str, Tensor], names: tuple[str, ...]) -> tuple[tuple[float, ...], ...]:
    stacked = torch.stack([taus[name] for name in names]).cpu().double()
    gram = stacked @ stacked.T
    return tuple(tuple(float(cell) for cell in row) for row in gram)

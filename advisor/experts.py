r"""The advised experts and their merge: trained once, kept as safetensors with a card, read back on later commands.

experts/<task>.safetensors   whole state dict of the expert, in the backbone's layout
experts/<task>-head.safetensors, <task>.md, <task>-record.json
merged/model.safetensors, README.md
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from advisor.advice import Recommendation
from advisor.dispatching import trained_ahead
from advisor.merged_risks import MergedRisks, displacement_trace
from advisor.training import train_runs
from advisor.unfinished import clear_unfinished, unfinished
from advisor.workspace import EXPERTS_NAME, Workspace
from estimators.cost import CostMeter
from estimators.fine_tuning import FineTuned, Run
from estimators.sampling import stable_seed
from estimators.snapshot_folder import Snapshots
from estimators.tasks import LinearHead


class ExpertDiverged(RuntimeError):
    """An advised expert diverged although it was predicted not to."""


def expert_seed(ws: Workspace) -> int:
    """Seed of the experts' batch order; not a probe's."""
    return stable_seed(ws.project.seed, "expert") % 2**31


def train_experts(ws: Workspace, recommendation: Recommendation) -> dict[str, Tensor]:
    """Train the experts that are not there yet; returns task -> weights [D] of all.

    Raises:
        ExpertDiverged: naming the task and what to do.
        RunInterrupted: between two training steps.
    """
    plan = recommendation.plan
    fingerprint = plan_fingerprint(recommendation)
    spent = _known(ws, recommendation)
    stored = {name for name in spent if ws.run.has(weights_name(name)) and ws.run.has(head_name(name))}
    missing = [name for name in plan.names if name not in stored]
    if missing:
        ws.require_affordable(sum(plan.recipes[name].cost() for name in missing), "training the experts")
    if stored and not ws.run.has(EXPERTS_NAME):
        _write_summary(ws, fingerprint, spent)
    runs = {name: Run(task=name, recipe=plan.recipes[name], seed=expert_seed(ws)) for name in missing}
    with trained_ahead(ws, list(runs.values())) as hand_over:
        for name in missing:
            what = f"expert {name}"
            with ws.spending(what) as spending, unfinished(ws, what, spending) as kept:
                hand_over(runs[name], kept)
                result = _train(ws, runs[name], spending.meter, kept)
                spent[name] = {"units": spending.meter.units, "seconds": spending.seconds, "trace": _trace(result)}
                _store(ws, name, result, spent[name])
            _write_summary(ws, fingerprint, {name: spent[name] for name in plan.names if name in spent})
    clear_unfinished(ws, "expert")
    return {name: load_expert(ws, name) for name in plan.names}


def plan_fingerprint(recommendation: Recommendation) -> str:
    """What identifies the trained recipes: experts of another advice are trained anew."""
    return json.dumps(recommendation.plan.to_json()["recipes"], sort_keys=True)


def _known(ws: Workspace, recommendation: Recommendation) -> dict[str, Any]:
    """What is known of experts of this advice, by task; from each expert's own record where the summary is lost."""
    if ws.run.has(EXPERTS_NAME):
        known = ws.run.read_json(EXPERTS_NAME)
        return dict(known["tasks"]) if known["plan"] == plan_fingerprint(recommendation) else {}
    found = {}
    for name, recipe in recommendation.plan.recipes.items():
        if ws.run.has(record_name(name)):
            record = ws.run.read_json(record_name(name))
            if record.pop("recipe") == recipe.to_json():
                found[name] = record
    return found


def _write_summary(ws: Workspace, fingerprint: str, tasks: Mapping[str, Any]) -> None:
    total = {key: sum(cell[key] for cell in tasks.values()) for key in ("units", "seconds")}
    ws.run.write_json(EXPERTS_NAME, {"plan": fingerprint, "tasks": dict(tasks), "spent": {"experts": total}})


def _train(ws: Workspace, run: Run, meter: CostMeter, kept: Snapshots) -> FineTuned:
    steps = run.recipe.steps

    def control(done: int, total: int) -> Any:
        ws.progress(f"expert {run.task}", done, steps)
        return ws.interrupts.control(done, total)

    trains = {run.task: ws.tasks[run.task].train}
    groups = train_runs(ws.objectives, trains, [run], meter=meter, control=control, snapshots=kept)
    result = next(iter(groups))[0]
    if result.outcome == "diverged":
        raise ExpertDiverged(
            f"task={run.task!r}: the advised expert diverged ({result.cause}); its recipe was {run.recipe.describe()}. "
            "Refit with this outcome (merge-advisor recommend --refit) or lower the upper end of search.learning_rate"
        )
    if result.outcome != "finished":
        raise ws.interrupts.interruption(ws.interrupts.reason or "stop")
    return result


def weights_name(task: str) -> str:
    """Artefact of an expert's weights."""
    return f"experts/{task}.safetensors"


def head_name(task: str) -> str:
    """Artefact of an expert's head."""
    return f"experts/{task}-head.safetensors"


def record_name(task: str) -> str:
    """Artefact of what an expert cost and how it moved."""
    return f"experts/{task}-record.json"


def _store(ws: Workspace, name: str, result: FineTuned, spent: Mapping[str, Any]) -> None:
    objective, backbone = ws.objectives[name], ws.prepared.backbone
    weights = result.weights.to(objective.initial.device)
    state = backbone.state_dict(weights[: objective.num_shared])
    metadata = {"task": name, "recipe": json.dumps(result.run.recipe.to_json())}
    ws.run.write_bytes(weights_name(name), safetensors.torch.save(state, metadata=metadata))
    head = objective.head_at(weights)
    tensors = {"weight": head.weight.detach().cpu().contiguous(), "bias": head.bias.detach().cpu().contiguous()}
    ws.run.write_bytes(head_name(name), safetensors.torch.save(tensors))
    ws.run.write_text(f"experts/{name}.md", _card(ws, name, result))
    ws.run.write_json(record_name(name), {"recipe": result.run.recipe.to_json(), **spent})


def _card(ws: Workspace, name: str, result: FineTuned) -> str:
    moved = float(np.sqrt(result.squared_displacements[-1]))
    return (
        f"# Expert for {name}\n\n"
        f"- Backbone: {ws.project.backbone.name}\n"
        f"- Recipe: {result.run.recipe.describe()}\n"
        f"- Seed: {result.run.seed}\n"
        f"- Training loss: {result.losses[0]:.4f} at first, {np.mean(result.losses[-10:]):.4f} over the last ten\n"
        f"- Distance from the pretrained weights: {moved:.4f}\n"
        f"- Classes: {', '.join(ws.tasks[name].class_names)}\n"
        "- BatchNorm statistics, where there are any, are those of the pretrained weights.\n"
    )


def _trace(result: FineTuned) -> dict[str, Any]:
    trace = displacement_trace(result)
    assert trace is not None  # the run finished
    return trace.to_json()


def load_expert(ws: Workspace, name: str) -> Tensor:
    """Weights [D] of a stored expert, on the backbone's device."""
    objective, backbone = ws.objectives[name], ws.prepared.backbone
    shared = backbone.flatten(load_tensors(ws.run.require(weights_name(name))))
    if not objective.trained_head:
        return shared
    tensors = load_tensors(ws.run.require(head_name(name)))
    head = LinearHead(weight=tensors["weight"], bias=tensors["bias"]).to(backbone.device)
    return torch.cat([shared, head.flat()])


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file."""
    return safetensors.torch.load_file(path)


def merge_experts(ws: Workspace, recommendation: Recommendation, experts: Mapping[str, Tensor]) -> Tensor:
    """Merge as advised, store ``merged/model.safetensors`` with its card, and return the shared weights [P]."""
    risks = MergedRisks(objectives=ws.objectives, splits={})
    start = next(iter(ws.objectives.values())).initial
    merged = risks.merge(recommendation.plan, start, experts)
    state = ws.prepared.backbone.state_dict(merged)
    ws.run.write_bytes("merged/model.safetensors", safetensors.torch.save(state))
    ws.run.write_text("merged/README.md", merged_card(ws, recommendation))
    return merged


def merged_card(ws: Workspace, recommendation: Recommendation) -> str:
    """The merged model's card: recipe, coefficients, prediction."""
    plan, goal = recommendation.plan, recommendation.goal
    rows = "\n".join(
        f"| {name} | {plan.recipes[name].describe()} | {plan.coefficients[name]:.3f} | "
        f"{p.value:.3f} [{p.low:.3f}, {p.high:.3f}] | {recommendation.initial_tasks[name]:.3f} |"
        for name, p in recommendation.tasks.items()
    )
    return (
        f"# Merged model\n\nBackbone {ws.project.backbone.name}, method {plan.method}.\n\n"
        "| task | recipe | coefficient | predicted risk (90 % interval) | pretrained risk |\n|---|---|---|---|---|\n"
        f"{rows}\n\nPredicted goal risk {goal.value:.3f} [{goal.low:.3f}, {goal.high:.3f}]; "
        f"status {recommendation.status}.\n"
    )

"""A run's experts merged by hand: which files there are, and what a merge with other coefficients measures.

Measured on validation data, as advice is: the test data stay closed until validation.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from advisor.observations import MergeObservation
from advisor.plan import Plan
from advisor.runs import ArtefactMissing, RunDirectory

BASE_NAME = "backbone.safetensors"
EXPERTS = "experts"
HEAD_ENDING = "-head.safetensors"


def expert_files(run: RunDirectory) -> tuple[Path, dict[str, Path]]:
    """The pretrained weights and the experts that are whole, by task.

    Raises:
        ArtefactMissing: if the run has no experts yet.
    """
    found = sorted(run.path_of(EXPERTS).glob("*.safetensors")) if run.path_of(EXPERTS).is_dir() else []
    names = [path for path in found if not path.name.endswith(HEAD_ENDING)]
    whole = {path.stem: path for path in names if run.has(f"{EXPERTS}/{path.name}")}
    if not whole:
        raise ArtefactMissing(f"run={run.id!r} has no whole expert yet; train the advised experts first")
    return run.path_of(BASE_NAME), whole


def measure_by_hand(run: RunDirectory, plan: Plan) -> MergeObservation:
    """Merge the run's experts with a plan's coefficients and measure every task's validation risk; nothing is written.

    Args:
        run: a run with experts.
        plan: names the coefficients and method; its recipes are taken to be those of the experts.
    """
    from advisor.experts import expert_seed, load_expert
    from advisor.merged_risks import MergedRisks
    from advisor.workspace import open_workspace

    ws = open_workspace(run.path)
    risks = MergedRisks(objectives=ws.objectives, splits={name: task.validation for name, task in ws.tasks.items()})
    experts = {name: load_expert(ws, name) for name in plan.names}
    return risks.measure(plan, experts, seed=expert_seed(ws))


def advised_coefficients(plan: Plan, labels: Mapping[str, Path]) -> dict[str, float]:
    """The plan's coefficients for the experts that are there."""
    return {name: float(plan.coefficients[name]) for name in labels if name in plan.coefficients}

r"""What a command would do and what it would cost, before anything is done.

Units are per-sample gradients (``docs/protocol.md``).  With B what everything before advice may cost and T the cost of
the experts, N K b at most or that of the advice where there is one:

    advice      at most B: heads, constants, learning-rate range test, probes
    experts     T
    validation  (defaults + joint training) (B + T), for every contender may spend what the advice and its experts took

Time is estimated from a few training steps of the project's model on noise, on the device that would compute.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from advisor.advice import Recommendation
from advisor.project import Project
from advisor.run_reading import read_value
from advisor.runs import RunDirectory

CONTENDERS = 4  # three default recipes and joint training (advisor.baselines)
TIMED_BATCH = 32
TIMED_STEPS = 3
STAGE_FILES = {
    "advice": "recommendation.json",
    "experts": "experts.json",
    "merge": "merged/model.safetensors",
    "validation": "validation.json",
    "report": "report.json",
}
STAGES_OF = {
    "probe": ("advice",),
    "recommend": ("advice",),
    "train": ("advice", "experts"),
    "merge": ("advice", "experts", "merge"),
    "validate": ("advice", "experts", "merge", "validation"),
    "run": ("advice", "experts", "merge", "validation", "report"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStage:
    """One stage that a command would do.

    Attributes:
        name: the stage.
        units: what it would cost, per-sample gradients.
        is_done: whether its result is there already, so that it costs nothing.
        note: how the figure comes about.
    """

    name: str
    units: float
    is_done: bool
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCost:
    """What a command would do.

    Attributes:
        command: the command.
        stages: what it would do, in order.
        full_fine_tune: units of one full fine-tune of all tasks.
        seconds_per_unit: measured on this machine; ``None`` if it was not timed.
    """

    command: str
    stages: tuple[PlannedStage, ...]
    full_fine_tune: float
    seconds_per_unit: float | None = None

    @property
    def units(self) -> float:
        """Everything that is left to do."""
        return sum(stage.units for stage in self.stages if not stage.is_done)

    @property
    def minutes(self) -> float | None:
        """Estimated minutes of what is left to do."""
        return None if self.seconds_per_unit is None else self.units * self.seconds_per_unit / 60.0

    def to_json(self) -> dict[str, Any]:
        """Plain values, for ``--json``."""
        return {
            "command": self.command,
            "stages": [
                {"name": stage.name, "units": stage.units, "done": stage.is_done, "note": stage.note}
                for stage in self.stages
            ],
            "units": self.units,
            "minutes": self.minutes,
            "full_fine_tune": self.full_fine_tune,
            "full_fine_tunes": self.units / self.full_fine_tune,
        }


def plan_cost(
    project: Project,
    command: str,
    *,
    run: RunDirectory | None = None,
    max_cost: float | None = None,
    seconds_per_unit: float | None = None,
) -> PlannedCost:
    """What ``command`` would cost.

    Args:
        project: the project.
        command: a command that does stages, e.g. ``run``.
        run: the run it would go on with, if any.
        max_cost: as ``--max-cost``.
        seconds_per_unit: from :func:`seconds_per_unit`.
    """
    if command not in STAGES_OF:
        raise ValueError(f"command={command!r} is not one of {', '.join(STAGES_OF)}; choose one")
    search = project.search
    tasks = len(project.tasks)
    full = float(tasks * search.steps[1] * 32)
    limits = [project.budget.probe_share * full, project.budget.max_cost, max_cost]
    advice = min(limit for limit in limits if limit is not None)
    experts, how = _experts_cost(project, run)
    known = {
        "advice": (advice, "at most: heads, constants, learning-rate range test, probes"),
        "experts": (experts, how),
        "merge": (0.0, "no gradients"),
        "validation": (
            CONTENDERS * (advice + experts),
            f"at most: {CONTENDERS} contenders, each for what advice and experts took",
        ),
        "report": (0.0, "no gradients"),
    }
    stages = tuple(
        PlannedStage(name=name, units=known[name][0], is_done=_is_done(run, name), note=known[name][1])
        for name in STAGES_OF[command]
    )
    return PlannedCost(command=command, stages=stages, full_fine_tune=full, seconds_per_unit=seconds_per_unit)


def _experts_cost(project: Project, run: RunDirectory | None) -> tuple[float, str]:
    if run is not None and run.has("recommendation.json"):
        advice = read_value(run, "recommendation.json", Recommendation.from_json)
        return float(advice.training_cost), "the advised plan"
    search = project.search
    units = float(len(project.tasks) * search.steps[1] * search.batch_size[1])
    return units, "at most: the longest run with the largest batch, for every task"


def _is_done(run: RunDirectory | None, stage: str) -> bool:
    return run is not None and run.has(STAGE_FILES[stage])


def seconds_per_unit(project: Project, *, device: str | None = None) -> float:
    """Wall seconds of one per-sample gradient, from a few steps of the project's model on noise.

    Raises:
        ValueError: for an unknown model or a device that is absent.
    """
    from advisor.preparing import backbone_source
    from estimators.backbone_kinds import blank_inputs, build_around, resolve
    from estimators.devices import resolve_device

    where = resolve_device(device or project.device)
    source, _ = resolve(backbone_source(project))
    backbone = build_around(source, None).to(where)
    batch = min(TIMED_BATCH, project.search.batch_size[1])
    inputs = blank_inputs(source, batch, device=where)
    started = 0.0
    for step in range(TIMED_STEPS + 1):
        if step == 1:  # the first step pays for allocations
            _wait(where)
            started = time.perf_counter()
        point = backbone.initial.clone().requires_grad_()
        backbone.features(point, inputs).square().sum().backward()  # type: ignore[no-untyped-call]
    _wait(where)
    return (time.perf_counter() - started) / (TIMED_STEPS * batch)


def _wait(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)

r"""A trace from elsewhere, checked against the project: which task, from the same x_0, of the same shapes, finite.

Weights that were trained in half precision started from x_0 rounded to it, so their task vector is taken from there,
in float32:  tau = float32(x) - float32(half(x_0)).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from advisor.observations import DisplacementTrace
from advisor.workspace import Workspace
from estimators.backbone import TorchBackbone
from estimators.checkpoints import fingerprint, read_checkpoint
from estimators.datasets import shortened
from estimators.fine_tuning import Outcome, divergence
from estimators.recipe import Recipe
from estimators.sampling import stable_seed
from estimators.trace_files import BadTrace, Trace

DISPLACEMENT_TOLERANCE = 0.01  # relative, between a trace's ||x - x_0||^2 and that of its checkpoint


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImportedRun:
    """One run as the project sees it.

    Attributes:
        trace: what was recorded.
        recipe: the recipe that the laws see; ``steps`` is the last step done.
        seed: the run's, or one made from what was recorded.
        steps: steps whose weights can be merged, increasing.
        outcome: ``finished`` or ``diverged``.
        caveats: what was read as something else, a sentence each.
    """

    trace: Trace
    recipe: Recipe
    seed: int
    steps: tuple[int, ...]
    outcome: Outcome
    caveats: tuple[str, ...]

    @property
    def task(self) -> str:
        """Name of the task."""
        return self.trace.header.task


def admit(ws: Workspace, trace: Trace) -> ImportedRun:
    """Check a trace against the project.

    Raises:
        BadTrace: naming the trace, what does not fit and what to do.
    """
    try:
        return _admitted(ws, trace)
    except (ValueError, TypeError) as error:
        if isinstance(error, BadTrace) and str(trace.folder) in str(error):
            raise
        raise BadTrace(f"trace={str(trace.folder)!r}: {error}") from error


def _admitted(ws: Workspace, trace: Trace) -> ImportedRun:
    header, backbone = trace.header, ws.prepared.backbone
    if header.task not in ws.tasks:
        raise BadTrace(f"task={header.task!r} is not one of the project's ({', '.join(ws.tasks)}); correct the task")
    unknown = sorted(set(header.parameters) - set(backbone.names))
    if unknown:
        raise BadTrace(
            f"it recorded {shortened(unknown, 3)}, which may not move in the project's backbone; record without them "
            "(prefix=, exclude=) or free them in backbone.frozen"
        )
    recipe, read_as = header.recipe.as_recipe()
    caveats = [*read_as, *header.notes]
    _check_base(backbone, trace, caveats)
    recipe = _with_samples(ws, header.task, recipe, caveats)
    last = int(max([*trace.steps.tolist()[-1:], *header.checkpoints]))
    found = divergence(trace.losses) if len(trace.losses) else None
    if last < recipe.steps and found is None:
        caveats.append(f"it ended after step {last} of {recipe.steps}")
    steps = _mergeable(trace, recipe, last, caveats)
    for step in header.checkpoints:
        weights = weights_at(backbone, trace, step, caveats)
        _check_displacement(backbone, trace, step, weights)
    missing = [name for name in backbone.names if header.parameters and name not in header.parameters]
    if missing:
        caveats.append(f"{shortened(missing, 3)} did not move; constants are those of all movable weights")
    return ImportedRun(
        trace=trace,
        recipe=recipe.replace(steps=last) if recipe.schedule == "constant" else recipe,
        seed=stable_seed("imported", trace.digest) % 2**31 if header.seed is None else int(header.seed),
        steps=steps if found is None else (),
        outcome="finished" if found is None else "diverged",
        caveats=tuple(dict.fromkeys(caveats)),
    )


def _check_base(backbone: TorchBackbone, trace: Trace, caveats: list[str]) -> None:
    header = trace.header
    if header.base is None:
        caveats.append("it does not say what weights it started from; the project's were assumed")
        return
    start = backbone.unflatten(backbone.initial)
    try:
        rounded = {name: start[name].to(_dtype(dtype)) for name, dtype in header.parameters.items()}
    except AttributeError:
        raise BadTrace(f"parameters have dtypes {sorted(set(header.parameters.values()))}; use torch's names") from None
    if fingerprint(rounded) != header.base:
        raise BadTrace(
            "it started from other weights than the project's backbone (fingerprints differ); import runs of the same "
            "base, or set backbone.checkpoint to theirs"
        )


def _with_samples(ws: Workspace, task: str, recipe: Recipe, caveats: list[str]) -> Recipe:
    own, given = ws.num_samples[task], recipe.num_samples
    if given is None or given == own:
        return recipe.replace(num_samples=None)
    if given > own:
        caveats.append(f"it trained on {given} samples and was read as one on the project's {own}")
        return recipe.replace(num_samples=None)
    return recipe


def _mergeable(trace: Trace, recipe: Recipe, last: int, caveats: list[str]) -> tuple[int, ...]:
    """Steps whose weights a recipe describes: under a schedule that decays, only the planned end."""
    steps = tuple(trace.header.checkpoints)
    if recipe.schedule == "constant":
        return steps
    left_out = [step for step in steps if step != recipe.steps]
    if left_out:
        caveats.append(f"its weights after steps {left_out} were not merged, since its schedule goes on after them")
    return tuple(step for step in steps if step == recipe.steps)


def weights_at(backbone: TorchBackbone, trace: Trace, step: int, caveats: list[str] | None = None) -> Tensor:
    """Shared weights [P] of a checkpoint; what the trace says did not move stays at x_0."""
    said: list[str] = [] if caveats is None else caveats
    prefix, header = trace.header.prefix, trace.header
    stored = read_checkpoint(trace.checkpoint(step)).tensors
    state = {name.removeprefix(prefix): value for name, value in stored.items() if name.startswith(prefix)}
    start = backbone.unflatten(backbone.initial)
    expected = header.parameters or {
        name: "" for name in backbone.names if not name.startswith(header.recipe.frozen or ("\0",))
    }
    missing = [name for name in expected if name not in state]
    if missing:
        raise BadTrace(
            f"the checkpoint of step {step} lacks {shortened(missing, 3)} of the project's backbone; save these "
            "weights, set prefix to what its names begin with, or name them in recipe.frozen"
        )
    others = sorted(set(state) - set(backbone.names))
    if others:
        said.append(f"{shortened(others, 3)} of its checkpoints are no movable weights of the backbone and were left")
    for name in expected:
        if state[name].shape != start[name].shape:
            raise BadTrace(
                f"{name} of step {step} has shape {tuple(state[name].shape)}, the backbone's is "
                f"{tuple(start[name].shape)}; import runs of this backbone"
            )
    with torch.no_grad():
        parts = [_moved(start[name], state[name]) if name in expected else start[name] for name in backbone.names]
        return torch.cat([part.reshape(-1) for part in parts])


def _moved(start: Tensor, value: Tensor) -> Tensor:
    """A tensor in float32 on x_0's device; half precision is measured from x_0 rounded to it."""
    if value.dtype in (torch.float16, torch.bfloat16):
        return start + (value.to(start.device).float() - start.to(value.dtype).float())
    return value.to(start.device).float()


def _check_displacement(backbone: TorchBackbone, trace: Trace, step: int, weights: Tensor) -> None:
    moved = squared_distance(backbone, weights)
    size = float(backbone.initial.cpu().double().square().sum())
    if not moved > 0:
        raise BadTrace(f"the checkpoint of step {step} equals x_0; it holds no training")
    if trace.header.base is None and moved > size:
        raise BadTrace(
            f"the checkpoint of step {step} lies farther from x_0 ({math.sqrt(moved):.3g}) than x_0 from 0 "
            f"({math.sqrt(size):.3g}); it was trained from other weights"
        )
    at = np.flatnonzero(trace.steps == step)
    recorded = float(trace.squared_displacements[at[0]]) if len(at) else math.inf
    if math.isfinite(recorded) and abs(recorded - moved) > DISPLACEMENT_TOLERANCE * max(recorded, moved):
        raise BadTrace(
            f"step {step} recorded a squared displacement of {recorded:.4g}, its checkpoint lies {moved:.4g} from x_0; "
            "heads or frozen layers may have been recorded along: record again without them (exclude=)"
        )


def squared_distance(backbone: TorchBackbone, weights: Tensor) -> float:
    """||x - x_0||^2 in double precision."""
    return float((weights - backbone.initial).cpu().double().square().sum())


def trace_of(run: ImportedRun, points: int, losses: Mapping[int, tuple[float, float]]) -> DisplacementTrace:
    """Displacement and loss at log-spaced recorded steps.

    Args:
        run: the run.
        points: how many.
        losses: step -> (squared displacement, loss) of checkpoints, for a run without recorded steps.
    """
    if len(run.trace.steps):
        count = len(run.trace.steps)
        if run.outcome == "diverged":
            found = divergence(run.trace.losses)
            count = found[0] if found is not None else count
        keep = np.unique(np.geomspace(1, count, points).round().astype(np.int64)) - 1
        steps, moved = run.trace.steps[keep], run.trace.squared_displacements[keep]
        values = run.trace.losses[keep]
    else:
        steps = np.array(sorted(losses), dtype=np.int64)
        moved = np.array([losses[int(step)][0] for step in steps])
        values = np.array([losses[int(step)][1] for step in steps])
    return DisplacementTrace(
        task=run.task,
        recipe=run.recipe,
        seed=run.seed,
        steps=steps,
        squared_displacements=np.nan_to_num(moved, nan=np.inf, posinf=np.inf),
        losses=np.nan_to_num(values, nan=np.inf, posinf=np.inf),
    )


def belonging_together(runs: list[ImportedRun], order: tuple[str, ...]) -> list[dict[str, ImportedRun]]:
    """Runs as probes: one run a task, by their label, else by equal recipes; in order of their folders."""
    probes: dict[str, list[dict[str, ImportedRun]]] = {}
    for run in runs:
        label = run.trace.header.probe
        recipe = replace(run.recipe, num_samples=None)
        key = f"label {label}" if label is not None else str(sorted(recipe.to_json().items(), key=str))
        places = probes.setdefault(key, [])
        free = next((place for place in places if run.task not in place), None)
        if free is None and label is not None and places:
            raise BadTrace(
                f"trace={str(run.trace.folder)!r}: probe {label!r} has two runs of task {run.task!r}; give each "
                "probe a label of its own"
            )
        if free is None:
            places.append({run.task: run})
        else:
            free[run.task] = run
    found = [place for places in probes.values() for place in places]
    return [{name: place[name] for name in order if name in place} for place in found]


def _dtype(name: str) -> torch.dtype:
    found: torch.dtype = getattr(torch, name)
    return found

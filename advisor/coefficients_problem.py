r"""Experts by file and a project's data, brought together: what every measured merge of a tuning needs.

The project prepares backbone, splits and heads as everywhere (``advisor.preparing``); only training and validation data
are read, and merges are measured on validation images.  A head that was trained with its expert lies beside it as
``<expert>-head.safetensors`` and is used in place of the project's.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from advisor.coefficients_evidence import concatenated
from advisor.coefficients_memory import key_of
from advisor.coefficients_recombining import Recombination, cache_task_vectors
from advisor.goal import Goal
from advisor.hand_merging import HEAD_ENDING
from advisor.merging.compatibility import check_base
from advisor.merging.sources import Location, Source, open_source
from advisor.preparing import Prepared, prepare
from advisor.project import Project, load_project
from advisor.runs import is_run
from advisor.workspace import PROJECT_NAME, open_workspace
from estimators.cost import CostMeter
from estimators.files import write_bytes_atomic
from estimators.objectives import ClassificationObjective
from estimators.tasks import LinearHead, Split

FloatArray = NDArray[np.float64]
CHUNK = 256  # samples a forward pass
PIECE = 1 << 22  # weights that are looked at together


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TuningProblem:
    """Experts, tasks and samples.

    Attributes:
        merges: the cached task vectors.
        heads: task -> its head.
        samples: task -> the samples that merges are evaluated on.
        goal: the project's goal.
        meter: counts forward passes.
        notes: caveats.
    """

    merges: Recombination
    heads: Mapping[str, LinearHead]
    samples: Mapping[str, Split]
    goal: Goal
    meter: CostMeter = field(default_factory=CostMeter)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that heads and samples are of the same tasks as the goal."""
        if not list(self.heads) == list(self.samples) == list(self.goal.weights):
            raise ValueError(
                f"heads {list(self.heads)}, samples {list(self.samples)} and goal {list(self.goal.weights)} must name "
                "the same tasks in one order"
            )

    def identify(self) -> str:
        """Digest of what a merge's logits depend on: experts and base (by their inner products), heads and images."""
        start, vectors = self.merges.start, self.merges.vectors
        products = np.zeros((len(vectors) + 1,) * 2)
        for i in range(0, start.numel(), PIECE):
            part = torch.cat([start[None, i : i + PIECE], vectors[:, i : i + PIECE]]).cpu().double()
            products += (part @ part.T).numpy()
        parts: list[object] = [self.merges.labels, np.round(products / products.max(), 10)]
        for name, split in self.samples.items():
            head = self.heads[name]
            parts += [name, *(t.detach().cpu().double().numpy() for t in (head.weight, head.bias))]
            images = split.inputs.detach().cpu().contiguous()
            parts += [str(tuple(images.shape)), hashlib.sha256(images.numpy().tobytes()).hexdigest()]
        return key_of(*parts)

    @torch.no_grad()
    def logits(self, weights: Tensor) -> FloatArray:
        """Logits of all tasks' samples at merged weights [P], one after another [S]."""
        parts = []
        for name, split in self.samples.items():
            objective = ClassificationObjective(self.merges.backbone, self.heads[name])
            chunks = [
                objective.logits(weights, split.inputs[i : i + CHUNK].to(weights.device)).cpu().double()
                for i in range(0, len(split), CHUNK)
            ]
            self.meter.add(forwards=len(split))
            parts.append(torch.cat(chunks).numpy())
        return concatenated(parts)

    def pull(self, weights: Tensor, slope: FloatArray) -> FloatArray:
        """Gradient with respect to coefficients [D] of a function of the logits whose gradient is ``slope`` [S]."""
        point = weights.detach().clone().requires_grad_(True)
        start = 0
        for name, split in self.samples.items():
            objective = ClassificationObjective(self.merges.backbone, self.heads[name])
            classes = self.heads[name].num_classes
            for i in range(0, len(split), CHUNK):
                out = objective.logits(point, split.inputs[i : i + CHUNK].to(weights.device))
                piece = torch.as_tensor(slope[start : start + out.numel()], dtype=out.dtype).view(-1, classes)
                torch.autograd.backward(out, piece.to(out.device))
                start += out.numel()
            self.meter.add(gradients=len(split))
        assert point.grad is not None
        return self.merges.project(point.grad)


def open_problem(
    base: Location,
    experts: Mapping[str, Location],
    data: Path | str | Project,
    *,
    device: str | None = None,
    seed: int | None = None,
) -> TuningProblem:
    """Prepare a project (or read a prepared run) and cache the experts' task vectors.

    Raises:
        IncompatibleCheckpoints: base or experts do not fit the project's backbone.
        ValueError: the experts have no task in the project, or the project does not fit its data.
    """
    project = _project_of(data)
    absent = [name for name in project.task_weights() if name not in experts]
    if absent:
        raise ValueError(
            f"tasks {absent} of the project have no expert of that name among {list(experts)}; name the experts like "
            "their tasks, or leave those tasks out of the project"
        )
    base_state = read_state(base, "base")
    states = {name: read_state(location, f"expert {name!r}") for name, location in experts.items()}
    with tempfile.TemporaryDirectory() as scratch:
        meter = CostMeter()
        prepared = _prepare(data, project, base_state, Path(scratch), meter, device, seed)
        merges = cache_task_vectors(prepared.backbone, base_state, states)
        check_base(merges.labels, np.sqrt(np.diag(merges.gram())).tolist(), float(merges.start.norm()))
        heads, notes = {}, list(prepared.notes)
        for task in prepared.tasks:
            own = own_head(experts[task.name], task.fitted_head())
            heads[task.name] = own or task.fitted_head()
            if own is not None:
                notes.append(f"task {task.name!r}: the head that lies beside its expert is used")
        objective = project.objective
        return TuningProblem(
            merges=merges,
            heads=heads,
            samples={task.name: task.validation for task in prepared.tasks},
            goal=Goal(weights=project.task_weights(), kind=objective.goal, max_drop=objective.max_drop),
            notes=tuple(notes),
        )


def read_state(location: Location, place: str) -> dict[str, Tensor]:
    """A whole checkpoint as torch tensors on the CPU."""
    source: Source = open_source(location, place=place)
    state = {}
    for name, info in source.tensors.items():
        raw = source.read(name, 0, info.size)
        if info.dtype == "BF16":
            tensor = torch.from_numpy(np.array(raw).view(np.int16)).view(torch.bfloat16)
        else:
            tensor = torch.from_numpy(np.array(raw))
        state[name] = tensor.reshape(info.shape)
    return state


def _project_of(data: Path | str | Project) -> Project:
    """The project, of a run or by file."""
    if isinstance(data, Project):
        return data
    path = Path(data)
    return load_project(path / PROJECT_NAME if is_run(path) else path)


def _prepare(
    data: Path | str | Project,
    project: Project,
    state: Mapping[str, Tensor],
    scratch: Path,
    meter: CostMeter,
    device: str | None,
    seed: int | None,
) -> Prepared:
    """A run as it is; a project around the given base."""
    if isinstance(data, Path | str) and is_run(Path(str(data))):
        ws = open_workspace(Path(str(data)), device=device)
        with ws.session("merge"):
            return ws.prepared
    checkpoint = scratch / "base.safetensors"
    contiguous = {name: value.contiguous().clone() for name, value in state.items()}
    write_bytes_atomic(checkpoint, safetensors.torch.save(contiguous))
    given = project.backbone.model_copy(
        update={"checkpoint": str(checkpoint), "pretrained": False, "map_keys": "strict"}
    )
    changes = {"backbone": given} | ({} if seed is None else {"seed": seed})
    around = project.model_copy(update=changes)
    around._origin = project._origin
    return prepare(around, scratch / "run", device=device, meter=meter)


def own_head(location: Location, fitted: LinearHead) -> LinearHead | None:
    """The head that lies beside an expert's file, or ``None``.

    Raises:
        ValueError: it is there but does not fit the task.
    """
    if not isinstance(location, Path | str):
        return None
    path = Path(location)
    beside = path.with_name(path.stem + HEAD_ENDING)
    if path.suffix != ".safetensors" or not beside.is_file():
        return None
    tensors = safetensors.torch.load_file(beside)
    head = LinearHead(weight=tensors["weight"], bias=tensors["bias"])
    if head.weight.shape != fitted.weight.shape:
        raise ValueError(
            f"head {beside.name!r} has shape {tuple(head.weight.shape)}, the project's task needs "
            f"{tuple(fitted.weight.shape)}; move it away or repair the project's data"
        )
    return head

r"""The field's standard table: CLIP ViT-B/32 image towers fine-tuned on eight tasks, merged and tested.

    python -m benchmarks.clip8 --checkpoints CLIP --data DATA --lineage tall_mask --out clip8.json

    CLIP/base.*, CLIP/<task>.*         image towers (.safetensors, .pt, .pth, .bin; layouts: ``benchmarks.clip_towers``)
    CLIP/<task>-head.*                 weight [C, F], or [C, D] on projected features; bias [C] if there is one
    DATA/<task>/{train,validation,test}/<class>/*.jpg      or any folder of class folders, cut by the project

Row k of a head belongs to the k-th class folder in sorted order.  Neither weights nor images are downloaded; what is
there is loaded by the product's own code (``advisor.preparing``, ``advisor.coefficients_problem``).  A task without a
head file gets a linear head fitted on its training images, which the table says.

What differs from the published set-up: features are not normalised to unit length as CLIP does (no argmax changes by
that: accuracies compare, risks do not), and images are resized bilinearly, not bicubically.  Published means (%,
eight tasks) stand beside ours only for the same lineage of checkpoints and all test images: the three tables below use
different experts and must not be mixed (in TALL-mask's the DTD split is not comparable).  docs/merging.md says how to
get there from published files.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor

from advisor.coefficients import Settings, tune_from_weights, tune_on_data
from advisor.coefficients_problem import TuningProblem, open_problem, read_state
from advisor.merging.registry import build_operator
from advisor.preparing import prepare
from advisor.project import load_project
from benchmarks.clip_towers import split_tower
from estimators.cost import CostMeter
from estimators.objectives import ClassificationObjective, evaluate
from estimators.splits import open_test
from estimators.tasks import LinearHead

FloatArray = NDArray[np.float64]
MODEL = "vit_base_patch32_clip_quickgelu_224"
TASKS = ("sun397", "cars", "resisc45", "eurosat", "svhn", "gtsrb", "mnist", "dtd")
CLIP_MEAN, CLIP_STD = (0.4815, 0.4578, 0.4082), (0.2686, 0.2613, 0.2758)
ENDINGS = (".safetensors", ".pt", ".pth", ".bin")
PUBLISHED: dict[str, dict[str, float]] = {
    "paper": {"pretrained": 48.0, "average": 65.8, "task arithmetic": 69.1, "ties": 72.4, "AdaMerging": 80.1},
    "fusion_bench": {"pretrained": 48.2, "experts": 90.3, "average": 66.5, "task arithmetic": 68.0, "ties": 72.2},
    "tall_mask": {"pretrained": 48.3, "experts": 92.8, "average": 66.3, "task arithmetic": 70.8, "tsv_m": 85.9},
}
FIXED = {"average": "average", "task arithmetic": "task_arithmetic", "ties": "ties", "tsv_m": "tsv_m"}


def find_checkpoint(folder: Path, name: str) -> Path:
    """The file that holds a checkpoint.

    Raises:
        FileNotFoundError: none of the endings is there.
    """
    for ending in ENDINGS:
        if (folder / f"{name}{ending}").is_file():
            return folder / f"{name}{ending}"
    raise FileNotFoundError(
        f"checkpoints={str(folder)!r} holds no {name}{{{','.join(ENDINGS)}}}; put the image tower there"
    )


def convert_towers(
    checkpoints: Path, work: Path, names: Sequence[str], model: str, size: int
) -> tuple[dict[str, Path], dict[str, Tensor | None]]:
    """Every tower in timm's layout under ``work``, and its projection [F, D]."""
    network = timm.create_model(model, pretrained=False, num_classes=0, img_size=size)
    files, projections = {}, {}
    work.mkdir(parents=True, exist_ok=True)
    for name in names:
        source = find_checkpoint(checkpoints, name)
        tower, projections[name] = split_tower(read_state(source, name), network, str(source))
        files[name] = work / f"{name}.safetensors"
        safetensors.torch.save_file(tower, files[name])
    return files, projections


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectedHead:
    """A head V [C, D] behind the tower's projection P, which is merged with the tower.

        logits = V P(λ)ᵀ x + b,        P(λ) = P₀ + Σ λ_t (P_t − P₀)

    Attributes:
        weight: V; or [C, F], then there is no projection.
        bias: b [C].
        projections: P₀, P_1, ..., P_N, or empty.
    """

    weight: Tensor
    bias: Tensor
    projections: tuple[Tensor, ...] = ()

    def at(self, coefficients: FloatArray) -> LinearHead:
        """The head on the tower's own features at λ [N]."""
        if not self.projections:
            return LinearHead(weight=self.weight, bias=self.bias)
        base, *others = self.projections
        merged = base + sum(
            (float(c) * (other - base) for c, other in zip(coefficients, others, strict=True)), torch.zeros_like(base)
        )
        return LinearHead(weight=(self.weight @ merged.T).contiguous(), bias=self.bias)


def read_head(
    checkpoints: Path, task: str, fitted: LinearHead, projections: Mapping[str, Tensor | None]
) -> ProjectedHead | None:
    """The head beside a task's tower, or ``None``; ``projections`` of base and experts, the base first.

    Raises:
        ValueError: it fits neither features nor projected features, or not the classes.
    """
    try:
        path = find_checkpoint(checkpoints, f"{task}-head")
    except FileNotFoundError:
        return None
    state = read_state(path, f"head of {task}")
    if "weight" not in state:
        raise ValueError(f"{path}: holds {list(state)[:4]}, a head is 'weight' [C, F or D] and, if any, 'bias' [C]")
    weight = state["weight"].float()
    bias = state["bias"].float() if "bias" in state else torch.zeros(len(weight))
    classes, features = fitted.weight.shape
    if weight.ndim != 2 or len(weight) != classes:
        raise ValueError(
            f"{path}: weight {tuple(weight.shape)} for {classes} class folders; row k is the k-th folder's"
        )
    if weight.shape[1] == features:
        return ProjectedHead(weight=weight, bias=bias)
    base = projections["base"]
    if base is None or base.shape != (features, weight.shape[1]):
        held = "none" if base is None else str(tuple(base.shape))
        raise ValueError(
            f"{path}: weight {tuple(weight.shape)} is neither on the tower's {features} features nor behind the base's "
            f"projection ({held}); give base.* with its projection (visual.proj, visual_projection.weight)"
        )
    each = tuple(base if other is None else other for other in projections.values())
    return ProjectedHead(weight=weight, bias=bias, projections=each)


def write_project(
    work: Path, base: Path, data: Path, tasks: tuple[str, ...], model: str, size: int, limit: int | None
) -> Path:
    """The project file around checkpoints and data."""
    most = "" if limit is None else f", limit: {limit}"
    lines = "\n".join(f"  {task}: {{data: {json.dumps(str((data / task).resolve()))}{most}}}" for task in tasks)
    text = (
        f"backbone:\n  name: {model}\n  checkpoint: {json.dumps(str(base.resolve()))}\n  image_size: {size}\n"
        f"  normalisation: {{mean: {list(CLIP_MEAN)}, std: {list(CLIP_STD)}}}\ntasks:\n{lines}\n"
        "search: {learning_rate: {adamw: [1.0e-6, 1.0e-4]}, batch_size: [1, 2]}\n"
    )
    path = work / "project.yaml"
    path.write_text(text)
    return path


def measure(
    problem: TuningProblem, heads: Mapping[str, LinearHead], run: Path, weights: Tensor, tasks: Sequence[str]
) -> dict[str, float]:
    """Test accuracy of every task; test images are in memory one task at a time."""
    found = {}
    for name in tasks:
        objective = ClassificationObjective(problem.merges.backbone, heads[name])
        found[name] = evaluate(objective, weights, open_test(run, name, reader="benchmark clip8")).accuracy
    return found


def run_table(
    checkpoints: Path,
    data: Path,
    work: Path,
    *,
    tasks: tuple[str, ...],
    model: str,
    size: int,
    labels: int,
    limit: int | None = None,
) -> dict[str, Any]:
    """Accuracy of x_0, the experts, merges by default and our tuned merges."""
    files, projections = convert_towers(checkpoints, work / "timm", ("base", *tasks), model, size)
    base, experts = files["base"], {name: files[name] for name in tasks}
    project = write_project(work, base, data, tasks, model, size, limit)
    prepare(load_project(project), work / "run", meter=CostMeter())
    opened = open_problem(base, experts, project)
    given = {name: read_head(checkpoints, name, opened.heads[name], projections) for name in tasks}

    def heads_at(row: FloatArray) -> dict[str, LinearHead]:
        return {name: opened.heads[name] if head is None else head.at(row) for name, head in given.items()}

    count, merges = len(tasks), opened.merges
    average = np.full(count, 1 / count)
    problem = replace(opened, heads=heads_at(average))  # where coefficients are tuned, the projection is the average's

    def row_of(coefficients: FloatArray, weights: Tensor, names: Sequence[str] = tasks) -> dict[str, float]:
        return measure(problem, heads_at(coefficients), work / "run", weights, names)

    rows: dict[str, dict[str, float]] = {"pretrained": row_of(np.zeros(count), merges.weights(np.zeros(count)))}
    rows["experts"] = {}
    for name, alone in zip(tasks, np.eye(count), strict=True):
        rows["experts"] |= row_of(alone, merges.weights(alone), [name])
    for label, method in FIXED.items():
        each = 1 / count if method == "average" else build_operator(method, {}).default_coefficient
        linear = "task_arithmetic" if method == "average" else method
        shares = np.full(count, each if linear == "task_arithmetic" else 1 / count)  # others' non-matrices: the mean
        rows[label] = row_of(shares, merges.by_operator(linear, np.full(count, each), seed=0, options={}))
    tuned = {
        "tuned on weights": tune_from_weights(base, experts, Settings()),
        "tuned on unlabelled images": tune_on_data(problem, Settings(labels=0)),
        f"tuned on {labels} labels a class": tune_on_data(problem, Settings(labels=labels)),
        "tuned on validation labels": tune_on_data(problem, Settings()),
    }
    for label, found in tuned.items():
        coefficients = np.array(list(found.coefficients.values()))
        rows[label] = row_of(coefficients, merges.weights(coefficients))
    return {
        "accuracy": rows,
        "mean": {label: 100 * float(np.mean(list(cells.values()))) for label, cells in rows.items()},
        "coefficients": {label: dict(found.coefficients) for label, found in tuned.items()},
        "heads": {name: "fitted on training images" if head is None else "given" for name, head in given.items()},
        "merges_measured": {label: found.merges for label, found in tuned.items()},
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkpoints", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--lineage", choices=[*PUBLISHED, "other"], required=True, help="whose checkpoints these are")
    parser.add_argument("--work", type=Path, default=Path("benchmarks/work/clip8"))
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--labels", type=int, default=5)
    parser.add_argument("--limit", type=int, help="images a task over all its splits; default: all")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    table = run_table(
        options.checkpoints,
        options.data,
        options.work,
        tasks=tuple(options.tasks),
        model=options.model,
        size=options.image_size,
        labels=options.labels,
        limit=options.limit,
    )
    is_standard = options.model == MODEL and set(options.tasks) == set(TASKS) and options.limit is None
    document = {
        "model": options.model,
        "lineage": options.lineage,
        "limit": options.limit,
        "published_same_lineage": PUBLISHED.get(options.lineage) if is_standard else None,
        **table,
    }
    options.out.write_text(json.dumps(document, indent=1) + "\n")
    for task in (task for task, origin in table["heads"].items() if origin != "given"):
        print(
            f"{task}: no {task}-head file; its head is fitted on training images, which the published tables do not do"
        )
    for label, value in table["mean"].items():
        print(f"{label:32s} {value:6.1f}")


if __name__ == "__main__":
    main()

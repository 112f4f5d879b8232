r"""The field's standard table: CLIP ViT-B/32 image towers fine-tuned on eight tasks, merged and tested.

    python -m benchmarks.clip8 --checkpoints CLIP --data DATA --lineage tall_mask --out clip8.json

    CLIP/base.safetensors (or .pt, ...), CLIP/<task>.safetensors      image towers
    CLIP/<task>-head.safetensors      weight [C, F] and bias [C]: text embeddings times the visual projection
    DATA/<task>/{train,validation,test}/<class>/*.jpg      or any folder of class folders, cut by the project

Neither weights nor images are downloaded; what is there is loaded by the product's own code (``advisor.preparing``,
``advisor.coefficients_problem``).  Checkpoints in open_clip's layout (``visual.*``) are converted by timm.  Features
are not normalised to unit length as CLIP does: no argmax changes by that, so accuracies compare, risks do not.

Published means (%, eight tasks) stand beside ours only for the same lineage of checkpoints: the three tables below use
different experts and must not be mixed (in TALL-mask's the DTD split is not comparable).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor

from advisor.coefficients import Settings, tune_from_weights, tune_on_data
from advisor.coefficients_problem import TuningProblem, open_problem, own_head, read_state
from advisor.merging.registry import build_operator
from advisor.preparing import prepare
from advisor.project import load_project
from estimators.cost import CostMeter
from estimators.objectives import ClassificationObjective, evaluate
from estimators.splits import open_test
from estimators.tasks import Split

FloatArray = NDArray[np.float64]
MODEL = "vit_base_patch32_clip_quickgelu_224"
TASKS = ("sun397", "cars", "resisc45", "eurosat", "svhn", "gtsrb", "mnist", "dtd")
CLIP_MEAN, CLIP_STD = (0.4815, 0.4578, 0.4082), (0.2686, 0.2613, 0.2758)
OPEN_CLIP = "visual.class_embedding"
ENDINGS = (".safetensors", ".pt", ".pth", ".bin")
PUBLISHED: dict[str, dict[str, float]] = {
    "paper": {"pretrained": 48.0, "average": 65.8, "task arithmetic": 69.1, "ties": 72.4, "AdaMerging": 80.1},
    "fusion_bench": {"pretrained": 48.2, "experts": 90.3, "average": 66.5, "task arithmetic": 68.0, "ties": 72.2},
    "tall_mask": {"pretrained": 48.3, "experts": 92.8, "average": 66.3, "task arithmetic": 70.8, "tsv_m": 85.9},
}
FIXED = {"average": "average", "task arithmetic": "task_arithmetic", "ties": "ties", "tsv_m": "tsv_m"}


def find_checkpoint(folder: Path, name: str) -> Path:
    """The file that holds a checkpoint."""
    for ending in ENDINGS:
        if (folder / f"{name}{ending}").is_file():
            return folder / f"{name}{ending}"
    raise FileNotFoundError(
        f"checkpoints={str(folder)!r} holds no {name}{{{','.join(ENDINGS)}}}; put the image tower there"
    )


def as_timm(source: Path, target: Path, model: str) -> Path:
    """The checkpoint in timm's layout: itself, or a converted copy at ``target``."""
    state = read_state(source, source.stem)
    if OPEN_CLIP not in state:
        return source
    network = timm.create_model(model, pretrained=False, num_classes=0)
    convert: Callable[..., Mapping[str, Tensor]] = timm.models.vision_transformer.checkpoint_filter_fn
    converted = convert(state, network)
    kept = {name: converted[name].contiguous() for name in network.state_dict()}
    target.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(kept, target)
    return target


def write_project(work: Path, base: Path, data: Path, tasks: tuple[str, ...], model: str, size: int) -> Path:
    """The project file around checkpoints and data."""
    lines = "\n".join(f"  {task}: {{data: {json.dumps(str((data / task).resolve()))}}}" for task in tasks)
    text = (
        f"backbone:\n  name: {model}\n  checkpoint: {json.dumps(str(base.resolve()))}\n  image_size: {size}\n"
        f"  normalisation: {{mean: {list(CLIP_MEAN)}, std: {list(CLIP_STD)}}}\ntasks:\n{lines}\n"
        "search: {learning_rate: {adamw: [1.0e-6, 1.0e-4]}, batch_size: [1, 2]}\n"
    )
    path = work / "project.yaml"
    path.write_text(text)
    return path


def measure(problem: TuningProblem, tests: Mapping[str, Split], weights: Tensor) -> dict[str, float]:
    """Test accuracy of every task."""
    found = {}
    for name, split in tests.items():
        objective = ClassificationObjective(problem.merges.backbone, problem.heads[name])
        found[name] = evaluate(objective, weights, split).accuracy
    return found


def run_table(
    checkpoints: Path, data: Path, work: Path, *, tasks: tuple[str, ...], model: str, size: int, labels: int
) -> dict[str, Any]:
    """Accuracy of x_0, the experts, merges by default and our tuned merges."""
    work.mkdir(parents=True, exist_ok=True)
    files = {
        name: as_timm(find_checkpoint(checkpoints, name), work / "timm" / f"{name}.safetensors", model)
        for name in ("base", *tasks)
    }
    base, experts = files["base"], {name: files[name] for name in tasks}
    project = write_project(work, base, data, tasks, model, size)
    prepared = prepare(load_project(project), work / "run", meter=CostMeter())
    opened = open_problem(base, experts, project)
    beside = {
        name: own_head(checkpoints / f"{name}.safetensors", opened.heads[name]) or opened.heads[name] for name in tasks
    }
    problem = replace(opened, heads=beside)
    tests = {task.name: open_test(work / "run", task.name, reader="benchmark clip8") for task in prepared.tasks}
    count, merges = len(tasks), problem.merges
    rows: dict[str, dict[str, float]] = {"pretrained": measure(problem, tests, merges.weights(np.zeros(count)))}
    rows["experts"] = {
        name: measure(problem, {name: tests[name]}, merges.weights(np.eye(count)[i]))[name]
        for i, name in enumerate(tasks)
    }
    for label, method in FIXED.items():
        each = 1 / count if method == "average" else build_operator(method, {}).default_coefficient
        linear = "task_arithmetic" if method == "average" else method
        rows[label] = measure(problem, tests, merges.by_operator(linear, np.full(count, each), seed=0, options={}))
    tuned = {
        "tuned on weights": tune_from_weights(base, experts, Settings()),
        "tuned on unlabelled images": tune_on_data(problem, Settings(labels=0)),
        f"tuned on {labels} labels a class": tune_on_data(problem, Settings(labels=labels)),
        "tuned on validation labels": tune_on_data(problem, Settings()),
    }
    for label, found in tuned.items():
        rows[label] = measure(problem, tests, merges.weights(np.array(list(found.coefficients.values()))))
    return {
        "accuracy": rows,
        "mean": {label: 100 * float(np.mean(list(cells.values()))) for label, cells in rows.items()},
        "coefficients": {label: dict(found.coefficients) for label, found in tuned.items()},
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
    )
    is_standard = options.model == MODEL and set(options.tasks) == set(TASKS)
    document = {
        "model": options.model,
        "lineage": options.lineage,
        "published_same_lineage": PUBLISHED.get(options.lineage) if is_standard else None,
        **table,
    }
    options.out.write_text(json.dumps(document, indent=1) + "\n")
    for label, value in table["mean"].items():
        print(f"{label:32s} {value:6.1f}")


if __name__ == "__main__":
    main()

"""Weigh finished experts of unknown history: how much of each, and is one merged model worth it?

    python examples/weigh_experts.py base.safetensors cars=cars.safetensors birds=birds.safetensors --out merged
    python examples/weigh_experts.py ... --data project.yaml --labels 5

Without data the answer rests on norms and overlaps of the weights alone.  With a project file whose tasks are named
like the experts, a few merges are measured on validation images: without labels (--labels 0), with so many a class, or
with all.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from advisor.coefficients import Labels, tune
from advisor.coefficients_result import TunedCoefficients
from advisor.merging import merge


def weigh(
    base: Path, experts: dict[str, Path], out: Path, *, data: Path | None = None, labels: Labels = "all"
) -> TunedCoefficients:
    """Choose coefficients, say what is known of them, and write the merged model."""
    tuned = tune(base, experts, data=data, labels=labels)
    print(f"from {tuned.source}, {tuned.merges} merges measured")
    for name, value in tuned.coefficients.items():
        low, high = tuned.intervals[name]
        print(f"  {name}: {value:.3f} [{low:.3f}, {high:.3f}]")
    for name, task in tuned.tasks.items():
        print(f"  {name}: {task.initial:.3f} before, {task.expert:.3f} its expert, {task.measured:.3f} merged")
    for sentence in (*tuned.verdicts, *tuned.notes):
        print(f"  {sentence}")
    if tuned.merge is False:
        print("  not merged: one model is not worth it")
    else:
        merge(base, experts, method=tuned.method, coefficients=dict(tuned.coefficients), out=out)
        print(f"  written to {out}")
    return tuned


def parse_expert(text: str) -> tuple[str, Path]:
    """name=path."""
    name, found, path = text.partition("=")
    if not (name and found and path):
        raise argparse.ArgumentTypeError(f"{text!r} must be name=path, like cars=cars.safetensors")
    return name, Path(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("base", type=Path)
    parser.add_argument("experts", nargs="+", type=parse_expert, metavar="name=path")
    parser.add_argument("--out", type=Path, default=Path("merged"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--labels", type=int)
    options = parser.parse_args()
    labels: Labels = "all" if options.labels is None else options.labels
    weigh(options.base, dict(options.experts), options.out, data=options.data, labels=labels)

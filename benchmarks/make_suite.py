"""Make a suite: train every recipe of a grid on every task, merge, evaluate, store.

    python -m benchmarks.make_suite PROJECT.yaml --grid GRID.yaml --out SUITE [--device cuda] [--seeds 0 1 2]

Can be stopped and started again: what is there is kept, chunk by chunk, under ``--work``.  Seeds can be made by
different processes; the tables are written whenever a process ends, from all seeds that are complete.
"""

from __future__ import annotations

import argparse
import platform
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import yaml

from advisor.project import Project, load_project
from benchmarks.suite_constants import measure_range_test, measure_suite_constants
from benchmarks.suite_grid import Grid
from benchmarks.suite_inputs import SuiteInputs, ensure_checkpoint, prepare_inputs
from benchmarks.suite_measuring import (
    Merger,
    Part,
    Samples,
    chunks_of,
    evaluation_samples,
    measure_chunk,
    recipe_key,
    train_chunk,
)
from benchmarks.suite_mixing import PoolEntry, measure_joint, measure_mixed, measure_subsets, usable
from benchmarks.suite_parts import chunk_name, read_experts, read_part, write_experts, write_part
from benchmarks.suite_writing import write_suite
from estimators.cost import full_fine_tune_units
from estimators.files import read_json, write_json
from estimators.recipe import Recipe

Say = Callable[[str], None]


def make_suite(
    project: Project,
    grid: Grid,
    out: Path,
    *,
    work: Path,
    seeds: tuple[int, ...],
    device: str | None = None,
    command: str = "",
    say: Say = print,
) -> None:
    """Measure what is missing of ``seeds`` and write the suite's tables.

    Args:
        project: backbone and tasks.
        grid: what to measure.
        out: folder of the suite's tables.
        work: folder of unfinished parts.
        seeds: seeds to complete now.
        device: overrides the project's.
        command: how the suite was made, stored with it.
        say: told of progress, a line at a time.
    """
    pretraining = ensure_checkpoint(project, grid.pretraining)
    for seed in seeds:
        make_seed(project, grid, work / f"seed-{seed}", seed=seed, device=device, say=say)
    done = [seed for seed in grid.seeds if (work / f"seed-{seed}" / "seed.json").exists()]
    if not done:
        return
    parts = {seed: _all_parts(work / f"seed-{seed}", grid) for seed in done}
    metadata: dict[str, Any] = {
        "command": command,
        "pretraining": pretraining,
        "environment": environment(),
        "project": yaml.safe_load(project.to_yaml()) | {"folder": "."},
    }
    records = {seed: read_json(work / f"seed-{seed}" / "seed.json") for seed in done}
    write_suite(out, grid, records, parts, metadata)
    say(f"{out.name}: wrote seeds {done}")


def make_seed(project: Project, grid: Grid, folder: Path, *, seed: int, device: str | None, say: Say) -> None:
    """Complete one seed under ``folder``."""
    started = time.perf_counter()
    inputs = prepare_inputs(project, folder / "prepared", seed=seed, device=device)
    samples = evaluation_samples(inputs, grid.evaluation)
    merger = Merger(inputs, samples, seed)
    initial = merger.initial_row()
    validation = {name: figures["validation"] for name, figures in initial.items()}
    say(f"seed {seed}: x_0 {sum(validation.values()) / len(validation):.4f} ({time.perf_counter() - started:.0f} s)")
    chunks = chunks_of(grid.recipes, len(inputs.names), grid.stack)
    for number, recipes in enumerate(chunks):
        path = folder / f"{chunk_name(recipes)}.json.gz"
        if not path.exists():
            part, experts = _measure(inputs, merger, grid, recipes, validation, seed)
            write_experts(path.with_suffix("").with_suffix(".safetensors"), experts)
            write_part(path, part)
            say(f"seed {seed}: chunk {number + 1} of {len(chunks)} ({time.perf_counter() - started:.0f} s)")
    _measure_rest(inputs, samples, merger, grid, folder, seed)
    full = full_fine_tune_units(len(inputs.names), grid.max_steps)
    constants = measure_suite_constants(
        inputs, folder / "constants.json", seed=seed, max_units=grid.constants_share * full
    )
    write_json(
        folder / "seed.json",
        {
            "seed": seed,
            "tasks": list(inputs.names),
            "num_samples": {task.name: len(task.train) for task in inputs.tasks},
            "num_classes": {task.name: task.num_classes for task in inputs.tasks},
            "num_parameters": int(inputs.backbone.initial.numel()),
            "evaluation": {name: getattr(samples[inputs.names[0]].sizes, name) for name in _SIZES},
            "initial": initial,
            "head_cost": inputs.head_cost,
            "fingerprint": inputs.fingerprint,
            "constants": constants,
            "range_test": measure_range_test(inputs, project, folder / "range_test.json", seed=seed),
        },
    )
    say(f"seed {seed}: done ({time.perf_counter() - started:.0f} s)")


_SIZES = ("probe", "validation", "test", "train")


def _measure(
    inputs: SuiteInputs, merger: Merger, grid: Grid, recipes: tuple[Recipe, ...], initial: dict[str, float], seed: int
) -> tuple[Part, dict[tuple[str, int, str], torch.Tensor]]:
    """Train and measure a chunk; also the experts that mixed plans may use."""
    results = train_chunk(inputs, grid, recipes, seed=seed)
    part = measure_chunk(merger, grid, results)
    kept: dict[tuple[str, int, str], torch.Tensor] = {}
    for recipe in recipes:
        runs = {result.run.task: result for result in results if result.run.recipe == recipe}
        for steps in set(grid.checkpoints_of(recipe)) & set(grid.mixed_steps):
            experts = {name: runs[name].checkpoints.get(steps) for name in inputs.names}
            if usable(part, recipe, steps, experts, initial):
                kept |= {
                    (recipe_key(recipe), steps, name): value for name, value in experts.items() if value is not None
                }
    return part, kept


def _measure_rest(
    inputs: SuiteInputs, samples: dict[str, Samples], merger: Merger, grid: Grid, folder: Path, seed: int
) -> None:
    """Mixed plans, subsets and joint training, once all chunks are there."""
    path = folder / f"rest-{grid.mixed}-{grid.subsets}-{len(grid.joint)}.json.gz"
    if path.exists():
        return
    pool = _pool(grid, folder, inputs)
    part = measure_mixed(merger, grid, pool)
    part.extend(measure_subsets(merger, grid, pool))
    part.extend(measure_joint(inputs, samples, grid, seed=seed))
    write_part(path, part)


def _pool(grid: Grid, folder: Path, inputs: SuiteInputs) -> list[PoolEntry]:
    """Stored experts in the order of the grid."""
    stored: dict[tuple[str, int, str], torch.Tensor] = {}
    for recipes in chunks_of(grid.recipes, len(inputs.names), grid.stack):
        stored |= read_experts(folder / f"{chunk_name(recipes)}.safetensors")
    pool = []
    for recipe in grid.recipes:
        for steps in grid.mixed_steps:
            experts = {
                n: stored[recipe_key(recipe), steps, n]
                for n in inputs.names
                if (recipe_key(recipe), steps, n) in stored
            }
            if len(experts) == len(inputs.names):
                pool.append(PoolEntry(recipe=recipe, steps=steps, experts=experts))
    return pool


def _all_parts(folder: Path, grid: Grid) -> Part:
    """Every row of a seed, in the order of the grid, then the rest."""
    whole = Part()
    names = read_json(folder / "seed.json")["tasks"]
    for recipes in chunks_of(grid.recipes, len(names), grid.stack):
        path = folder / f"{chunk_name(recipes)}.json.gz"
        if path.exists():
            whole.extend(read_part(path))
    for path in sorted(folder.glob("rest-*.json.gz")):
        whole.extend(read_part(path))
    return whole


def environment() -> dict[str, str]:
    """What the figures were computed with."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    import timm

    return {"python": platform.python_version(), "torch": torch.__version__, "timm": timm.__version__, "device": device}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("project", type=Path)
    parser.add_argument("--grid", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the suite's tables")
    parser.add_argument("--work", type=Path, default=None, help="folder of unfinished parts")
    parser.add_argument("--device", default=None)
    parser.add_argument("--seeds", type=int, nargs="*", default=None, help="seeds to complete now; default: the grid's")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    grid = Grid.from_mapping(yaml.safe_load(options.grid.read_text()), options.grid.parent)
    given = ["make_suite.py", options.project.name, "--grid", options.grid.name, "--out", options.out.name]
    make_suite(
        load_project(options.project),
        grid,
        options.out,
        work=options.work or Path(__file__).parent / "work" / options.out.name,
        seeds=tuple(grid.seeds if options.seeds is None else options.seeds),
        device=options.device,
        command=shlex.join(given),
        say=lambda line: print(line, flush=True),
    )


if __name__ == "__main__":
    torch.set_flush_denormal(True)  # of this process alone: whoever calls main() keeps its own arithmetic
    main()

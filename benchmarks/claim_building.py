"""Build the pool, unit by unit; everything finished is kept on disk, so a killed build goes on where it stopped.

WORK/<network>.safetensors, .yaml           x_0 and the project
WORK/<network>-<seed>/prepared, experts     splits and heads; experts and traces
WORK/<network>-<seed>/measured/<piece>.json rows
OUT/<network>-<seed>.json                   a unit's table, written when all its pieces are there
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.claim_design import MAIN, NETWORKS, Design
from benchmarks.claim_inputs import Unit, describe_unit, open_unit
from benchmarks.claim_measuring import expert_pieces, pieces
from benchmarks.claim_merging import Row, UnitMerger, stored_rows
from benchmarks.claim_methods import measure_methods
from benchmarks.claim_mixes import measure_mixes
from benchmarks.claim_tables import write_unit_table
from benchmarks.claim_training import read_run, train_run
from benchmarks.claim_twins import measure_twins

Say = Callable[[str], None]


def build(
    design: Design,
    work: Path,
    out: Path,
    *,
    command: str,
    device: str | None = None,
    networks: Sequence[str] = (),
    seeds: Sequence[int] = (),
    say: Say = print,
) -> None:
    """Build every unit of a design, or those that are named.

    Args:
        design: what to build.
        work: folder of checkpoints and unfinished pieces.
        out: folder of the tables.
        command: stored with the tables.
        device: ``cpu`` or ``cuda``; ``None`` takes the best there is.
        networks: only these.
        seeds: only these.
        say: told of progress, a line at a time.
    """
    for seed in seeds or design.seeds:
        for name in networks or design.networks:
            started = time.perf_counter()
            build_unit(design, name, seed, work, out, command=command, device=device, say=say)
            say(f"{name}-{seed}: done ({time.perf_counter() - started:.0f} s)")


def build_unit(
    design: Design, name: str, seed: int, work: Path, out: Path, *, command: str, device: str | None, say: Say
) -> None:
    """Build one unit and write its table."""
    unit = open_unit(name, NETWORKS[name], seed, work, device=device, say=say)
    folder = work / f"{name}-{seed}"
    experts, measured = folder / "experts", folder / "measured"
    smallest = min(len(task.train) for task in unit.inputs.tasks if task.name in MAIN)
    runs = design.runs(NETWORKS[name], unit.edge, smallest)
    for number, run in enumerate(runs):
        say(f"{name}-{seed}: run {number + 1} of {len(runs)}, {run.name}")
        train_run(unit, run, experts)
    expert_rows: list[Row] = []
    for piece in expert_pieces(unit, runs, experts):
        expert_rows += stored_rows(measured / f"{piece.name}.json", piece.make)
    merges: list[Row] = []
    waiting = pieces(design, unit, runs, experts)
    for number, piece in enumerate(waiting):
        if not (measured / f"{piece.name}.json").exists():
            say(f"{name}-{seed}: merges {number + 1} of {len(waiting)}, {piece.name}")
        merges += stored_rows(measured / f"{piece.name}.json", piece.make)
    table: dict[str, Any] = {
        "command": command,
        "environment": environment(unit),
        "design": design.name,
        **describe_unit(unit),
        "runs": {run.name: read_run(experts, run.name) for run in runs},
        "experts": expert_rows,
        "merges": merges,
        "twins": measure_twins(design, unit, measured, say) if {1, 2} & set(design.claims) else [],
    }
    if 6 in design.claims:
        merger = UnitMerger(unit, experts)
        table["methods"] = stored_rows(measured / "methods.json", lambda: measure_methods(design, merger))
    if 7 in design.claims:
        say(f"{name}-{seed}: mixes")
        table["mixes"] = stored_rows(measured / "mixes.json", lambda: measure_mixes(UnitMerger(unit, experts), table))
    write_unit_table(out / f"{name}-{seed}.json", table)


def environment(unit: Unit) -> dict[str, str]:
    """What the figures were computed with."""
    import timm

    device = unit.inputs.backbone.device
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
    }

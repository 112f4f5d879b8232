r"""How well the displacement law, fitted on probes, predicts ||tau|| of fine-tunes at least 8 times longer.

    python -m benchmarks.displacement_errors [SUITE ...]

Probes are those that the advisor's own design asks for, replayed from the stored suite.  Every traced step of every
expert run at least ``LONGER`` times as long as the longest probe is one prediction; runs that jumped over the stability
edge (measured more than e^``JUMP`` from the law before any fit) are counted apart.  Reported for each optimizer: median
|log(predicted/measured)|, its 90 % quantile, and the number of runs; written with the environment.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.displacement_law import JUMP, DisplacementLaw
from advisor.exposure import Exposure, TaskScales
from advisor.plan import Plan, PlanTable
from benchmarks.estimators import environment
from benchmarks.judge_advisor import replay_design
from benchmarks.suite_format import Suite, load_suite
from estimators.files import write_json

LONGER = 8
SUITES = (Path("benchmarks/suites/resnet-fashion"), Path("benchmarks/suites/vit-digits"))
OUT = Path("benchmarks/results/displacement-errors.json")


def errors_of(suite: Suite, seed: int) -> tuple[dict[str, list[float]], int]:
    """Optimizer -> log(predicted/measured) of every long checkpoint, and how many runs jumped."""
    replay = replay_design(suite, seed)
    constants = replay.data.constants
    scales = TaskScales.from_constants(constants).with_initial(replay.data.merges)
    fitted, prior = DisplacementLaw.fit(replay.data, scales), DisplacementLaw.prior(len(scales.names))
    found: dict[str, list[float]] = {}
    jumped = 0
    for (of_seed, number, task), trace in suite.traces.items():
        recipe = suite.recipes[number]
        if of_seed != seed or recipe.schedule != "constant":
            continue
        for step, moved in zip(trace.steps.tolist(), trace.squared_displacements.tolist(), strict=True):
            if step < LONGER * replay.longest or not (0 < moved < np.inf):
                continue
            plan = Plan.uniform(scales.names, recipe.replace(steps=step), 1.0)
            exposure = Exposure.of(PlanTable.from_plans([plan], constants.num_samples), scales)
            j = scales.names.index(task)
            if abs(0.5 * np.log(_squared(prior, exposure, scales)[j] / moved)) > JUMP:
                jumped += 1
                continue
            found.setdefault(recipe.optimizer, []).append(
                float(0.5 * np.log(_squared(fitted, exposure, scales)[j] / moved))
            )
    return found, jumped


def _squared(law: DisplacementLaw, exposure: Exposure, scales: TaskScales) -> NDArray[np.float64]:
    walk, drift = law.parts(exposure, scales)
    return np.asarray(walk[0] + drift[0])


def summary(values: list[float]) -> dict[str, float]:
    """Figures of log errors."""
    size = np.abs(values)
    return {
        "checkpoints": len(values),
        "median_abs_log_error": float(np.median(size)),
        "quantile_90": float(np.quantile(size, 0.9)),
        "median_log_error": float(np.median(values)),
    }


def main() -> None:
    """Measure and store."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("suites", nargs="*", type=Path, default=list(SUITES))
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    for path in options.suites:
        suite = load_suite(path)
        pooled: dict[str, list[float]] = {}
        jumps = 0
        for seed in suite.seeds:
            found, jumped = errors_of(suite, seed)
            jumps += jumped
            for name, values in found.items():
                pooled.setdefault(name, []).extend(values)
        figures[suite.name] = {name: summary(values) for name, values in pooled.items()} | {"jumped": jumps}
        print(suite.name, figures[suite.name], flush=True)
    command = " ".join(["python -m benchmarks.displacement_errors", *sys.argv[1:]])
    write_json(options.out, {"command": command, "environment": environment(), "longer": LONGER, "figures": figures})


if __name__ == "__main__":
    main()

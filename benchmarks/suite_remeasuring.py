"""Measure the constants at x_0 of stored suites again, as the advisor measures them now, without training anything.

    python -m benchmarks.suite_remeasuring benchmarks/suites/vit-digits ...

A suite keeps the constants that the estimators of its day gave.  Inputs are prepared again (``benchmarks/inputs``) and
must be those of the suite: the fingerprint of x_0 and the sizes of the splits have to agree.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from advisor.project import load_project
from benchmarks.suite_inputs import SuiteInputs, prepare_inputs
from estimators.cost import full_fine_tune_units
from estimators.files import read_json, write_json
from estimators.measuring import measure_constants

PROJECTS = Path(__file__).parent / "projects"
NOTE = "constants measured again, from weighted draws (benchmarks.suite_remeasuring)"


def measure_again(record: dict[str, Any], inputs: SuiteInputs, max_units: float) -> None:
    """Replace one seed's constants.

    Raises:
        ValueError: if the inputs are not those that the suite was made from.
    """
    if record["fingerprint"] != inputs.fingerprint:
        raise ValueError(f"seed={record['seed']}: x_0 is not the suite's; make its inputs with benchmarks.image_tasks")
    tasks = {task.name: task for task in inputs.tasks}
    sizes = {name: len(task.train) for name, task in tasks.items()}
    if sizes != record["num_samples"]:
        raise ValueError(f"seed={record['seed']}: splits of {sizes} samples, the suite has {record['num_samples']}")
    old = record["constants"]
    found = measure_constants(inputs.objectives, tasks, seed=record["seed"], max_units=max_units).to_json()
    for name in tasks:
        before, after = old["tasks"][name], found["tasks"][name]
        told = {
            field: f"{before[field]['value']:.3g} -> {after[field]['value']:.3g}"
            for field in ("initial_risk", "gradient_variance", "initial_gradient_norm", "top_curvature")
            if before.get(field) and after.get(field)
        }
        print(f"  seed {record['seed']} {name}: {told}", flush=True)
    record["constants"] = found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="+", type=Path)
    for folder in parser.parse_args().suites:
        path = folder / "suite.json"
        suite = read_json(path)
        print(folder.name)
        project = load_project(PROJECTS / f"{folder.name}.yaml")
        budget = suite["grid"]["constants_share"] * full_fine_tune_units(len(suite["tasks"]), suite["max_steps"])
        for record in suite["seeds"].values():
            with tempfile.TemporaryDirectory() as scratch:
                inputs = prepare_inputs(project, Path(scratch), seed=record["seed"], device="cpu")
                measure_again(record, inputs, budget)
        suite["notes"] = [*[note for note in suite.get("notes", []) if "measured again" not in note], NOTE]
        write_json(path, suite)


if __name__ == "__main__":
    main()

"""Measure x_0's risk of stored suites again, as the advisor measures it now, without training anything.

    python -m benchmarks.suite_initial_risk benchmarks/suites/vit-digits ...

Since the head's cross-validated losses count as draws of x_0's risk (``estimators.initial_gradient``), older suites
hold a risk from fewer samples than the advisor would have.  Inputs are prepared again (``benchmarks/inputs``); the old
figure must come out the same from the validation samples alone, or the suite is left as it is.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from advisor.project import load_project
from benchmarks.suite_inputs import SuiteInputs, prepare_inputs
from estimators.files import read_json, write_json
from estimators.initial_gradient import InitialRisk
from estimators.sampling import stable_seed

PROJECTS = Path(__file__).parent / "projects"
SAME = 1e-3  # relative; machines differ in the last digits
NOTE = "initial risks measured again, with the heads' cross-validated losses (benchmarks.suite_initial_risk)"


def measure_again(record: dict[str, Any], inputs: SuiteInputs) -> None:
    """Replace the initial risks and gaps of one seed's constants.

    Raises:
        ValueError: if the inputs are not those that the suite was made from.
    """
    if record["fingerprint"] != inputs.fingerprint:
        raise ValueError(f"seed={record['seed']}: x_0 is not the suite's; make its inputs with benchmarks.image_tasks")
    for task in inputs.tasks:
        fields = record["constants"]["tasks"][task.name]
        old = fields["initial_risk"]
        measuring = InitialRisk(
            num_samples=round(3 * old["cost"]),
            random_state=stable_seed("constants", record["seed"], task.name, "risk"),
        )
        objective = inputs.objectives[task.name]
        before = measuring.fit(objective, task.validation).losses_.mean().item()
        if old["num_samples"] == round(3 * old["cost"]) and abs(before / old["value"] - 1) > SAME:
            raise ValueError(f"task={task.name!r}: x_0's risk is {before:.4f}, the suite says {old['value']:.4f}")
        found = measuring.fit(objective, task.validation, further=task.held_out_losses)
        fields["initial_risk"], fields["initial_gap"] = asdict(found.estimate_), asdict(found.gap_)
        print(f"  seed {record['seed']} {task.name}: {old['value']:.3f} -> {found.estimate_.value:.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="+", type=Path)
    for folder in parser.parse_args().suites:
        path = folder / "suite.json"
        suite = read_json(path)
        print(folder.name)
        project = load_project(PROJECTS / f"{folder.name}.yaml")
        for record in suite["seeds"].values():
            with tempfile.TemporaryDirectory() as scratch:
                measure_again(record, prepare_inputs(project, Path(scratch), seed=record["seed"], device="cpu"))
        suite["notes"] = [*suite.get("notes", []), NOTE]
        write_json(path, suite)


if __name__ == "__main__":
    main()

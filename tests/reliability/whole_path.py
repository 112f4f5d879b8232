"""The whole path of the tiny project as one command, and what it leaves: results to compare to the last bit."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from tests.reliability.run_server import Server
from tests.reliability.tiny_project import numbers

JSON_RESULTS = ("constants", "range_test", "probe_data", "risk_model", "recommendation", "validation", "report")
WEIGHTS = ("experts/low.safetensors", "experts/high.safetensors", "merged/model.safetensors", "backbone.safetensors")


@dataclass(frozen=True)
class WholePath:
    """An uninterrupted run to compare with, and the server that runs commands."""

    server: Server
    folder: Path
    seconds: float
    writes: int
    steps: int
    results: dict[str, Any]

    @property
    def run(self) -> Path:
        """The run directory."""
        return self.folder / "whole"

    def differing(self, out: Path) -> set[str]:
        """Names of results that are not the same, to the last bit, in another run."""
        found = results(out)
        return {name for name in found if found[name] != self.results[name]}


def command(server: Server, folder: Path, out: str, **kill: Any) -> dict[str, Any]:
    """The whole path; ``--anyway`` because the advice of so small a project may be a refusal."""
    return server.order(folder, "run", "project.yaml", "--out", out, "--anyway", **kill)


def results(out: Path) -> dict[str, Any]:
    """Everything a run found: JSON without what the clock says, and the bytes of all weights.

    Weights are compared tensor by tensor, since the safetensors library orders a header's metadata by chance.
    """
    found: dict[str, Any] = {name: numbers(json.loads((out / f"{name}.json").read_text())) for name in JSON_RESULTS}
    for name in WEIGHTS:
        found |= {f"{name}:{key}": value.numpy().tobytes() for key, value in load_file(out / name).items()}
    return found


def file_names(folder: Path) -> set[str]:
    """Relative names of all files below a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}

"""Runs in every state, made in a second: a fitted model of quadratic tasks, hand-made advice, tiny experts."""

import contextlib
import json
from pathlib import Path

import numpy as np
import safetensors.numpy

from advisor.goal import Goal
from advisor.observations import ProbeData
from advisor.risk_model import RiskModel
from advisor.run_log import encode_record
from advisor.runs import RunDirectory
from tests.advisor.advice_samples import plan, recommendation, validation
from tests.advisor.quadratic_merges import QuadraticWorld

NAMES = ("a", "b", "c")
PROJECT = """\
backbone: {name: test_resnet, in_chans: 1, image_size: 16}
tasks: {a: builtin/digits-low, b: builtin/digits-high, c: builtin/digits-even}
search: {learning_rate: {sgd: [0.001, 0.1]}, batch_size: [8, 32], steps: [5, 320]}
"""


def probe_record(data: ProbeData) -> dict[str, object]:
    """One line of ``probes.jsonl``."""
    return {
        "recipe": data.traces[0].recipe.to_json(),
        "traces": [trace.to_json() for trace in data.traces[: len(NAMES)]],
        "merges": [merge.to_json() for merge in data.merges[:5]],
        "outcomes": {**dict.fromkeys(NAMES, "finished"), "a": "diverged"},
        "cost": 960.0,
        "seconds": 1.0,
    }


def write_finished(path: Path, world: QuadraticWorld, probes: ProbeData, model: RiskModel) -> RunDirectory:
    """A run whose whole path is there."""
    run = RunDirectory.create(path.parent, "sample", path=path)
    with run.writing("run"):
        run.write_text("project.yaml", PROJECT)
        run.write_json("probe_data.json", probes.to_json())
        for _ in range(3):
            run.append("probes.jsonl", probe_record(probes))
        run.write_json("risk_model.json", model.to_json())
        advice = recommendation(world.names, plan=plan(world.names, rate=0.01, steps=80))
        run.write_json("recommendation.json", advice.to_json())
        base = {"w": np.ones((8, 8), dtype=np.float32), "bias": np.ones(8, dtype=np.float32)}
        generator = np.random.default_rng(0)
        run.write_bytes("backbone.safetensors", safetensors.numpy.save(base))
        for name in world.names:
            moved = {k: v + 0.1 * generator.standard_normal(v.shape).astype(np.float32) for k, v in base.items()}
            run.write_bytes(f"experts/{name}.safetensors", safetensors.numpy.save(moved))
        run.write_bytes("merged/model.safetensors", safetensors.numpy.save(base))
        run.write_text("merged/README.md", "# Merged model\n")
        stored = {"validation": validation(world.names).to_json(), "identity": {}, "spent": {}}
        run.write_json("validation.json", stored)
        run.write_text("report.json", json.dumps({"schema": "merge-advisor/report/1"}))
        run.write_text("report.html", "<!doctype html><title>report</title>")
    return run


def write_begun(path: Path, probes: ProbeData, *, ended: type[BaseException] | None) -> RunDirectory:
    """A run with two probes that then ended with an error, or whose writer is asked of the caller (``None``)."""
    run = RunDirectory.create(path.parent, "sample", path=path)
    with contextlib.suppress(ValueError, KeyboardInterrupt), run.writing("run"):
        run.write_text("project.yaml", PROJECT)
        for _ in range(2):
            run.append("probes.jsonl", probe_record(probes))
        if ended is not None:
            raise ended("learning_rate=9 is too large; lower it" if ended is ValueError else "")
    return run


def make_huge(run: RunDirectory, probes: ProbeData, *, trials: int = 5000, lines: int = 1000) -> None:
    """Give a finished run the logs of a long one."""
    with (run.path / "events.jsonl").open("ab") as file:
        for k in range(trials):
            record = {"time": "2026-11-22T06:00:00.000+00:00", "kind": "progress", "stage": "advice", "done": k}
            file.write(encode_record({**record, "total": trials}))
        file.write(encode_record({"time": "2026-11-22T07:00:00.000+00:00", "kind": "finished", "command": "run"}))
    line = encode_record(probe_record(probes))
    with (run.path / "probes.jsonl").open("ab") as file:
        file.write(line * lines)
    trial = json.dumps({"op_code": 4, "study_id": 0, "datetime_start": "2026-11-22T06:00:00", "params": "x" * 400})
    (run.path / "study.journal").write_text((trial + "\n") * trials, encoding="utf-8")
    many = probes.with_merges(probes.merges * max(1, trials // len(probes.merges)))
    run.write_json("probe_data.json", many.to_json())


def goal() -> Goal:
    """Equal weights."""
    return Goal(weights=dict.fromkeys(NAMES, 1.0))

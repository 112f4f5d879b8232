"""A pipeline that answers at once with hand-made values, for tests of the command line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from advisor import cli, pipeline
from tests.advisor import advice_samples as samples

PROJECT = """\
backbone: {name: test_resnet, in_chans: 1, image_size: 16}
tasks:
  low: {data: builtin/digits-low}
  high: {data: builtin/digits-high}
search: {learning_rate: {sgd: [1.0e-3, 1.0]}, batch_size: [8, 32], steps: [20, 80]}
"""
NAMES = ("low", "high")


class FakePipeline:
    """Stages that note that they were called and return samples."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.called: list[str] = []
        self.advice = samples.recommendation(NAMES)
        self.validation = samples.validation(NAMES)
        self.during: Callable[[str, Any], None] = lambda stage, ws: None
        for stage in ("probe", "recommend", "refit", "train", "merge", "validate", "report", "run_all"):
            monkeypatch.setattr(pipeline, stage, self._stage(stage))

    def _stage(self, stage: str) -> Callable[[Any], Any]:
        def do(ws: Any) -> Any:
            self.called.append(stage)
            ws.progress(stage, 1, 2)
            self.during(stage, ws)
            ws.progress(stage, 2, 2)
            ws.run.write_json("recommendation.json", self.advice.to_json())
            return {
                "probe": lambda: samples.probe_data(NAMES),
                "recommend": lambda: self.advice,
                "refit": lambda: self.advice,
                "train": lambda: {name: ws.run.path / f"experts/{name}.safetensors" for name in NAMES},
                "merge": lambda: ws.run.path / "merged/model.safetensors",
                "validate": lambda: self.validation,
                "run_all": lambda: self.validation,
                "report": lambda: ws.run.path / "report.html",
            }[stage]()

        return do


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakePipeline:
    return FakePipeline(monkeypatch)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project file in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "project.yaml"
    path.write_text(PROJECT)
    return path


class Ran:
    """What a command did: its exit code and what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: object) -> None:
        capsys.readouterr()
        self.code = cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        self.out, self.err = captured.out, captured.err
        self.said = " ".join(self.err.split())

import re
import subprocess
import sys
from pathlib import Path

import pytest

from advisor import cli
from advisor.run_ids import program_version
from tests.advisor.cli_fakes import FakePipeline, Ran, fake, project

__all__ = ["fake", "project"]

COMMANDS = [
    "run",
    "demo",
    "init",
    "check",
    "probe",
    "recommend",
    "predict",
    "train",
    "merge",
    "validate",
    "report",
    "app",
    "runs",
    "stop",
]

IMPORTS = """
import sys
from advisor.cli import main
for arguments in (["--help"], ["--version"], *([name, "--help"] for name in sys.argv[1:])):
    assert main(arguments) == 0, arguments
heavy = {"torch", "optuna", "timm", "sklearn", "plotly", "streamlit", "scipy"} & set(sys.modules)
print("heavy:", sorted(heavy), file=sys.stderr)
"""


def test_help_of_every_command_loads_no_heavy_library() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS, *COMMANDS], capture_output=True, text=True, check=True)
    assert "heavy: []" in done.stderr
    assert all(name in done.stdout for name in COMMANDS)


def test_the_commands_are_these() -> None:
    assert [command.callback.__name__ for command in cli.app.registered_commands if command.callback] == COMMANDS


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    ran = Ran(capsys, "--version")
    assert (ran.code, ran.out) == (0, f"merge-advisor {program_version()}\n")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["run"], "Missing argument"),
        (["run", "p.yaml", "--max-cost", "none"], "must be a number of per-sample gradients above 0"),
        (["run", "p.yaml", "--max-cost", "-1"], "must be a number of per-sample gradients above 0"),
        (["run", "p.yaml", "--time-limit", "soon"], "'soon' must be a duration such as 30m"),
        (["run", "p.yaml", "--time-limit", "0"], "must be longer than nothing"),
        (["run", "p.yaml", "--seed", "-1"], "'--seed'"),
        (["run", "p.yaml", "--sede", "1"], "--sede"),
        (["walk"], "No such command"),
        (["run", "missing.yaml"], "missing.yaml"),
        (["report", "missing"], "run='missing' is not a run directory"),
    ],
)
def test_bad_arguments_end_with_2_and_no_traceback(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str], project: Path
) -> None:
    ran = Ran(capsys, *arguments)
    assert ran.code == 2
    assert text in ran.said
    assert "Traceback" not in ran.err
    assert ran.out == ""
    assert not (project.parent / "runs").exists()


def test_tracebacks_are_for_debugging(fake: FakePipeline, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(stage: str, ws: object) -> None:
        raise KeyError("surprise")

    fake.during = fail
    ran = Ran(capsys, "run", project)
    assert ran.code == 1
    assert "unexpected KeyError: 'surprise'; run the command again with --debug" in ran.said
    assert "Traceback" not in ran.err
    ran = Ran(capsys, "run", project, "--debug")
    assert (ran.code, "Traceback" in ran.err) == (1, True)


def test_the_manual_names_every_command_and_no_option_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    manual = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    helps = "".join(Ran(capsys, name, "--help").out for name in COMMANDS)
    known = set(re.findall(r"--[a-z][a-z-]+", helps))
    assert set(re.findall(r"--[a-z][a-z-]+", manual)) <= known
    assert all(re.search(rf"(`|merge-advisor ){name}\b", manual) for name in COMMANDS)

"""A run begun on one side is watched, stopped and continued on the other: real workers, the command line and pages."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from advisor.run_listing import summarise
from advisor.runs import RunDirectory
from app import jobs
from tests.app.app_server import HOME
from tests.app.conftest import Open, texts
from tests.reliability.tiny_project import PROJECT, write_project

pytestmark = pytest.mark.slow
PATIENCE = 240.0  # seconds; a whole run takes a few on a quiet machine


def until(is_so: Callable[[], bool], what: str) -> None:
    """Wait for another process."""
    end = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "advisor.cli", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(HOME), "OMP_NUM_THREADS": "1"}


def state(run: Path) -> str:
    return summarise(run).state if (run / "run.json").is_file() else "none"


def test_run_begun_on_the_command_line_is_watched_and_stopped_on_a_page_and_continued_there(
    open_page: Open, tmp_path: Path
) -> None:
    root = tmp_path / "both"
    root.mkdir()
    # steps enough that the stop comes before the end
    project = write_project(
        tmp_path / "made", PROJECT.replace("[4, 24]", "[4, 3000]").replace("probes: 2", "probes: 6")
    )
    run = root / "shared"
    typed = subprocess.Popen(
        command("run", project, "--out", run, "--quiet"),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    until(lambda: state(run) == "running" and (run / "probes.jsonl").exists(), "the command line begins")
    at = open_page("probe", "shared", folder=root)
    assert "▶ running" in texts(at)
    at.button(key="stop").click().run()
    said, _ = typed.communicate(timeout=PATIENCE)
    assert typed.returncode != 0
    assert b"stopped on request (asked in the app)" in said
    at = open_page("probe", "shared", folder=root)
    assert "‖ interrupted" in texts(at)
    probes = (run / "probes.jsonl").read_bytes()
    at.radio(key="command").set_value("probe").run()
    at.button(key="go_on").click().run()
    assert not at.exception
    until(lambda: state(run) == "running", "the page's worker begins")
    listed = subprocess.run(command("runs", root, "--json"), env=environment(), capture_output=True, check=True)
    assert [entry["state"] for entry in json.loads(listed.stdout)] == ["running"]
    subprocess.run(command("stop", run, "--quiet"), env=environment(), check=True)
    until(lambda: state(run) in ("interrupted", "finished"), "the command line stops it")
    until(lambda: not jobs.is_alive(root, "shared"), "the worker is gone")
    assert (run / "probes.jsonl").read_bytes().startswith(probes)  # what was done is kept
    at = open_page("probe", "shared", folder=root)
    assert "‖ interrupted" in texts(at)
    assert "merge-advisor stop" in texts(at).replace("\\", "")


def test_run_begun_on_a_page_is_finished_on_the_command_line(open_page: Open, tmp_path: Path) -> None:
    root = tmp_path / "both"
    root.mkdir()
    run_id = jobs.run_project(root, write_project(tmp_path / "made"), "tiny", command="probe")
    run = root / run_id
    until(lambda: (run / "probe_data.json").exists() and not jobs.is_alive(root, run_id), "the page's worker ends")
    assert jobs.last_words(root, run_id).startswith("$ merge-advisor probe")
    before = (run / "probes.jsonl").read_bytes()
    done = subprocess.run(command("run", run, "--anyway", "--quiet"), env=environment(), capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert (run / "probes.jsonl").read_bytes() == before
    assert summarise(run).is_complete
    for page in ("recommend", "validate", "merge"):
        at = open_page(page, run_id, folder=root)
        assert not at.exception
        assert not at.error or page in ("recommend", "validate")  # there an error says refused or fail
    assert RunDirectory.open(run).has("report.html")

"""A second process on a run is refused by name; several processes on one study share it and lose nothing."""

import os
import subprocess
import sys
from pathlib import Path

from advisor.runs import RunDirectory
from studies.recipes import search_recipes
from studies.storage import StudyStorage
from tests.reliability.whole_path import WholePath, command
from tests.studies.plan_problems import make_space, quadratic_risk

OPTIONS = {"seed": 5, "trials": 48, "batch": 8, "sweep": 128}
WORK = """
import sys
from pathlib import Path
from studies.recipes import search_recipes
from studies.storage import StudyStorage
from tests.reliability.test_two_at_once import OPTIONS
from tests.studies.plan_problems import make_space, quadratic_risk

sys.stdin.readline()
storage = StudyStorage(path=Path(sys.argv[1]), fingerprint="p")
print(search_recipes(make_space(), quadratic_risk, storage=storage, **OPTIONS).best.goal)
"""


def test_a_second_process_on_a_run_is_refused_by_name_and_changes_nothing(whole: WholePath) -> None:
    run = RunDirectory.open(whole.run)
    before = (whole.run / "manifest.json").read_bytes()
    with run.writing("test"):
        answer = command(whole.server, whole.folder, "whole")
    assert answer["status"] == 2
    said = " ".join(answer["said"].split())
    assert f"is being written by process {os.getpid()} on" in said
    assert "wait for it, stop it, watch it with the app, or choose another --out" in said
    assert (whole.run / "manifest.json").read_bytes() == before


def test_three_processes_on_one_study_find_what_one_finds_and_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", WORK, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(3)
    ]
    ends = [worker.communicate("go\n", timeout=300) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0], ends
    assert not any("locked" in err for _, err in ends)
    alone = search_recipes(make_space(), quadratic_risk, **OPTIONS)  # type: ignore[arg-type]
    assert {out.strip() for out, _ in ends} == {str(alone.best.goal)}
    storage = StudyStorage(path=path, fingerprint="p")
    again = search_recipes(make_space(), quadratic_risk, storage=storage, **OPTIONS)  # type: ignore[arg-type]
    assert again.best == alone.best
    assert again.evaluations.goal.tolist() == alone.evaluations.goal.tolist()

"""A second process on a run is refused by name; several processes on one study share it and lose nothing."""

import os
import subprocess
import sys
from pathlib import Path

import optuna

from advisor.runs import RunDirectory
from studies.recipes import search_recipes
from studies.storage import StudyStorage
from tests.reliability.whole_path import WholePath, command
from tests.studies.plan_problems import make_space, quadratic_risk

OPTIONS = {"seed": 5, "trials": 48, "batch": 8, "sweep": 128}
WORK = """
import os
import signal
import sys
from pathlib import Path
from studies.recipes import search_recipes
from studies.storage import StudyStorage
from tests.reliability.test_two_at_once import OPTIONS
from tests.studies.plan_problems import make_space, quadratic_risk

calls, dies_at = 0, int(sys.argv[2])


def risk(plans):
    global calls
    calls += 1
    if calls == dies_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return quadratic_risk(plans)


sys.stdin.readline()
storage = StudyStorage(path=Path(sys.argv[1]), fingerprint="p")
print(search_recipes(make_space(), risk, storage=storage, **OPTIONS).best.goal)
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
    workers, ends = worked(path, 0, 0, 0)
    assert [worker.returncode for worker in workers] == [0, 0, 0], ends
    assert not any("locked" in err for _, err in ends)
    check_study(path, {out.strip() for out, _ in ends})


def test_a_worker_that_dies_in_a_trial_takes_nothing_from_the_others(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    workers, ends = worked(path, 0, 3, 0)  # the second is killed in its third evaluation
    assert [worker.returncode for worker in workers] == [0, -9, 0], ends
    assert not any("locked" in err for _, err in ends)
    check_study(path, {ends[0][0].strip(), ends[2][0].strip()})
    backend = optuna.storages.journal.JournalFileBackend(str(path))
    study = optuna.load_study(study_name="recipes", storage=optuna.storages.JournalStorage(backend))
    assert {trial.state for trial in study.trials} == {optuna.trial.TrialState.COMPLETE}  # none is left running


def worked(path: Path, *die_at: int) -> tuple[list[subprocess.Popen[str]], list[tuple[str, str]]]:
    """Processes that search one study at the same time, and what each said; ``die_at`` is the evaluation it dies in."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", WORK, str(path), str(dies_at)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for dies_at in die_at
    ]
    return workers, [worker.communicate("go\n", timeout=300) for worker in workers]


def check_study(path: Path, found: set[str]) -> None:
    """The study holds what one process alone finds, to the last bit and trial."""
    alone = search_recipes(make_space(), quadratic_risk, **OPTIONS)  # type: ignore[arg-type]
    assert found == {str(alone.best.goal)}
    storage = StudyStorage(path=path, fingerprint="p")
    again = search_recipes(make_space(), quadratic_risk, storage=storage, **OPTIONS)  # type: ignore[arg-type]
    assert again.best == alone.best
    assert again.evaluations.goal.tolist() == alone.evaluations.goal.tolist()

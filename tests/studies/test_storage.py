from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from studies.journal import CorruptStudyError, checksum
from studies.knobs import Axis, Knob
from studies.recipes import search_recipes
from studies.samplers import frozen_trial
from studies.storage import ForeignStudyError, Record, StudyStorage, mark_stale, open_study
from tests.studies.plan_problems import make_space, quadratic_risk

FEW: dict[str, Any] = {"trials": 12, "batch": 4, "sweep": 256}
KNOBS = (Knob(name="x", field="x", axes=(Axis(low=0.0, high=1.0),)),)


def journal(folder: Path, **changes: Any) -> StudyStorage:
    return StudyStorage(**({"path": folder / "study.log", "fingerprint": "project-1"} | changes))


def search(storage: StudyStorage | None = None) -> Any:
    return search_recipes(make_space(), quadratic_risk, seed=5, storage=storage, **FEW)


def record(key: str = "trial-000000", goal: float = 1.0) -> Record:
    return Record(key=key, kind="sampler", unit=(0.25,), goal=goal, low=0.5, high=1.5, violation=-1.0, cost=3.0)


def test_a_record_survives_json_infinity_included() -> None:
    diverged = Record(key="k", kind="sweep", unit=(0.1, 0.2), goal=np.inf, low=-np.inf, high=np.inf, violation=2.0)
    for one in (record(), diverged):
        assert Record.from_json(json.loads(json.dumps(one.to_json(), allow_nan=False))) == one


def test_a_stored_study_opens_with_optuna_itself(tmp_path: Path) -> None:
    found = search(journal(tmp_path))
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.log"))
    study = optuna.load_study(study_name="recipes", storage=optuna.storages.JournalStorage(backend))
    assert len(study.trials) == found.trials
    assert {trial.state for trial in study.trials} == {optuna.trial.TrialState.COMPLETE}
    assert study.best_value == pytest.approx(found.best.goal)
    assert study.best_params["learning_rate"] == pytest.approx(found.parameters["learning_rate"])
    assert all("violation" in trial.constraints for trial in study.trials)


def test_a_database_holds_the_same_study(tmp_path: Path) -> None:
    storage = StudyStorage(url=f"sqlite:///{tmp_path / 'study.db'}", fingerprint="project-1")
    first = search(storage)
    again = search(storage)
    assert first.best == again.best == search().best
    assert first.trials == again.trials


def test_trials_left_running_by_another_program_are_marked(tmp_path: Path) -> None:
    opened = open_study(journal(tmp_path), settings={})
    opened.study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    reopened = open_study(journal(tmp_path), settings={})
    assert any("trials [0]" in note and "marked failed" in note for note in reopened.notes)
    assert reopened.study.trials[0].state == optuna.trial.TrialState.FAIL
    assert mark_stale(reopened.study) == ()


def test_a_journal_of_another_project_or_other_settings_is_refused(tmp_path: Path) -> None:
    open_study(journal(tmp_path), settings={"seed": 1, "ranges": (1, 2)})
    open_study(journal(tmp_path), settings={"seed": 1, "ranges": (1, 2)})
    with pytest.raises(ForeignStudyError, match="choose another run directory"):
        open_study(journal(tmp_path, fingerprint="project-2"), settings={"seed": 1, "ranges": (1, 2)})
    with pytest.raises(ForeignStudyError, match=r"other settings \(ranges, seed differ\)"):
        open_study(journal(tmp_path), settings={"seed": 2, "ranges": (1, 3)})


def damage(path: Path, number: int, how: str) -> None:
    """Flip a bit of a line's goal, garble it, or cut the file inside it; lines count from 1."""
    lines = path.read_bytes().splitlines(keepends=True)
    line = lines[number - 1]
    if how == "flip":
        place = line.index(b'"goal":') + 12
        digit = b"7" if line[place : place + 1] != b"7" else b"3"
        lines[number - 1] = line[:place] + digit + line[place + 1 :]
    elif how == "misspell":  # a flipped letter outside the checksum's reach
        lines[number - 1] = line.replace(b"FloatDistribution", b"FloatDistRibution", 1)
    elif how == "garble":
        lines[number - 1] = b"\x00\xff" + line[2:]
    else:
        lines = [*lines[: number - 1], line[: len(line) // 2]]
    path.write_bytes(b"".join(lines))


@pytest.mark.parametrize("how", ["flip", "garble", "cut", "misspell"])
@pytest.mark.parametrize("number", [5, 12, 20])
def test_a_damaged_line_is_named_and_its_trial_alone_is_redone(tmp_path: Path, how: str, number: int) -> None:
    whole = search(journal(tmp_path))
    path = tmp_path / "study.log"
    before = path.read_bytes()
    damage(path, number, how)
    again = search(journal(tmp_path))
    assert again.best == whole.best
    assert again.trials == whole.trials
    assert any(f"line {number} of study.log" in caveat for caveat in again.caveats)
    assert (tmp_path / "study.log.damaged-1").exists()
    clean = search(journal(tmp_path))
    assert clean.caveats == ()
    assert len(path.read_bytes().splitlines()) == len(before.splitlines())


def test_one_flipped_bit_anywhere_is_mended_or_refused_by_name(tmp_path: Path) -> None:
    whole = search(journal(tmp_path))
    path = tmp_path / "study.log"
    before, rng = path.read_bytes(), np.random.default_rng(0)
    for place in rng.integers(0, 8 * len(before), 80):
        data = bytearray(before)
        data[place // 8] ^= 1 << int(place % 8)
        for left in tmp_path.glob("study.log*"):
            left.unlink()
        path.write_bytes(data)
        said, again = "", None
        try:
            again = search(journal(tmp_path))
        except (CorruptStudyError, ForeignStudyError) as error:
            said = str(error)
        assert "study" in said if again is None else again.best == whole.best, place


def test_without_repair_a_damaged_line_is_an_error_that_names_it(tmp_path: Path) -> None:
    search(journal(tmp_path))
    damage(tmp_path / "study.log", 7, "flip")
    with pytest.raises(CorruptStudyError, match="line 7 of study file .* is damaged; open it with repair=True"):
        search(journal(tmp_path, repair=False))


def test_a_study_whose_first_line_is_lost_is_refused_with_the_way_on(tmp_path: Path) -> None:
    search(journal(tmp_path))
    damage(tmp_path / "study.log", 1, "garble")
    with pytest.raises(CorruptStudyError, match="line 1 of study file .* later lines rest on it; move the file away"):
        search(journal(tmp_path))


def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "study.log").write_text('{"op_code": 2, "study_id": 3}\n')
    with pytest.raises(CorruptStudyError, match="cannot be replayed"):
        search(journal(tmp_path))


def test_a_trial_that_does_not_match_its_checksum_is_left_out_and_named(tmp_path: Path) -> None:
    opened = open_study(StudyStorage(url=f"sqlite:///{tmp_path / 's.db'}", fingerprint="p"), settings={})
    good, bad = record(), record("trial-000001")
    for one in (good, bad):
        trial = frozen_trial(KNOBS, one, objectives=1, ceiling=0.0, meta=True)
        if one is bad:
            trial.set_user_attr("checksum", "0" * 64)
        opened.add(trial)
    found, notes = opened.records()
    assert found == {good.key: good}
    assert notes == ("trial 1 of study 'recipes' was damaged and is redone",)
    assert checksum(good.to_json()) == checksum(dict(reversed(good.to_json().items())))


def test_the_study_file_holds_no_pickle(tmp_path: Path) -> None:
    """CMA-ES of Optuna would keep its state as one."""
    search_recipes(make_space(), quadratic_risk, seed=5, storage=journal(tmp_path), sampler="cmaes", **FEW)
    assert "cma:" not in (tmp_path / "study.log").read_text()


KILLED = """
import sys
from pathlib import Path
from studies.recipes import search_recipes
from studies.storage import StudyStorage
from tests.studies.plan_problems import make_space, quadratic_risk
storage = StudyStorage(path=Path(sys.argv[1]), fingerprint="project-1")
print("ready", flush=True)
search_recipes(make_space(), quadratic_risk, seed=5, storage=storage, trials=48, batch=4, sweep=256)
print("done", flush=True)
"""


def test_a_process_killed_at_any_moment_leaves_a_study_that_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    moments = np.random.default_rng(0).uniform(0.0, 0.6, size=3)
    for moment in moments:
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, env=environment)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(float(moment))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for left in tmp_path.glob("*.lock"):
            left.unlink()  # a lock held at the kill is broken after ten seconds; the test does not wait for that
    options: dict[str, Any] = {"seed": 5, "trials": 48, "batch": 4, "sweep": 256}
    again = search_recipes(make_space(), quadratic_risk, storage=journal(tmp_path), **options)
    assert again.best == search_recipes(make_space(), quadratic_risk, **options).best


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": None}, "give exactly one of a journal file and a database URL"),
        ({"url": "sqlite://"}, "give exactly one of a journal file and a database URL"),
        ({"fingerprint": ""}, "fingerprint='' must not be empty"),
        ({"name": ""}, "name='' must not be empty"),
        ({"heartbeat_seconds": 0}, "heartbeat_seconds=0 must be at least 1"),
    ],
)
def test_a_storage_that_makes_no_sense_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        journal(tmp_path, **changes)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the folder of a study file must exist; create"):
        search(journal(tmp_path / "absent"))

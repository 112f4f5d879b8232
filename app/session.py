"""What one visitor looks at: the folder of runs, the run in the address, and values read from it.

The run's id stands in the address (``?run=...``), so that a reload, a second tab or a restarted server shows the same
run; the session remembers it when a page is changed.  Nothing else in the address names a file.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import streamlit as st

from advisor.advice import Recommendation, Validation
from advisor.exploring import Explorer
from advisor.fitted_model import MODEL_NAME, PROBE_DATA_NAME, load_fitted
from advisor.goal import Goal
from advisor.observations import MergeObservation
from advisor.project import Project, load_project
from advisor.risk_model import ProbesDiverged, TooFewProbes
from advisor.run_ids import is_run_id
from advisor.runs import NotARun, RunDirectory, is_run
from advisor.workspace import MERGES_NAME

ENTRY = "main.py"
ROOT_KEY, RUN_KEY = "root", "run"
DEMO_RUN = "run-seed-0"
MOST_MERGES = 1000  # more cannot be told apart in a figure
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The run that the address names.

    Attributes:
        id: as in the address; empty where none is chosen.
        root: the folder it lies in.
        run: the run, or ``None`` where there is none (yet).
        problem: why it cannot be opened; empty otherwise.
    """

    id: str
    root: Path
    run: RunDirectory | None
    problem: str = ""


def roots() -> tuple[Path, ...]:
    """Folders of runs: the one that the app was started for, then the demo's."""
    if ROOT_KEY not in st.session_state:
        given = sys.argv[1:] if Path(sys.argv[0]).name == ENTRY else []
        if given and is_run(given[0]):
            path = Path(given[0]).resolve()
            st.session_state[ROOT_KEY] = path.parent
            st.session_state.setdefault(RUN_KEY, path.name)
        else:
            st.session_state[ROOT_KEY] = Path("runs").resolve()
    root = Path(st.session_state[ROOT_KEY])
    demo = root.parent / ".demo"
    return (root,) if demo == root else (root, demo)


def demo_root() -> Path:
    """The demo's folder."""
    return roots()[-1]


def choose(run_id: str | None) -> None:
    """Put a run into the address, or none."""
    st.session_state[RUN_KEY] = run_id or ""
    if run_id:
        st.query_params["run"] = run_id
    elif "run" in st.query_params:
        del st.query_params["run"]


def chosen() -> Chosen:
    """The run in the address; where a page was changed and the address lost it, the one looked at before."""
    folders = roots()
    run_id = st.query_params.get("run") or str(st.session_state.get(RUN_KEY, ""))
    if not run_id:
        return Chosen(id="", root=folders[0], run=None)
    if not is_run_id(run_id):
        return Chosen(id="", root=folders[0], run=None, problem=f"run={run_id!r} is not the id of a run")
    choose(run_id)
    problem = ""
    for root in folders:
        try:
            return Chosen(id=run_id, root=root, run=RunDirectory.find(root, run_id))
        except NotARun:
            continue
        except ValueError as error:  # it is there, but cannot be read
            return Chosen(id=run_id, root=root, run=None, problem=str(error))
    root = folders[-1] if run_id == DEMO_RUN else folders[0]
    return Chosen(id=run_id, root=root, run=None, problem=problem)


def project_of(run: RunDirectory) -> Project:
    """The run's project."""
    return load_project(run.require("project.yaml"))


def recommendation_of(run: RunDirectory) -> Recommendation | None:
    """The run's advice, once there is one; a damaged one raises ``DamagedArtefact``."""
    if run.condition("recommendation.json") == "absent":
        return None
    return _recommendation(str(run.path), *stamp(run, "recommendation.json"))


def validation_of(run: RunDirectory) -> Validation | None:
    """Predicted against measured, once there is something."""
    if run.condition("validation.json") == "absent":
        return None
    return _read(str(run.path), "validation.json", lambda content: Validation.from_json(content["validation"]))


def merges_of(run: RunDirectory) -> tuple[MergeObservation, ...]:
    """The last ``MOST_MERGES`` merges that the run's probes measured, once they are all done."""
    if run.condition(PROBE_DATA_NAME) == "absent":
        return ()
    return _merges(str(run.path), *stamp(run, PROBE_DATA_NAME))


def explorer_of(run: RunDirectory) -> Explorer | None:
    """The run's fitted model, ready for questions; ``None`` before advice and where the probes allow no fit."""
    return _fitted(run)[0]


def refit_note(run: RunDirectory) -> str:
    """Why the stored model could not be used and was fitted again; empty if it was used."""
    return _fitted(run)[1]


def _fitted(run: RunDirectory) -> tuple[Explorer | None, str]:
    names = (MODEL_NAME, PROBE_DATA_NAME, MERGES_NAME, "project.yaml")
    if run.condition("recommendation.json") == "absent" and run.condition(MODEL_NAME) == "absent":
        return None, ""
    return _explorer(str(run.path), tuple(stamp(run, name) for name in names))


def goal_of(run: RunDirectory) -> Goal:
    """The project's goal."""
    project = project_of(run)
    objective = project.objective
    return Goal(weights=project.task_weights(), kind=objective.goal, max_drop=objective.max_drop)


def stamp(run: RunDirectory, name: str) -> tuple[int, int]:
    """What changes when an artefact is written anew."""
    try:
        status = run.path_of(name).stat()
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_size


@st.cache_resource(max_entries=8, show_spinner=False)
def _recommendation(path: str, written: int, size: int) -> Recommendation:
    return _read(path, "recommendation.json", Recommendation.from_json)


@st.cache_resource(max_entries=4, show_spinner="Reading the probes")
def _merges(path: str, written: int, size: int) -> tuple[MergeObservation, ...]:
    def decode(content: dict[str, Any]) -> tuple[MergeObservation, ...]:
        return tuple(MergeObservation.from_json(item) for item in content["merges"][-MOST_MERGES:])

    return _read(path, PROBE_DATA_NAME, decode)


@st.cache_resource(max_entries=4, show_spinner="Reading the risk model")
def _explorer(path: str, stamps: tuple[tuple[int, int], ...]) -> tuple[Explorer | None, str]:
    run = RunDirectory.open(path)
    try:
        found = load_fitted(run, project_of(run))
    except (ProbesDiverged, TooFewProbes):  # that is why the advice is refused, and its sentence says so
        return None, ""
    return Explorer(found.model, goal_of(run)), found.refitted


def _read(path: str, name: str, decode: Callable[[dict[str, Any]], Value]) -> Value:
    """An artefact as a value; one whose form this version does not know is refused in words."""
    content = RunDirectory.open(path).read_json(name)
    try:
        return decode(content)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{name} of run {Path(path).name!r} is not in the form of this version ({type(error).__name__}: {error}); "
            f"delete {name} and go on with the run: it is made again"
        ) from None

"""A folder with a run in every state, made once."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from advisor.observations import ProbeData
from advisor.risk_model import RiskModel
from advisor.runs import RunDirectory
from tests.advisor.quadratic_merges import QuadraticWorld
from tests.app.browsing import launched
from tests.app.run_samples import make_huge, write_begun, write_finished

MAIN = Path(__file__).parents[2] / "app" / "main.py"
Open = Callable[..., AppTest]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    with launched() as found:
        yield found


@pytest.fixture(scope="session")
def world() -> QuadraticWorld:
    return QuadraticWorld.drawn()


@pytest.fixture(scope="session")
def probes(world: QuadraticWorld) -> ProbeData:
    return world.probes()


@pytest.fixture(scope="session")
def model(probes: ProbeData) -> RiskModel:
    return RiskModel().fit(probes)


@pytest.fixture(scope="session")
def made_runs(
    tmp_path_factory: pytest.TempPathFactory, world: QuadraticWorld, probes: ProbeData, model: RiskModel
) -> Path:
    root = tmp_path_factory.mktemp("app") / "runs"
    write_finished(root / "finished", world, probes, model)
    write_begun(root / "failed", probes, ended=ValueError)
    write_begun(root / "interrupted", probes, ended=KeyboardInterrupt)
    corrupted = write_finished(root / "corrupted", world, probes, model)
    advice = corrupted.path / "recommendation.json"
    advice.write_text(advice.read_text(encoding="utf-8")[:-200], encoding="utf-8")
    unreadable = write_begun(root / "unreadable", probes, ended=None)
    (unreadable.path / "run.json").write_text("{", encoding="utf-8")
    make_huge(write_finished(root / "huge", world, probes, model), probes)
    return root


@pytest.fixture
def root(made_runs: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    shutil.copytree(made_runs, tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture
def running(root: Path, probes: ProbeData) -> Iterator[RunDirectory]:
    """A run that this process writes to."""
    run = write_begun(root / "running", probes, ended=None)
    with run.writing("run"):
        run.tell(stage="probes", done=30, total=120)
        run.event("progress", stage="probes", done=30, total=120, recipe="sgd")
        run._heartbeat.beat()
        yield run


@pytest.fixture
def open_page(root: Path) -> Open:
    """Opens a page on a run: ``open_page("probe", "failed")``."""
    st.cache_resource.clear()

    def opened(page: str, run: str | None = None, *, folder: Path | None = None) -> AppTest:
        at = AppTest.from_file(str(MAIN), default_timeout=120)
        at.session_state["root"] = folder or root
        if run is not None:
            at.query_params["run"] = run
        if page != "set_up":
            at.switch_page(f"views/{page}.py")
        return at.run()

    return opened


def texts(at: AppTest) -> str:
    """Everything that the page says, one piece a line."""
    kinds = (*at.markdown, *at.caption, *at.error, *at.warning, *at.info, *at.success, *at.title, *at.subheader)
    return "\n".join([str(element.value) for element in kinds] + [str(t.value.to_dict()) for t in at.table])

"""A run that an older version wrote opens, is shown, predicted and reported; a newer one is refused with the way on.

``golden_run`` was written by version 0.1.0 before models had numbers of versions; weights and samples are left out.
"""

import json
import shutil
from pathlib import Path

import pytest

from advisor.advice import Recommendation, Validation
from advisor.observations import ProbeData
from advisor.run_listing import summarise
from advisor.run_schemas import WrongSchema
from advisor.runs import RunDirectory
from estimators.constants import Constants
from tests.reliability.fuzzing import ran

GOLDEN = Path(__file__).parent / "golden_run"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    shutil.copytree(GOLDEN, tmp_path / "old")
    return tmp_path / "old"


def test_every_value_of_an_old_run_is_read(old: Path) -> None:
    run = RunDirectory.open(old)
    assert run.damaged() == ()
    assert summarise(old).state == "finished"
    advice = Recommendation.from_json(run.read_json("recommendation.json"))
    assert advice.plan.names == ("low", "high")
    assert len(advice.caveats) > 0
    assert Validation.from_json(run.read_json("validation.json")["validation"]).models[0].name == "advised merge"
    assert Constants.from_json(run.read_json("constants.json")["constants"]).names == ("low", "high")
    assert len(ProbeData.from_json(run.read_json("probe_data.json")).merges) > 0


def test_plans_are_predicted_on_an_old_run_with_a_model_fitted_again(old: Path) -> None:
    code, said = ran(old.parent, "predict", "old")
    assert code == 0, said


def test_an_old_run_is_reported_again(old: Path) -> None:
    code, said = ran(old.parent, "report", "old")
    assert code == 0, said
    assert (old / "report.html").exists()


def test_a_newer_piece_is_refused_with_the_way_on(old: Path) -> None:
    run = RunDirectory.open(old)
    stored = json.loads((old / "recommendation.json").read_text())
    run.write_text("recommendation.json", json.dumps(stored | {"schema": "merge-advisor/recommendation/99"}))
    with pytest.raises(WrongSchema, match="version=99 of recommendation.json is newer .* upgrade merge-advisor"):
        run.read_json("recommendation.json")
    code, said = ran(old.parent, "predict", "old")
    assert code == 2
    assert "upgrade merge-advisor" in " ".join(said.split())

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from advisor.advice import Recommendation, Validation
from advisor.report import Report, check_report, report_schema, write_report
from advisor.runs import RunDirectory
from estimators.constants import Constants
from tests.advisor import advice_samples as samples


def report(names: tuple[str, ...] = samples.NAMES, **changes: Any) -> Report:
    values: dict[str, Any] = {
        "title": "Digits",
        "run_id": "20261122-060000-digits",
        "recommendation": samples.recommendation(names),
        "constants": samples.constants(names),
        "validation": samples.validation(names),
        "cost": {"heads": 300.0, "probes": 12_000.0},
        "seconds": {"probes": 30.0},
        "curves": tuple(samples.curve(knob, names) for knob in ("learning_rate", "coefficient")),
        "probes": samples.probe_data(names),
    }
    return Report(**{**values, **changes})


def test_the_schema_is_a_json_schema_and_holds_every_field_of_the_values() -> None:
    schema = report_schema()
    Draft202012Validator.check_schema(schema)
    assert set(schema["properties"]) == {"schema", "recommendation", "constants", "validation", "cost"}
    for name, value in (("recommendation", Recommendation), ("validation", Validation), ("constants", Constants)):
        assert set(schema["$defs"][name]["properties"]) == set(value.__dataclass_fields__)


@pytest.mark.parametrize("changes", [{}, {"validation": None, "probes": None, "curves": (), "cost": {}}])
def test_a_report_keeps_its_schema_and_its_values_come_back(changes: dict[str, Any], tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, "p")
    made = report(**changes)
    page = write_report(run, made)
    content = json.loads((run.path / "report.json").read_text())
    check_report(content)
    assert list(content) == ["schema", "recommendation", "constants", "validation", "cost"]
    assert content["schema"] == "merge-advisor/report/1"
    assert Recommendation.from_json(content["recommendation"]) == made.recommendation
    assert Constants.from_json(content["constants"]) == made.constants
    assert content["cost"]["total"] == sum(made.cost.values())
    assert page == run.path / "report.html"
    assert all(run.has(name) for name in ("report.json", "report.md", "report.html"))


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda c: c.update(extra=1), "the top level"),
        (lambda c: c.pop("cost"), "the top level"),
        (lambda c: c["recommendation"].update(status="maybe"), "recommendation.status"),
        (lambda c: c["recommendation"]["goal"].update(value="0.3"), "recommendation.goal.value"),
        (lambda c: c["cost"].update(total=-1), "cost.total"),
    ],
)
def test_what_breaks_the_schema_is_named_with_its_place(change: Any, place: str) -> None:
    content = json.loads(json.dumps(report().to_json()))
    change(content)
    with pytest.raises(ValueError, match=f"breaks its schema at {place}"):
        check_report(content)


def test_markdown_holds_the_advice_and_shows_names_as_text() -> None:
    text = report((samples.EVIL, "b")).to_markdown()
    assert "Train every task with SGD at learning rate 0.012" in text
    assert "| goal | 0.950 | 0.375 | 0.338 to 0.431 |" in text
    assert "<script" not in text.replace("\\<", "")
    widths = {line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("| b |")}
    assert widths  # a name with a bar would tear its row

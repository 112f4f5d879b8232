import json
import math
from pathlib import Path

import pytest
import yaml

from advisor.project import Project
from benchmarks import claim_text
from benchmarks.claim_text import (
    CLAIM,
    PROJECT,
    TASKS,
    default_recipe,
    fortunes,
    measure,
    read_table,
    shown,
    statistics,
    verdict,
    write_tasks,
)
from estimators.text_files import text_catalogue

AGAIN = "Another saying, long enough."
FILE = f"A saying that has\ntwo lines of text.\n%\nToo short.\n%\n{AGAIN}\n%\n{AGAIN}\n%\n"


def stored(seed: int, *, status: str = "advise", plan: float = 0.5, high: float = 0.6) -> dict:
    return {
        "seed": seed,
        "status": status,
        "goals": {"plan": plan, "pretrained": 1.0, "average: BERT": 0.8},
        "predicted": {"value": 0.55, "low": 0.45, "high": high},
        "plan": {"recipes": {"a": {"learning_rate": 1e-4, "batch_size": 8, "steps": 40}}},
        "costs": {"probes": 100.0, "experts": 20.0},
    }


def test_fortunes_are_split_at_percent_lines_and_count_once(tmp_path: Path) -> None:
    (tmp_path / "wise").write_text(FILE)
    assert fortunes(tmp_path / "wise") == ["A saying that has two lines of text.", AGAIN]
    with pytest.raises(ValueError, match="is not there; install the Debian packages fortunes and fortunes-es"):
        fortunes(tmp_path / "absent")


def test_tasks_are_tables_that_the_product_reads(tmp_path: Path) -> None:
    for name in ("one", "two.fortunes"):
        (tmp_path / name).write_text(FILE.replace("saying", name))
    write_tasks(tmp_path / "data", tasks={"a": ("one", "two.fortunes")}, root=tmp_path)
    assert text_catalogue(tmp_path / "data" / "a.jsonl").counts() == {"one": 2, "two": 2}


def test_the_project_is_one_and_holds_the_tasks(tmp_path: Path) -> None:
    project = Project.from_mapping(yaml.safe_load(yaml.safe_dump(PROJECT)), origin=tmp_path)
    assert set(project.tasks) == set(TASKS)
    assert project.backbone.kind == "transformers"
    assert default_recipe().steps == project.search.steps[1]


def test_statistics_are_those_of_the_claim_by_hand() -> None:
    found = statistics({"seeds": {"0": stored(0), "1": stored(1, plan=0.7)}})
    assert set(found) == {part.key for part in CLAIM.parts}
    assert found["gain"] == pytest.approx({("MiniLM", 0): math.log(0.5), ("MiniLM", 1): math.log(0.7)})
    assert found["default"]["MiniLM", 0] == pytest.approx(math.log(0.5 / 0.8))
    assert found["predicted"]["MiniLM", 0] == pytest.approx(math.log(0.55 / 0.5))
    assert found["interval"] == {("MiniLM", 0): 1.0, ("MiniLM", 1): 0.0}


def test_the_verdict_is_that_of_the_shared_rules() -> None:
    seeds = {str(seed): stored(seed, plan=plan) for seed, plan in enumerate((0.5, 0.52, 0.54))}
    found = verdict({"seeds": seeds})
    assert {part.part.key: part.outcome for part in found.parts} == dict.fromkeys(
        ("gain", "default", "predicted", "interval"), "holds"
    )
    worse = {key: value | {"goals": value["goals"] | {"plan": 1.1 + int(key) / 50}} for key, value in seeds.items()}
    assert verdict({"seeds": worse}).outcome == "does not hold"
    assert verdict({"seeds": dict(list(seeds.items())[:2])}).outcome == "not decidable"


def test_the_page_shows_every_seed(tmp_path: Path) -> None:
    found = shown({"seeds": {str(seed): stored(seed) for seed in (1, 0)}})
    assert [row[0] for row in found.rows] == ["0", "1"]
    assert found.rows[0][1:] == [
        "advise",
        "0.0001, 8, 40",
        "1.0000",
        "0.8000",
        "0.5000",
        "0.5500 [0.450, 0.600]",
        "120",
    ]
    assert len(found.head) == len(found.rows[0])
    assert [list(line.y) for line in found.panels[0].lines[:3]] == [[1.0, 1.0], [0.8, 0.8], [0.5, 0.5]]
    assert read_table(tmp_path / "absent.json") is None


def test_who_is_told_not_to_merge_keeps_the_pretrained_encoder() -> None:
    found = statistics({"seeds": {"0": stored(0, status="refuse", plan=2.0)}})
    assert found["gain"]["MiniLM", 0] == 0.0
    assert found["default"]["MiniLM", 0] == pytest.approx(math.log(1.0 / 0.8))
    assert found["predicted"]["MiniLM", 0] == pytest.approx(math.log(0.55 / 2.0))


def test_stored_seeds_are_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[int] = []

    def measure_seed(_: Path, seed: int) -> dict:
        measured.append(seed)
        return stored(seed)

    monkeypatch.setattr(claim_text, "measure_seed", measure_seed)
    monkeypatch.setattr(claim_text, "write_tasks", lambda _: None)
    monkeypatch.setattr(claim_text, "environment", lambda: {"python": "3"})
    result = tmp_path / "text.json"
    measure(tmp_path, [0, 1], result)
    table = measure(tmp_path, [0, 1, 2], result)
    assert measured == [0, 1, 2]
    assert table == json.loads(result.read_text())
    assert len(statistics(table)["gain"]) == 3

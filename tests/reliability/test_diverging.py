"""Probes that all diverge, through the whole path: advice is refused with the reason, nothing of them is lost."""

import json
from pathlib import Path

from advisor.run_log import read_log
from tests.reliability.test_kill_and_go_on import check_after_kill
from tests.reliability.tiny_project import PROJECT, numbers, write_project
from tests.reliability.whole_path import WholePath

HOT = PROJECT.replace("[1.0e-7, 1.0e-2]", "[1.0e+4, 1.0e+5]").replace("steps: [4, 24]", "steps: [24, 48]")
REFUSED = 3


def probes(out: Path) -> list[dict[str, object]]:
    """Probes of a run, in order, without what the clock says."""
    records = read_log(out / "probes.jsonl").records
    return [numbers({k: v for k, v in record.items() if k != "seconds"}) for record in records if "recipe" in record]


def advice(out: Path) -> dict[str, object]:
    """The stored advice."""
    found: dict[str, object] = numbers(json.loads((out / "recommendation.json").read_text()))
    return found


def test_probes_that_all_diverge_are_kept_refuse_advice_and_survive_a_kill(whole: WholePath, tmp_path: Path) -> None:
    write_project(tmp_path, HOT)
    answer = whole.server.order(tmp_path, "run", "project.yaml", "--out", "hot")
    said = " ".join(answer["said"].split())
    assert answer["status"] == REFUSED, said
    assert "Traceback" not in said
    kept = probes(tmp_path / "hot")
    assert len(kept) >= 1
    assert all(set(probe["outcomes"].values()) == {"diverged"} for probe in kept)  # type: ignore[attr-defined]
    assert advice(tmp_path / "hot")["status"] == "refuse"
    assert (tmp_path / "hot" / "report.html").exists()
    # asked again: the same answer from what is there, without a step of training
    again = whole.server.order(tmp_path, "run", "project.yaml", "--out", "hot")
    assert (again["status"], again["steps"]) == (REFUSED, 0)
    assert probes(tmp_path / "hot") == kept
    # killed inside the last diverging probe: the same probes and the same refusal, no step done twice
    killed = whole.server.order(
        tmp_path, "run", "project.yaml", "--out", "killed", snapshots=0.0, kill_at_step=answer["steps"] - 1
    )
    assert killed["status"] == -9
    check_after_kill(tmp_path / "killed")
    rest = whole.server.order(tmp_path, "run", "project.yaml", "--out", "killed")
    assert rest["status"] == REFUSED
    assert killed["steps"] + rest["steps"] == answer["steps"]
    assert probes(tmp_path / "killed") == kept
    assert advice(tmp_path / "killed") == advice(tmp_path / "hot")

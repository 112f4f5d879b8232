import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.interrupts import RunInterrupted
from advisor.run_lock import RunBusy, read_heartbeat
from advisor.run_manifest import DamagedArtefact
from advisor.runs import ArtefactMissing, NotARun, RunDirectory, is_run


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "runs", "Digits")


def kinds(run: RunDirectory) -> list[str]:
    return [event["kind"] for event in run.events().records]


def test_a_run_is_made_opened_and_found_by_its_id(run: RunDirectory) -> None:
    assert run.id.endswith("-digits")
    assert RunDirectory.open(run.path).about == run.about
    assert RunDirectory.find(run.path.parent, run.id).about["project"] == "Digits"
    assert json.loads((run.path / "run.json").read_text())["schema"] == "merge-advisor/run/1"


@pytest.mark.parametrize("run_id", ["..", "../runs", "/etc", "a/b", "", "missing"])
def test_an_id_that_is_no_run_is_refused(run: RunDirectory, run_id: str) -> None:
    with pytest.raises(NotARun, match=r"is not (the id of a run|a run directory)"):
        RunDirectory.find(run.path.parent, run_id)


def test_a_link_is_not_followed_to_a_run(run: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "linked").symlink_to(run.path)
    with pytest.raises(NotARun, match="linked"):
        RunDirectory.find(tmp_path / "other", "linked")


def test_a_folder_with_other_content_is_never_taken_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(NotARun, match="exists and is not a run directory; choose another --out"):
        RunDirectory.create(tmp_path, "p", path=tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]
    made = RunDirectory.create(tmp_path, "p", path=tmp_path / "new" / "deep")
    assert made.id == "deep"
    assert is_run(tmp_path / "new" / "deep")


def test_json_comes_back_without_its_schema_and_damage_is_named(run: RunDirectory) -> None:
    run.write_json("constants.json", {"a": [1, 2.5, None]})
    assert run.read_json("constants.json") == {"a": [1, 2.5, None]}
    text = (run.path / "constants.json").read_text()
    assert text.startswith('{\n  "schema": "merge-advisor/constants/1"')
    (run.path / "constants.json").write_text(text.replace("2.5", "3.5"))
    with pytest.raises(DamagedArtefact, match=r"constants\.json.*checksum.*made again"):
        run.read_json("constants.json")
    assert run.damaged() == ("constants.json",)
    run.discard("constants.json")
    with pytest.raises(ArtefactMissing, match=r"has no whole constants\.json yet; make it first: merge-advisor probe "):
        run.read_json("constants.json")
    assert run.damaged() == ()


def test_a_file_that_was_not_recorded_counts_as_missing(run: RunDirectory) -> None:
    (run.path / "experts").mkdir()
    (run.path / "experts" / "a.safetensors").write_bytes(b"half")
    assert run.condition("experts/a.safetensors") == "unrecorded"
    with pytest.raises(ArtefactMissing, match="experts/a.safetensors"):
        run.require("experts/a.safetensors")
    run.record("experts/a.safetensors")
    assert run.has("experts/a.safetensors")


@pytest.mark.parametrize("name", ["../x.json", "/tmp/x.json", "a/../../x", "", "a\\b"])
def test_no_name_leads_out_of_the_run(run: RunDirectory, name: str) -> None:
    with pytest.raises(ValueError, match="leads out of run"):
        run.write_text(name, "x")


def test_a_link_inside_the_run_does_not_lead_out(run: RunDirectory, tmp_path: Path) -> None:
    (run.path / "data").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="leads out of run"):
        run.write_text("data/x.txt", "x")


def test_the_schema_key_is_the_runs_own(run: RunDirectory) -> None:
    with pytest.raises(ValueError, match="must not hold the key 'schema'"):
        run.write_json("a.json", {"schema": 1})


def test_writing_tells_start_and_end_and_leaves_no_lock(run: RunDirectory) -> None:
    with run.writing("run"), run.writing("probe"):
        run.tell(stage="probe", done=1, total=2)
        writer = run.writer()
        assert writer is not None
        assert (writer.pid, writer.command) == (os.getpid(), "run")
        with pytest.raises(RunBusy, match=str(os.getpid())), RunDirectory.open(run.path).writing("validate"):
            pass
    assert run.writer() is None
    assert kinds(run) == ["started", "finished"]
    assert read_heartbeat(run.path)["pid"] == os.getpid()


@pytest.mark.parametrize(
    ("error", "kind"),
    [(ValueError("bad"), "failed"), (RunInterrupted("asked"), "interrupted"), (KeyboardInterrupt(), "interrupted")],
)
def test_how_a_command_ended_is_in_the_events(run: RunDirectory, error: BaseException, kind: str) -> None:
    with pytest.raises(type(error)), run.writing("run"):  # noqa: PT012, PT011
        raise error
    last = run.events().records[-1]
    assert (last["kind"], last["error"], last["text"]) == (kind, type(error).__name__, str(error))
    assert run.writer() is None


def test_a_request_to_stop_is_seen_and_forgotten_by_the_next_writer(run: RunDirectory) -> None:
    assert run.stop_requested() is None
    with run.writing("run"):
        RunDirectory.open(run.path).request_stop("the button")
        assert run.stop_requested() == "the button"
    with run.writing("run"):
        assert run.stop_requested() is None


@pytest.mark.parametrize("damage", ["", "{", None])
def test_a_lost_manifest_is_rebuilt_by_the_next_writer_and_said(run: RunDirectory, damage: str | None) -> None:
    run.write_json("constants.json", {"a": 1})
    manifest = run.path / "manifest.json"
    manifest.unlink() if damage is None else manifest.write_text(damage)
    with run.writing("run"):
        assert run.read_json("constants.json") == {"a": 1}
    assert kinds(run) == ["manifest_rebuilt", "started", "finished"]
    assert run.damaged() == ()


def test_a_run_is_renamed_and_removed_but_not_while_it_is_written(run: RunDirectory) -> None:
    assert run.label == run.id
    run.rename("  My <b>run</b> ")
    assert RunDirectory.open(run.path).label == "My <b>run</b>"
    with pytest.raises(ValueError, match="1 to 100 printable"):
        run.rename("\n")
    with run.writing("run"), pytest.raises(RunBusy, match="stop it before you delete it"):
        run.remove()
    run.remove()
    assert not run.path.exists()


def test_logs_of_the_run_are_checked_lines(run: RunDirectory) -> None:
    run.append("probes.jsonl", {"probe": 1})
    assert run.read_log("probes.jsonl").records == ({"probe": 1},)


@settings(max_examples=100, deadline=None)
@given(name=st.sampled_from(["run.json", "constants.json", "manifest.json"]), data=st.binary(max_size=60))
def test_any_content_of_any_file_gives_a_clear_error_or_the_truth(
    name: str, data: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    run = RunDirectory.create(folder, "p", path=folder / "r")
    run.write_json("constants.json", {"a": 1})
    (run.path / name).write_bytes(data)
    error = ""
    value = None
    try:
        value = RunDirectory.open(run.path).read_json("constants.json")
    except ValueError as caught:
        error = str(caught)
    assert value == {"a": 1} or name in error

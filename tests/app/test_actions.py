"""What people do on pages: stop, go on, explore, pin, merge, rename, delete, set up."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy

from advisor.advice import Recommendation
from advisor.runs import RunDirectory
from app import jobs
from tests.app.conftest import Open, texts

Started = list[tuple[Path, str, tuple[str, ...]]]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    """Workers that would have been started."""
    calls: Started = []

    def start(root: Path, run_id: str, arguments: Any) -> None:
        calls.append((root, run_id, tuple(arguments)))

    monkeypatch.setattr(jobs, "start", start)
    return calls


def test_stop_leaves_a_request_that_the_writer_reads(open_page: Open, running: RunDirectory) -> None:
    at = open_page("probe", "running")
    at.button(key="stop").click().run()
    assert running.stop_requested() == "asked in the app"
    assert "Asked to stop" in texts(at)


def test_go_on_starts_the_command_line_that_people_type(open_page: Open, root: Path, started: Started) -> None:
    open_page("probe", "interrupted").button(key="go_on").click().run()
    place = str(root / "interrupted")
    assert started == [(root, "interrupted", ("run", place, "--out", place, "--quiet"))]


def test_a_stop_that_was_asked_for_elsewhere_is_said_on_the_page(open_page: Open, running: RunDirectory) -> None:
    running.request_stop("merge-advisor stop")
    at = open_page("probe", "running")
    assert "Asked to stop (merge\\-advisor stop)" in texts(at)
    assert "stop" not in [button.key for button in at.button]


@pytest.mark.parametrize(("page", "key"), [("validate", "validate"), ("probe", "go_on")])
def test_refused_advice_is_trained_only_after_saying_so(
    open_page: Open, root: Path, started: Started, page: str, key: str
) -> None:
    run = RunDirectory.open(root / "finished")
    advice = Recommendation.from_json(run.read_json("recommendation.json"))
    run.write_json("recommendation.json", dataclasses.replace(advice, status="refuse").to_json())
    for name in ("validation.json", "report.json"):
        run.discard(name)
    at = open_page(page, "finished")
    assert at.button(key=key).disabled
    at.checkbox(key="finished:anyway").check().run()
    at.button(key=key).click().run()
    assert not at.exception
    ((_, _, arguments),) = started
    assert arguments[-1] == "--anyway"


def test_a_run_goes_on_from_the_list_and_its_report_is_written_there(
    open_page: Open, root: Path, started: Started
) -> None:
    open_page("runs", "interrupted").button(key="runs_go_on").click().run()
    run = RunDirectory.open(root / "finished")
    run.discard("report.html")
    at = open_page("runs", "finished")
    assert at.button(key="delete").label == "Delete…"
    at.button(key="write_report").click().run()
    assert not at.exception
    assert [(run_id, arguments[0]) for _, run_id, arguments in started] == [
        ("interrupted", "run"),
        ("finished", "report"),
    ]


def test_a_renamed_run_is_picked_under_its_new_name(open_page: Open) -> None:
    at = open_page("runs", "failed")
    at.text_input[0].set_value("second try")
    next(button for button in at.button if button.label == "Rename").click().run()
    (box,) = [box for box in at.selectbox if box.label == "Run"]
    assert box.value == "failed"
    assert "second try · ✗ failed" in box.options


def test_demo_is_one_click_away(open_page: Open, root: Path, started: Started) -> None:
    at = open_page("set_up")
    at.button(key="demo").click().run()
    assert not at.exception
    demo = root.parent / ".demo"
    assert started == [(demo, "run-seed-0", ("demo", "--out", str(demo), "--quiet"))]


def test_finished_demo_shows_its_results_in_three_clicks(open_page: Open, root: Path) -> None:
    (root / "finished").rename(root / "run-seed-0")
    root.rename(root.parent / ".demo")
    at = open_page("set_up", folder=root)
    at.button(key="demo").click().run()  # the first click
    said = texts(at)
    assert "Advised" in said
    links = [link.proto.label for link in at.get("page_link")]
    assert "③ See predicted against measured" in links  # the second and last click
    at.switch_page("views/validate.py").run()
    assert "Can it be trusted" in texts(at)


def test_slider_changes_the_prediction_at_once(open_page: Open) -> None:
    at = open_page("explore", "finished")
    before = [m.value for m in at.markdown if "nats" in m.value]
    slider = next(s for s in at.select_slider if s.label.startswith("Learning rate"))
    slider.set_value(slider.options[-1] if not isinstance(slider.options[-1], str) else float(slider.options[-1])).run()
    assert not at.exception
    assert [m.value for m in at.markdown if "nats" in m.value] != before


def test_larger_rate_is_answered_from_the_terms(open_page: Open) -> None:
    said = texts(open_page("explore", "finished"))
    assert "At 2 times the rate" in said
    assert "stability edge" in said


def test_pinned_settings_stand_side_by_side(open_page: Open) -> None:
    at = open_page("explore", "finished")
    at.button(key="finished:pin").click().run()
    at.button(key="finished:pin").click().run()
    assert not at.exception
    assert "setting 1" in texts(at)
    assert "Side by side" in texts(at)


def test_leaving_out_every_task_is_refused_in_words(open_page: Open) -> None:
    at = open_page("explore", "finished")
    for name in "abc":
        at.toggle(key=f"finished:on:{name}").set_value(False)
    at.run()
    assert not at.exception
    assert "keep at least one" in texts(at)


def test_auto_tune_lowers_the_predicted_risk(open_page: Open) -> None:
    at = open_page("merge", "finished")
    before = [s.value for s in at.slider]
    at.button(key="finished:tune").click().run()
    assert not at.exception
    assert [s.value for s in at.slider] != before


def test_merge_by_hand_makes_a_file_to_download(open_page: Open) -> None:
    at = open_page("merge", "finished")
    at.button(key="finished:make").click().run()
    assert not at.exception
    assert not at.error
    assert "Merged by task arithmetic" in texts(at)


def test_merge_of_experts_by_path_adds_their_changes(open_page: Open, root: Path) -> None:
    at = open_page("merge", "finished")
    at.radio(key="merge_source").set_value("Experts by file").run()
    run = root / "finished"
    at.text_area(key="path:base").set_value(str(run / "backbone.safetensors"))
    at.text_area(key="path:experts").set_value(f"{run}/experts/a.safetensors\n{run}/experts/b.safetensors").run()
    assert not at.error
    at.slider(key="file:a").set_value(1.0)
    at.slider(key="file:b").set_value(0.0)
    at.button(key="file_make").click().run()
    assert not at.exception
    result, out = at.session_state["file_made"]
    made = safetensors.numpy.load_file(out / "model.safetensors")
    expert = safetensors.numpy.load_file(run / "experts" / "a.safetensors")
    assert made["w"] == pytest.approx(expert["w"], abs=1e-6)
    assert result.coefficients == {"a": 1.0, "b": 0.0}


def test_rename_and_delete_with_confirmation(open_page: Open, root: Path) -> None:
    at = open_page("runs", "failed")
    at.text_input[0].set_value("<b>mine</b>")
    next(button for button in at.button if button.label == "Rename").click().run()
    assert RunDirectory.open(root / "failed").label == "<b>mine</b>"
    at.button(key="delete").click().run()
    assert (root / "failed").exists()
    assert at.button(key="delete_now").disabled
    at.checkbox(key="sure:failed").check().run()
    at.button(key="delete_now").click().run()
    assert not (root / "failed").exists()
    assert (root / "finished").exists()


def test_compared_runs_stand_in_one_table(open_page: Open) -> None:
    at = open_page("runs")
    at.multiselect(key="compared").set_value(["finished", "corrupted", "failed"]).run()
    assert not at.exception
    said = texts(at)
    assert "none yet" in said
    assert "does not match its checksum" in said


@pytest.mark.slow
def test_project_from_built_in_tasks_is_drafted_checked_and_started(
    open_page: Open, root: Path, started: Started
) -> None:
    at = open_page("set_up")
    at.multiselect[0].set_value(["builtin/digits-low", "builtin/digits-high"])
    next(box for box in at.text_input if box.label.startswith("Backbone")).set_value("test_resnet")
    next(button for button in at.button if "Draft" in button.label).click().run()
    assert not at.error
    at.button(key="check").click().run()
    assert not at.error
    said = texts(at)
    assert "digits-low" in said.replace("\\", "")  # names are escaped for Markdown
    assert "What it would cost at most" in said
    assert at.get("imgs") or at.get("image")
    at.button(key="start").click().run()
    ((folder, run_id, arguments),) = started
    assert folder == root
    assert arguments[0] == "run"
    assert arguments[2:] == ("--out", str(root / run_id), "--quiet")
    assert Path(arguments[1]).parent == root / "projects"


def test_bad_project_file_is_explained(open_page: Open, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("backbone: resnet18\ntasks: {a: builtin/nothing}\nsed: 1\n", encoding="utf-8")
    at = open_page("set_up")
    at.radio(key="source").set_value("Open a project file").run()
    at.text_input(key="project_file").set_value(str(path)).run()
    at.button(key="check").click().run()
    assert not at.exception
    assert "sed" in at.error[0].value

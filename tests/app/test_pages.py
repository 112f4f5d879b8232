"""Every page on a run in every state: it shows what is there, says what is not, and never fails."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import yaml

from advisor.advice import Recommendation
from advisor.live_probe import LiveWriter
from advisor.observations import ProbeData
from advisor.runs import RunDirectory
from estimators.fine_tuning import Run
from estimators.recipe import Recipe
from tests.app.conftest import Open, texts

PAGES = ("set_up", "probe", "recommend", "explore", "merge", "validate", "runs")
ON_A_RUN = PAGES[1:6]


@pytest.mark.parametrize("page", PAGES)
def test_page_without_any_run_says_where_to_begin(open_page: Open, tmp_path: Path, page: str) -> None:
    at = open_page(page, folder=tmp_path / "none")
    assert not at.exception
    assert not at.error
    expected = "First visit" if page == "set_up" else "no runs" if page == "runs" else "No run is chosen"
    assert expected in texts(at)


@pytest.mark.parametrize("page", PAGES)
def test_page_of_a_finished_run_shows_no_error(open_page: Open, page: str) -> None:
    at = open_page(page, "finished")
    assert not at.exception
    assert not [error.value for error in at.error]
    assert not at.warning or page in ("validate",)


@pytest.mark.parametrize("page", ON_A_RUN)
def test_page_of_a_failed_run_names_the_reason(open_page: Open, page: str) -> None:
    at = open_page(page, "failed")
    assert not at.exception
    assert "learning\\_rate\\=9 is too large" in texts(at)


@pytest.mark.parametrize("page", ON_A_RUN)
def test_page_of_an_interrupted_run_says_so(open_page: Open, page: str) -> None:
    at = open_page(page, "interrupted")
    assert not at.exception
    assert not at.error
    assert "interrupted" in texts(at)


@pytest.mark.parametrize("page", ON_A_RUN)
def test_page_of_a_running_run_says_so(open_page: Open, running: RunDirectory, page: str) -> None:
    at = open_page(page, "running")
    assert not at.exception
    assert not at.error
    assert "▶ running" in texts(at)


def test_curves_of_the_running_probe_grow_on_its_page(open_page: Open, running: RunDirectory) -> None:
    recipe = Recipe(learning_rate=0.02, batch_size=4, steps=40)
    runs = [Run(task=name, recipe=recipe, seed=0) for name in "ab"]
    now = [0.0]
    with LiveWriter(running.path, number=2, recipe=recipe, clock=lambda: now[0]) as live:
        drawn = []
        for count in (5, 30):
            now[0] += 10
            live(runs, [np.array([[1 / k, np.inf if k > 20 else 1.0], [1, 1], [k, k]]) for k in range(1, count + 1)])
            at = open_page("probe", "running")
            assert not at.exception
            drawn.append(
                (
                    texts(at).replace("\\", ""),
                    next(c.proto for c in at.get("plotly_chart") if "Probe 3" in c.proto.spec),
                )
            )
    (early, first), (late, second) = drawn
    assert "a 5 of 40" in early
    assert "diverged: loss" not in early
    assert "a 30 of 40" in late
    assert "✗ b diverged: loss became inf at step 21" in late
    assert "0 diverged" in first.alt
    assert "1 diverged" in second.alt
    assert '"diverged"' in second.spec
    assert "Probe 3" not in str([c.proto.spec for c in open_page("probe", "running").get("plotly_chart")])


def test_curves_of_each_finished_probe_can_be_chosen(open_page: Open) -> None:
    at = open_page("probe", "finished")
    assert at.selectbox(key="curves").options[:2] == ["the last one", "all 3 listed below"]
    for chosen in ("last", "all", 1, 2, 3):
        at.selectbox(key="curves").set_value(chosen).run()
        assert not at.exception
        (chart,) = [c.proto for c in at.get("plotly_chart") if "step by step" in c.proto.spec]
        assert ("Probes, step" in chart.spec) == (chosen == "all")
        assert '"diverged"' in chart.spec  # task a of every sample diverged with finite losses


@pytest.mark.parametrize("page", ["recommend", "explore", "merge"])
def test_page_of_a_corrupted_run_names_the_damaged_piece_and_the_way_on(open_page: Open, page: str) -> None:
    at = open_page(page, "corrupted")
    assert not at.exception
    said = texts(at)
    assert "does not match its checksum" in said
    assert "run the same command again" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("page", PAGES)
def test_page_of_an_unreadable_run_stays_up(open_page: Open, page: str) -> None:
    at = open_page(page, "unreadable")
    assert not at.exception
    assert "Traceback" not in texts(at)


@pytest.mark.parametrize("page", PAGES)
def test_page_of_a_huge_run_shows_a_part_and_says_so(open_page: Open, page: str) -> None:
    at = open_page(page, "huge")
    assert not at.exception
    assert not at.error
    if page == "probe":
        assert "earlier ones are not drawn" in texts(at)


@pytest.mark.parametrize("state", ["failed", "interrupted", "corrupted"])
@pytest.mark.parametrize("page", ["set_up", "runs"])
def test_pages_that_are_not_about_one_run_stay_up_beside_it(open_page: Open, page: str, state: str) -> None:
    at = open_page(page, state)
    assert not at.exception
    assert page == "set_up" or state in texts(at)


def test_advice_can_be_taken_along_in_four_forms(open_page: Open, root: Path) -> None:
    at = open_page("recommend", "finished")
    lines, as_yaml, as_csv, study = (block.value for block in at.code)
    assert lines.splitlines()[0] == f"merge-advisor train {root / 'finished'}"
    advice = Recommendation.from_json(RunDirectory.open(root / "finished").read_json("recommendation.json"))
    assert yaml.safe_load(as_yaml)["coefficients"] == pytest.approx(advice.plan.coefficients)
    assert as_csv.splitlines()[0].startswith("label,method,learning_rate")
    assert "optuna.load_study" in study
    labels = [button.proto.label for button in at.get("download_button")]
    assert labels[:2] == ["Download YAML", "Download CSV"]


def test_every_chart_has_words_for_those_who_cannot_see_it(open_page: Open) -> None:
    for page in ("probe", "recommend", "explore", "merge", "validate"):
        charts = open_page(page, "finished").get("plotly_chart")
        assert charts, page
        assert all(len(chart.proto.alt) > 30 for chart in charts), page


def test_run_stays_when_the_page_is_changed(open_page: Open) -> None:
    at = open_page("probe", "finished")
    at.switch_page("views/validate.py").run()
    assert at.query_params["run"] in ("finished", ["finished"])
    assert "Can it be trusted" in texts(at)


def test_unknown_run_is_named_and_nothing_breaks(open_page: Open) -> None:
    at = open_page("probe", "20260101-000000-gone")
    assert not at.exception
    assert "There is no run" in texts(at)


@pytest.mark.parametrize("page", ["explore", "validate", "merge"])
def test_a_model_of_another_version_is_fitted_again(open_page: Open, root: Path, page: str) -> None:
    run = RunDirectory.open(root / "finished")
    run.write_json("risk_model.json", {"version": 0})
    at = open_page(page, "finished")
    assert not at.exception
    assert not [error.value for error in at.error]
    if page == "explore":
        assert "was written by another version" in texts(at)
        assert "fitted again" in texts(at)


@pytest.mark.parametrize("page", ON_A_RUN)
def test_a_run_whose_probes_allowed_no_model_says_why(open_page: Open, root: Path, page: str) -> None:
    run = RunDirectory.open(root / "finished")
    probes = ProbeData.from_json(run.read_json("probe_data.json"))
    dead = [dataclasses.replace(m, risks=dict.fromkeys(m.risks, math.inf)) for m in probes.merges]
    run.write_json("probe_data.json", dataclasses.replace(probes, merges=tuple(dead)).to_json())
    advice = Recommendation.from_json(run.read_json("recommendation.json"))
    said = "Don't merge: nothing can be predicted."
    advice = dataclasses.replace(
        advice, status="refuse", answer="do_not_merge", sentence=said, pareto=(), alternatives=(), edges={}
    )
    run.write_json("recommendation.json", advice.to_json())
    run.discard("risk_model.json")
    at = open_page(page, "finished")
    assert not at.exception
    assert not [error.value for error in at.error if "nothing can be predicted" not in str(error.value)]
    if page in ("recommend", "explore"):
        assert "nothing can be predicted" in texts(at)


def test_models_that_diverged_are_named_so(open_page: Open, root: Path) -> None:
    run = RunDirectory.open(root / "finished")
    stored = run.read_json("validation.json")
    stored["validation"]["models"][-1]["risks"]["a"] = None
    stored["validation"]["models"][-1]["goal"] = None
    run.write_json("validation.json", stored)
    at = open_page("validate", "finished")
    assert not at.exception
    assert "diverged" in texts(at)

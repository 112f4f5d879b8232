"""One visitor in a real browser: from folders of images to merged weights, and the pictures of every page.

Needs Debian's chromium and the package playwright; without them the test is skipped and says so.
``MERGE_ADVISOR_PICTURES=docs/images MERGE_ADVISOR_PICTURED_RUN=.demo/run-seed-0`` makes the pictures of the manual.
"""

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from tests.app.app_server import serving
from tests.app.browsing import PAGES, address, settle

pytestmark = pytest.mark.slow

TRAINING = 8 * 60_000  # milliseconds for the small run on a busy machine


def draw_images(folder: Path) -> None:
    """Two tasks of three classes: a bright stripe, upright or turned."""
    generator = np.random.default_rng(0)
    for task, turns in (("up", 0), ("side", 1)):
        for number in range(3):
            place = folder / task / f"class{number}"
            place.mkdir(parents=True)
            for k in range(30):
                pixels = generator.integers(0, 90, (16, 16)).astype(np.uint8)
                pixels[:, 2 + 4 * number : 6 + 4 * number] += 140
                Image.fromarray(np.rot90(pixels, turns).copy()).save(place / f"{k}.png")


def test_visitor_goes_from_image_folders_to_merged_weights(browser: Any, tmp_path: Path) -> None:
    draw_images(tmp_path / "images")
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(60_000)
    elsewhere: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: elsewhere.append(request.url))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    with serving(tmp_path) as port:
        home = f"http://127.0.0.1:{port}"
        page.goto(home)
        settle(page)
        set_up(page, tmp_path)
        page.wait_for_url("**/probe?run=*")
        run_id = page.url.rpartition("run=")[2]
        page.get_by_text("✓ finished").first.wait_for(timeout=TRAINING)
        page.reload()  # a reload finds the same run again
        settle(page)
        assert run_id in page.url
        explore(page, f"{home}/explore?run={run_id}")
        weights = merge(page, f"{home}/merge?run={run_id}", tmp_path)
        assert weights
        assert all(np.isfinite(value).all() for value in weights.values() if value.dtype.kind == "f")
        page.goto(f"{home}/validate?run={run_id}")
        settle(page)
        page.get_by_text("Does the interval hold what was measured?").wait_for()
        page.goto(f"{home}/runs?run={run_id}")
        settle(page)
        with page.expect_download() as waiting:
            page.get_by_role("button", name="Download the report (HTML)").click()
        assert "<html" in Path(waiting.value.path()).read_text(encoding="utf-8")
    context.close()
    assert said == []
    assert {urlsplit(url).hostname for url in elsewhere if url.startswith("http")} == {"127.0.0.1"}


def set_up(page: Any, folder: Path) -> None:
    """Draft, check and start a project."""
    sources = page.get_by_label("Folders of images, or texts, on this machine, one a line", exact=True)
    sources.fill(str(folder / "images"))
    page.get_by_label("Backbone (a timm model, or for texts an encoder)").fill("test_resnet")
    page.get_by_text("none: a random start, to try things").click()
    page.get_by_text("grey", exact=True).click()
    for label, value in {
        "Image size (pixels)": "16",
        "Most fine-tuning steps": "20",
        "Largest batch (samples)": "16",
        "Probing may cost (full fine-tunes of all tasks)": "4",
    }.items():
        page.get_by_label(label).fill(value)
        page.get_by_label(label).press("Tab")
    page.get_by_role("button", name="Draft the project").click()
    page.get_by_label("Project file: change what you like").wait_for()
    page.get_by_role("button", name="Check it").click()
    page.get_by_text("What it would cost at most").wait_for()
    page.get_by_role("button", name="Start", exact=True).click()


def explore(page: Any, place: str) -> None:
    """Move a slider by keyboard: the prediction changes."""
    page.goto(place)
    settle(page)
    number = page.locator("h5").first
    before = number.inner_text()
    slider = page.get_by_role("slider").first
    slider.focus()
    for _ in range(15):
        page.keyboard.press("ArrowRight")
    page.wait_for_function(
        "text => document.querySelector('h5') && document.querySelector('h5').innerText !== text", arg=before
    )


def merge(page: Any, place: str, folder: Path) -> dict[str, Any]:
    """Download the advised merge."""
    page.goto(place)
    settle(page)
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download merged weights").click()
    target = folder / "merged.safetensors"
    waiting.value.save_as(target)
    return dict(safetensors.numpy.load_file(target))


def test_every_page_of_a_finished_run_is_drawn_light_and_dark(browser: Any, root: Path, tmp_path: Path) -> None:
    run = Path(os.environ.get("MERGE_ADVISOR_PICTURED_RUN", root / "finished")).resolve()
    folder = Path(os.environ.get("MERGE_ADVISOR_PICTURES", tmp_path / "pictures")).resolve()
    with serving(tmp_path, run) as port:
        take_pictures(browser, f"http://127.0.0.1:{port}", run.name, folder)
    for name in PAGES:
        pictures = [folder / f"app-{name.replace('_', '-')}-{scheme}.png" for scheme in ("light", "dark")]
        light, dark = (np.asarray(Image.open(picture).convert("L"), dtype=float).mean() for picture in pictures)
        assert light > 200 > 80 > dark, name


def take_pictures(browser: Any, home: str, run_id: str, folder: Path) -> None:
    """Every page light and dark."""
    folder.mkdir(parents=True, exist_ok=True)
    for scheme in ("light", "dark"):
        context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
        page = context.new_page()
        page.on("pageerror", lambda error: pytest.fail(str(error)))
        for name in PAGES:
            page.set_viewport_size({"width": 1280, "height": 900})
            page.goto(address(home, name, run_id))
            settle(page)
            height = page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
            page.set_viewport_size({"width": 1280, "height": min(int(height) + 40, 2600)})
            settle(page)
            page.screenshot(path=folder / f"app-{name.replace('_', '-')}-{scheme}.png")
        context.close()

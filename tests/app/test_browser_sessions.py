"""In a real browser: two tabs, a server that goes and comes back, what uploads are refused, and pages that fail."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from advisor.observations import ProbeData
from advisor.runs import RunDirectory
from tests.advisor.advice_samples import EVIL, recommendation, validation
from tests.app.app_server import ask, free_port, serving, status
from tests.app.browsing import PAGES, address, settle
from tests.app.run_samples import write_begun

pytestmark = pytest.mark.slow
SOON = 60_000  # milliseconds; pages look every two seconds, on a busy machine later
MEGABYTE = 1 << 20


@pytest.fixture
def context(browser: Any) -> Iterator[Any]:
    found = browser.new_context(viewport={"width": 1280, "height": 900})
    found.set_default_timeout(SOON)
    yield found
    found.close()


def says(page: Any, text: str) -> None:
    """Wait until a page says something, without touching it."""
    page.get_by_text(text).first.wait_for(timeout=SOON)


def test_two_tabs_see_one_run_and_find_it_again_after_the_server_was_restarted(
    context: Any, tmp_path: Path, probes: ProbeData
) -> None:
    run = write_begun(tmp_path / "runs" / "shared", probes, ended=None)
    port = free_port()
    place = f"http://127.0.0.1:{port}/probe?run=shared"
    first, second = context.new_page(), context.new_page()
    with serving(tmp_path, port=port):
        with run.writing("run"):
            for page in (first, second):
                page.goto(place)
                says(page, "▶ running")
            first.get_by_role("button", name="Stop", exact=True).click()
            says(first, "Asked to stop (asked in the app)")
            says(second, "Asked to stop (asked in the app)")
            assert run.stop_requested() == "asked in the app"
        for page in (first, second):
            says(page, "✓ finished")  # the writer has ended: nobody reloaded
    first.wait_for_timeout(2000)  # both have noticed that nobody answers
    with run.writing("run"), serving(tmp_path, port=port):
        says(second, "▶ running")  # a dropped connection comes back by itself
        first.reload()
        says(first, "▶ running")
        assert "run=shared" in first.url
        assert "run=shared" in second.url


def test_an_idle_page_notices_that_the_run_goes_on_elsewhere(context: Any, tmp_path: Path, probes: ProbeData) -> None:
    run = write_begun(tmp_path / "runs" / "idle", probes, ended=KeyboardInterrupt)
    with serving(tmp_path) as port:
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{port}/probe?run=idle")
        says(page, "‖ interrupted")
        with run.writing("run"):
            says(page, "▶ running")


def uploaded(page: Any, file: Path, data: bytes) -> Any:
    """Put a file into the first upload of the page; the request that carried it, or ``None`` where none was sent."""
    sent: list[Any] = []
    page.on("request", lambda request: sent.append(request) if request.method == "PUT" else None)
    file.write_bytes(data)
    page.locator("input[type=file]").first.set_input_files(file)
    page.wait_for_timeout(3000)
    return sent[0] if sent else None


def test_uploads_are_refused_without_token_and_beyond_their_size(context: Any, root: Path, tmp_path: Path) -> None:
    small = safetensors.numpy.save({"w": np.ones(4, dtype=np.float32)})
    with serving(tmp_path, root / "finished") as port:
        page = context.new_page()
        page.goto(address(f"http://127.0.0.1:{port}", "merge", "finished"))
        settle(page)
        page.get_by_text("Experts by file").click()
        settle(page)
        assert uploaded(page, tmp_path / "weights.pkl", small) is None  # other types never leave the browser
        assert uploaded(page, tmp_path / "large.safetensors", b"0" * (65 * MEGABYTE)) is None
        file_words = page.locator("[data-testid=stFileUploader]").first.inner_text()
        assert "or smaller" in file_words or page.get_by_label("or smaller").count(), file_words
        request = uploaded(page, tmp_path / "base.safetensors", small)
        path = re.sub(r"^http://[^/]+", "", request.url)
        cookie = {c["name"]: c["value"] for c in context.cookies()}["_streamlit_xsrf"]
        head = b'--B\r\nContent-Disposition: form-data; name="f"; filename="f.safetensors"\r\n\r\n'
        body = head + small + b"\r\n--B--\r\n"

        def put(size: int, token: str = "") -> int:
            lines = [f"PUT {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Content-Type: multipart/form-data; boundary=B"]
            lines += [f"Cookie: _streamlit_xsrf={cookie}", f"Content-Length: {size}"]
            lines += [f"X-Xsrftoken: {token}"] if token else []
            return status(ask(port, "\n".join(lines), body))

        assert put(len(body), cookie) == 204  # what the browser sends is taken
        assert put(len(body)) == 403
        assert put(len(body), "2|deadbeef|" + "0" * 32 + "|1") == 403
        assert put(64 * MEGABYTE + 1, cookie) == 413


def test_pages_of_damaged_runs_show_no_traceback_and_no_path_of_code(context: Any, root: Path, tmp_path: Path) -> None:
    run = RunDirectory.open(root / "finished")
    run.write_json("recommendation.json", {"version": 1, "plan": []})
    with serving(tmp_path, root / "finished") as port:
        page = context.new_page()
        for run_id in ("finished", "corrupted", "unreadable"):
            for name in PAGES:
                page.goto(address(f"http://127.0.0.1:{port}", name, run_id))
                settle(page)
                said = page.inner_text("body")
                assert "Traceback" not in said, (run_id, name)
                assert ".py" not in said, (run_id, name)
                assert len(said) > 100, (run_id, name)


def test_markup_in_names_runs_nothing_and_is_shown_as_it_is(context: Any, root: Path, tmp_path: Path) -> None:
    run = RunDirectory.open(root / "finished")
    names = (EVIL, "<img src=x onerror=alert(1)>", "[a](javascript:alert(1))")
    run.write_json("recommendation.json", recommendation(names).to_json())
    run.write_json("validation.json", {"validation": validation(names).to_json(), "identity": {}, "spent": {}})
    run.rename("<script>alert(2)</script>")
    dialogs: list[str] = []
    with serving(tmp_path, root / "finished") as port:
        page = context.new_page()
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        for name in ("recommend", "validate", "runs"):
            page.goto(address(f"http://127.0.0.1:{port}", name, "finished"))
            settle(page)
            assert "<script>alert(2)</script>" in page.inner_text("body"), name
            assert not page.query_selector("img[src='x'], a[href^='javascript']"), name
    assert dialogs == []

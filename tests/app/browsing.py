"""A real headless browser: Debian's chromium, driven by the package playwright."""

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium")
PAGES = ("set_up", "probe", "recommend", "explore", "merge", "validate", "runs")


@contextlib.contextmanager
def launched() -> Iterator[Any]:
    """A browser; without one the test is skipped and says so."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with driver.sync_playwright() as engine:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        found = engine.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield found
        found.close()


def settle(page: Any) -> None:
    """Wait until the server has answered and everything in view is drawn."""
    page.wait_for_selector("h1", timeout=60_000)
    for waiting in ("stStatusWidget", "stSkeleton"):
        page.wait_for_function(f"!document.querySelector('[data-testid={waiting}]')", timeout=60_000)
    page.wait_for_timeout(1200)


def address(home: str, name: str, run_id: str) -> str:
    """Where a page of a run is."""
    return f"{home}/{'' if name == 'set_up' else name}?run={run_id}"

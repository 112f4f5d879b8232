"""The documentation: every page is listed, every link leads somewhere, every name of the API page exists."""

import importlib
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
TEXTS = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
LINK = re.compile(r"\]\(([^)#\s]+\.[a-z]+)(#[^)]*)?\)")
ENTRY = re.compile(r"^::: (\S+)(?:\n    options: (\{.*\}))?", re.MULTILINE)


def listed(entry: object) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    parts = entry.values() if isinstance(entry, dict) else entry
    return [page for part in parts for page in listed(part)]


def test_every_page_is_listed_once_in_the_site():
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert sorted(listed(site["nav"])) == [str(page.relative_to(DOCS)) for page in PAGES]
    assert site["strict"] is True


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(page):
    links = [match[1] for match in LINK.finditer(page.read_text(encoding="utf-8"))]
    dead = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not dead


def test_links_of_pages_stay_inside_the_site():
    outside = {
        f"{page.name}: {match[1]}"
        for page in PAGES
        for match in LINK.finditer(page.read_text(encoding="utf-8"))
        if "://" not in match[1] and not (page.parent / match[1]).resolve().is_relative_to(DOCS)
    }
    assert not outside


def test_every_name_of_the_api_page_exists_and_says_what_it_is():
    entries = ENTRY.findall((DOCS / "api.md").read_text(encoding="utf-8"))
    assert len(entries) >= 10
    for name, options in entries:
        module, _, attribute = name.rpartition(".")
        thing = (
            importlib.import_module(name) if _is_module(name) else getattr(importlib.import_module(module), attribute)
        )
        for member in yaml.safe_load(options)["members"] if options else []:
            assert getattr(thing, member).__doc__, f"{name}.{member}"


def _is_module(name: str) -> bool:
    return (ROOT / (name.replace(".", "/") + ".py")).exists() or (
        ROOT / name.replace(".", "/") / "__init__.py"
    ).exists()

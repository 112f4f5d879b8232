import re
from html.parser import HTMLParser

import pytest

from advisor.figures import Drawn, term_shares
from advisor.report_html import render_html
from advisor.report_sections import Section, Table
from tests.advisor import advice_samples as samples
from tests.advisor.test_report import report


class Page(HTMLParser):
    """What a page holds: elements, attributes, and the text outside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.text += data


@pytest.fixture(scope="module")
def html() -> str:
    return report((samples.EVIL, "b"), title=samples.EVIL).to_html()


def test_the_page_asks_the_network_for_nothing(html: str) -> None:
    page = Page(html)
    loading = {"src", "srcset", "action", "data", "poster", "background", "formaction", "ping"}
    for tag, attributes in page.elements:
        assert not loading & set(attributes), tag
        assert tag not in ("link", "iframe", "object", "embed", "img", "base")
        if "href" in attributes:
            assert (attributes["href"] or "").startswith("#part")
    policy = next(a["content"] for t, a in page.elements if t == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    styles = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    assert not any("url(" in style or "@import" in style for style in styles)


def test_html_in_names_is_shown_as_text(html: str) -> None:
    page = Page(html)
    assert samples.EVIL in page.text
    assert not any(tag == "b" for tag, _ in page.elements)
    assert "<script>alert" not in html


def test_plotly_is_written_once_and_every_figure_has_words(html: str) -> None:
    page = Page(html)
    scripts = [attributes for tag, attributes in page.elements if tag == "script"]
    contents = [attributes["id"] for attributes in scripts if attributes.get("type") == "application/json"]
    assert len(scripts) == len(contents) + 2  # plotly.js and the few lines that draw
    places = [attributes for _, attributes in page.elements if "data-figure" in attributes]
    assert {place["data-figure"] for place in places} == set(contents)
    assert all(place["role"] == "img" and len(place["aria-label"] or "") > 20 for place in places)
    assert len(contents) >= 11
    assert len(html) < 6_000_000


def test_every_element_is_closed_and_ids_are_unique(html: str) -> None:
    body = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    for tag in ("section", "table", "figure", "ul", "tr", "td", "div", "main"):
        assert len(re.findall(rf"<{tag}[ >]", body)) == body.count(f"</{tag}>"), tag
    ids = re.findall(r' id="([^"]+)"', html[:200_000])
    assert len(ids) == len(set(ids))


def test_a_figure_cannot_end_its_script() -> None:
    drawn = Drawn(term_shares({"a</script><img>": {"x": 1.0}}).figure, "alt")
    drawn.figure.update_layout(title_text="</script><script>alert(1)</script>")
    text = render_html("t", "b", [Section(title="s", figures=("f",))], {"f": drawn})
    assert text.count("</script>") == 3
    assert "<img>" not in text


def test_a_page_without_figures_has_no_scripts_and_empty_tables_are_left_out() -> None:
    section = Section(title="s", sentences=("one",), tables=(Table(head=("a",), rows=()),))
    text = render_html("t", "b", [section, Section(title="gone", figures=("missing",))], {})
    assert "<script" not in text
    assert "<table" not in text
    assert "gone" not in text

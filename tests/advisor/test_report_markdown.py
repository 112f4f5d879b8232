import pytest

from advisor.report_markdown import escape, render_markdown
from advisor.report_sections import Section, Table


def test_a_table_keeps_its_columns_whatever_the_names() -> None:
    table = Table(title="t", head=("task", "risk"), rows=(("a|b\nc", "1"), ("<img>", "2")))
    text = render_markdown("x", "y", [Section(title="s", tables=(table,))])
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert [row.replace("\\|", "").count("|") for row in rows] == [3, 3, 3, 3]
    assert rows[2:] == ["| a\\|b c | 1 |", "| \\<img\\> | 2 |"]


def test_a_section_of_figures_alone_is_left_out() -> None:
    text = render_markdown("x", "y", [Section(title="Probes", figures=("probe_traces",))])
    assert "Probes" not in text


@pytest.mark.parametrize("name", ["*a*", "_a_", "`a`", "[a](http://b)", "# a", "<b>a</b>", "a\\b"])
def test_no_name_is_read_as_markup(name: str) -> None:
    out = escape(name)
    assert out.replace("\\", "") == name.replace("\\", "")
    assert all(out[max(0, i - 1)] == "\\" for i, letter in enumerate(out) if letter in "*_`[]#<>")

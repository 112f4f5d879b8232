"""Sections of the report as Markdown; names are escaped, so that they are read as text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from advisor.report_sections import Section, Table

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~])")


def render_markdown(title: str, byline: str, sections: Sequence[Section]) -> str:
    """The whole report."""
    lines = [f"# {escape(title)}", "", escape(byline), ""]
    for section in sections:
        if not (section.sentences or section.bullets or section.tables):
            continue  # figures alone, which Markdown does not show
        lines += [f"## {escape(section.title)}", ""]
        for sentence in filter(None, section.sentences):
            lines += [escape(sentence), ""]
        if section.bullets:
            lines += [*(f"- {escape(bullet)}" for bullet in section.bullets), ""]
        for table in section.tables:
            lines += _table(table)
    return "\n".join(lines).rstrip() + "\n"


def escape(text: str) -> str:
    r"""Text as Markdown that shows just that text, on one line.

    >>> escape("<b>a_b</b> | c")
    '\\<b\\>a\\_b\\</b\\> \\| c'
    """
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _table(table: Table) -> list[str]:
    if not table.rows:
        return []
    rows = [table.head, tuple("---" for _ in table.head), *table.rows]
    lines = ["| " + " | ".join(cell if row is rows[1] else escape(cell) for cell in row) + " |" for row in rows]
    title = [f"**{escape(table.title)}**", ""] if table.title else []
    return [*title, *lines, ""]

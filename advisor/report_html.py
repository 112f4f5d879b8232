r"""Sections of the report as one HTML page that loads nothing from anywhere.

Every text is escaped; plotly.js is written into the page once; a content security policy forbids the page to reach the
network even if a name should slip through.  Figures carry their description as text, and every number stands in a table
for readers without JavaScript.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from advisor.report_sections import Section, Table

if TYPE_CHECKING:
    from advisor.figures import Drawn

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'"
)
WIDE = frozenset({"risk_against_learning_rate", "constants", "probe_traces", "measured_merges"})
STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1d2430; background: #f3f4f6; margin: 0; }
main { max-width: 1080px; margin: 0 auto; padding: 1rem; }
header, section { background: #fff; border: 1px solid #d9dde3; border-radius: 8px; }
header, section { padding: 1rem 1.25rem; margin: 0 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.2rem; margin: 0 0 .5rem; } p { margin: .4rem 0; }
.byline { color: #4a5463; font-size: .9rem; } ul { padding-left: 1.2rem; margin: .5rem 0; }
.lead { border-left: 6px solid #0072B2; }
.scroll { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .25rem 0; }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #e3e6eb; vertical-align: top; }
th { color: #4a5463; font-weight: 600; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); gap: 1rem; }
figure { margin: .5rem 0; min-width: 0; } figure.wide { grid-column: 1 / -1; }
figcaption { color: #4a5463; font-size: .85rem; }
nav a { margin-right: 1rem; } a { color: #00598c; }
@media print { body { background: #fff; } section { break-inside: avoid; } }
"""
PLOT = """
for (const place of document.querySelectorAll('[data-figure]')) {
  const content = JSON.parse(document.getElementById(place.dataset.figure).textContent);
  Plotly.newPlot(place, content.data, content.layout, {displayModeBar: false, responsive: true});
}
"""


def render_html(title: str, byline: str, sections: Sequence[Section], figures: Mapping[str, Drawn]) -> str:
    """The whole page."""
    shown = [s for s in sections if s.sentences or s.bullets or s.tables or any(name in figures for name in s.figures)]
    parts = [_section(section, figures, index) for index, section in enumerate(shown)]
    links = " ".join(f'<a href="#part{i}">{escape(section.title)}</a>' for i, section in enumerate(shown))
    return (
        "<!doctype html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{escape(title)}: merge advice</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f'<header><h1>{escape(title)}</h1><p class="byline">{escape(byline)}</p><nav aria-label="parts">{links}</nav>'
        "<noscript><p>Figures need JavaScript; every number stands in a table too.</p></noscript></header>\n"
        + "\n".join(parts)
        + f"\n</main>\n{_scripts(figures)}</body>\n</html>\n"
    )


def _section(section: Section, figures: Mapping[str, Drawn], index: int) -> str:
    parts = [f"<h2>{escape(section.title)}</h2>"]
    parts += [f"<p>{escape(sentence)}</p>" for sentence in section.sentences if sentence]
    if section.bullets:
        parts.append("<ul>" + "".join(f"<li>{escape(bullet)}</li>" for bullet in section.bullets) + "</ul>")
    parts += [_table(table) for table in section.tables if table.rows]
    drawn = [_figure(name, figures[name]) for name in section.figures if name in figures]
    if drawn:
        parts.append(f'<div class="figures">{"".join(drawn)}</div>')
    lead = ' class="lead"' if index == 0 else ""
    return f'<section id="part{index}"{lead}>\n' + "\n".join(parts) + "\n</section>"


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.head)
    rows = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in table.rows
    )
    caption = f"<caption>{escape(table.title)}</caption>" if table.title else ""
    # a scrolling region must be reachable by keyboard
    label = escape(table.title or "table", quote=True)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table>{caption}'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _figure(name: str, drawn: Drawn) -> str:
    height = int(drawn.figure.layout.height or 400)
    wide = ' class="wide"' if name in WIDE else ""
    return (
        f'<figure{wide}><div role="img" aria-label="{escape(drawn.alt, quote=True)}" data-figure="figure-{name}" '
        f'style="height:{height}px"></div><figcaption>{escape(drawn.alt)}</figcaption></figure>'
    )


def _scripts(figures: Mapping[str, Drawn]) -> str:
    if not figures:
        return ""
    from plotly.offline import get_plotlyjs

    contents = "".join(
        f'<script type="application/json" id="figure-{name}">{_script_json(drawn)}</script>\n'
        for name, drawn in figures.items()
    )
    return f"{contents}<script>{get_plotlyjs()}</script>\n<script>{PLOT}</script>\n"


def _script_json(drawn: Drawn) -> str:
    """JSON that cannot end the script element it stands in."""
    return str(drawn.figure.to_json()).replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")

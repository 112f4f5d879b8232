"""The claims' page and plots: what is in the repository is what the stored tables give."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.claim_page import MODULES, page_text, render, statistics_of, threshold_text, write_page
from benchmarks.claim_parts import DIVERGED_RISK
from benchmarks.claim_tables import TABLES, BrokenTable, UnitTable, capped, read_tables, write_unit_table
from benchmarks.claim_thresholds import CLAIMS
from benchmarks.claim_verdicts import judge_claim
from tests.benchmarks.synthetic_claims import Truth, unit, units

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "claims.md"


def stored(folder, tables):
    for table in tables:
        write_unit_table(folder / f"{table.name}.json", table.data)
        write_unit_table(folder / f"{table.name}.predictions.json", table.predictions)
    return folder


def test_the_page_in_the_repository_is_what_the_stored_tables_give():
    assert PAGE.read_text(encoding="utf-8") == page_text(TABLES)


def test_the_stored_pool_covers_both_networks_with_three_seeds_each():
    tables = read_tables(TABLES)
    assert {(t.data["network"], t.data["seed"]) for t in tables} == {
        (n, s) for n in ("resnet", "vit") for s in range(3)
    }
    assert all(table.predictions for table in tables)
    assert sum(path.stat().st_size for path in TABLES.iterdir()) < 5e6


def test_every_claim_has_a_section_with_a_plot_a_table_and_a_verdict():
    sections = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    for claim in CLAIMS:
        (section,) = [text for text in sections if text.startswith(f"{claim.number}. ")]
        image = re.search(r"!\[[^]]*\]\(([^)]+)\)", section)[1]
        assert (PAGE.parent / image).stat().st_size < 150_000
        assert re.search(r"Verdict: \*\*(holds|does not hold|not decidable)\*\*", section)
        assert all(threshold_text(part) in section for part in claim.parts)


def test_every_part_of_every_claim_is_computed_somewhere():
    tables = [unit("resnet", 0)]
    for claim in CLAIMS:
        (found,) = statistics_of(claim.number, tables).values()
        assert set(found) == {part.key for part in claim.parts}
    assert set(MODULES) == {claim.number for claim in CLAIMS}


def test_a_page_can_be_written_from_any_tables_and_tells_other_data_apart(tmp_path):
    pytest.importorskip("matplotlib")
    pages = []
    for number, truth in enumerate((Truth(turn_of_method=320.0), Truth(penalty=-0.05))):
        folder = stored(tmp_path / str(number), units(truth))
        page = tmp_path / f"{number}.md"
        verdicts = write_page(folder, page, tmp_path / "images" / str(number))
        assert page.read_text(encoding="utf-8") == page_text(folder, str(number))
        assert all((tmp_path / "images" / str(number) / f"claim-{k}.png").exists() for k in MODULES)
        pages.append((page.read_text(encoding="utf-8"), {v.claim.number: v.outcome for v in verdicts}))
    assert pages[0][1][5] == "holds"
    assert pages[1][1][5] == "does not hold"
    assert "Number of tasks](#5-number-of-tasks)" in pages[0][0]


def test_plots_of_equal_tables_are_equal(tmp_path):
    pytest.importorskip("matplotlib")
    from benchmarks import claim_5_number
    from benchmarks.claim_plots import draw

    for name in ("a.png", "b.png"):
        draw(tmp_path / name, claim_5_number.shown(units()).panels)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_verdict_that_cannot_be_made_says_why_on_the_page():
    tables = units(seeds=2)
    verdicts = [judge_claim(CLAIMS[4], {(t.data["network"], t.data["seed"]): {} for t in tables})]
    from benchmarks.claim_5_number import shown

    text = render(tables, verdicts, {5: shown(tables)}, "claims")
    assert "not decidable (resnet, vit: fewer than 3 seeds)" in text


def test_tables_come_back_as_written_one_row_a_line(tmp_path):
    table = unit("vit", 1)
    path = stored(tmp_path, [table]) / "vit-1.json"
    assert read_tables(tmp_path)[0].data == json.loads(json.dumps(table.data))
    assert len(path.read_text().splitlines()) > len(table.data["merges"])


@pytest.mark.parametrize("lacking", ["merges", "twins", "initial"])
def test_a_table_that_lacks_a_part_is_refused_by_name(lacking):
    data = {name: value for name, value in unit("vit", 1).data.items() if name != lacking}
    with pytest.raises(BrokenTable, match=rf"table lacks \['{lacking}'\]; build the unit again"):
        UnitTable(data=data, predictions={})


def test_rows_that_are_not_there_are_named():
    table = unit("vit", 1)
    with pytest.raises(BrokenTable, match="holds no task_arithmetic merge of run 'base' at step 7"):
        table.one("linear", "base", 7, 0.25)
    with pytest.raises(BrokenTable, match="holds no run 'nobody'"):
        table.recipe("nobody")
    with pytest.raises(BrokenTable, match="holds no experts of run 'base' at step 7"):
        table.expert_mean("base", 7, "test")
    for number, gone in ((5, "subset-average rows of 2"), (9, "subset-average rows of 2")):
        data = dict(table.data) | {"merges": [row for row in table.data["merges"] if row["kind"] != "subset-average"]}
        with pytest.raises(BrokenTable, match=gone):
            statistics_of(number, [UnitTable(data=data, predictions={})])
    for number, name in ((6, "methods"), (7, "mixes")):
        data = {key: value for key, value in table.data.items() if key != name}
        with pytest.raises(BrokenTable, match="build the unit again"):
            statistics_of(number, [UnitTable(data=data, predictions={})])


def test_an_empty_or_damaged_folder_is_refused(tmp_path):
    with pytest.raises(BrokenTable, match="holds no table; run python -m"):
        read_tables(tmp_path)
    (tmp_path / "resnet-0.json").write_text("{")
    with pytest.raises(ValueError, match="is not readable JSON"):
        read_tables(tmp_path)


def test_a_risk_that_is_no_number_or_enormous_counts_as_the_ceiling_and_a_negative_one_is_refused():
    assert [capped(value) for value in (None, np.nan, np.inf, 11.0, 0.5)] == [DIVERGED_RISK] * 4 + [0.5]
    with pytest.raises(BrokenTable, match=r"risk=-0.1 must be at least 0"):
        capped(-0.1)


def test_the_small_measurement_says_part_by_part_whether_the_stored_verdict_comes_out_again(
    tmp_path, monkeypatch, capsys
):
    from benchmarks import claims

    before = stored(tmp_path / "before", units())

    def trains(design, work, out, **_):
        assert (design.name, design.claims) == ("small", (1, 3, 5))
        stored(out, [unit("resnet", seed, Truth(penalty=-0.05)) for seed in range(3)])

    monkeypatch.setattr(claims, "build", trains)
    claims.main(["small", "--tables", str(before), "--pool", str(tmp_path / "pool")])
    assert sys.float_info.min / 2 > 0, "the command flushes denormals for whoever calls it"
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "claim 1, Learning rate: small holds, stored holds"
    assert sum(line.split()[0] == "CONTRADICTS" for line in lines) == 1
    (contradiction,) = [line for line in lines if "CONTRADICTS" in line]
    assert "every further expert hurts" in contradiction
    assert sum(line.split()[0] == "agrees" for line in lines) == 8

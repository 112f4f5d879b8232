import csv
import io
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.plans_csv import FIELDS, parse_plans, read_plans

SAMPLES = {"a": 500, "b": 300}
HEAD = "learning_rate,batch_size,steps"


def parse(text: str) -> Any:
    return parse_plans(text, SAMPLES)


def test_the_shortest_file_takes_every_default() -> None:
    (row,) = parse(f"{HEAD}\n0.01,32,320\n")
    plan = row.plan
    assert (row.line, row.label) == (2, "line 2")
    assert plan.names == ("a", "b")
    assert dict(plan.coefficients) == {"a": 0.5, "b": 0.5}
    assert plan.method == "task_arithmetic"
    recipe = plan.recipes["a"]
    assert (recipe.optimizer, recipe.schedule, recipe.num_samples) == ("sgd", "constant", None)


def test_a_tasks_own_column_wins_and_an_empty_cell_falls_back() -> None:
    text = f"{HEAD},learning_rate_b,coefficient,coefficient_a,optimizer,momentum,method,label\n"
    text += "0.01,32,320,0.5,0.2,0.9,,,ties,mine\n1e-3,8,20,,,,momentum,0.5,,\n"
    first, second = parse(text)
    assert [r.learning_rate for r in first.plan.recipes.values()] == [0.01, 0.5]
    assert dict(first.plan.coefficients) == {"a": 0.9, "b": 0.2}
    assert (first.plan.method, first.label) == ("ties", "mine")
    assert [r.learning_rate for r in second.plan.recipes.values()] == [1e-3, 1e-3]
    assert second.plan.recipes["b"].momentum == 0.5


def test_a_plain_momentum_column_speaks_only_of_rows_with_momentum() -> None:
    first, second = parse(f"{HEAD},optimizer,momentum\n0.01,8,20,sgd,0.9\n0.01,8,20,momentum,0.9\n")
    assert first.plan.recipes["a"].momentum == 0
    assert second.plan.recipes["a"].momentum == 0.9


def test_a_mark_at_the_start_and_blank_lines_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "plans.csv"
    path.write_bytes(f"\ufeff{HEAD}\r\n\r\n0.01,32,320\r\n ,, \r\n".encode())
    assert [row.line for row in read_plans(path, SAMPLES)] == [3]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "plans holds no plan; write a header line"),
        (HEAD + "\n", "plans holds no plan"),
        ("learning_rate,steps\n1,2\n", r"plans line 1: column 'batch_size' is missing for a, b; add batch_size"),
        ("learning_rate_a,batch_size,steps\n1,2,3\n", r"column 'learning_rate' is missing for b"),
        (f"{HEAD},learning_rates\n", r"column 4 'learning_rates' is not known; did you mean 'learning_rate'\?"),
        (f"{HEAD},zzz\n", r"column 4 'zzz' is not known; the columns are learning_rate,.*tasks: a, b"),
        (f"{HEAD},steps\n", "line 1: column 'steps' stands there twice"),
        (HEAD.replace(",", ";") + "\n1;2;3\n", "columns must be separated by commas"),
        (f"{HEAD},method_a\n", "a plan has one merge method"),
        (f"{HEAD}\n0.01,32\n", "plans line 2 has 2 cells for 3 columns"),
        (f'{HEAD}\n"0,01",32,320\n', r"plans line 2, column 'learning_rate': value '0,01' must be a number above 0"),
        (f"{HEAD}\n0.01,32.5,320\n", r"line 2, column 'batch_size': value '32.5' must be a whole number"),
        (f"{HEAD}\n0.01,32,inf\n", r"column 'steps': value 'inf' must be a whole number"),
        (f"{HEAD}\n0.01,32,1e12\n", r"column 'steps': value '1e12' must be a whole number from 1 to 1,000,000"),
        (f"{HEAD}\nnan,32,320\n", r"column 'learning_rate': value 'nan'"),
        (f"{HEAD}\n-1,32,320\n", r"line 2, task 'a': learning_rate=-1.0 must be positive"),
        (f"{HEAD}\n,32,320\n", r"line 2: learning_rate of task 'a' is empty; fill column learning_rate"),
        (f"{HEAD}\n0.01,400,320\n", r"line 2: batch_size=400 exceeds the 300 training samples of 'b'"),
        (f"{HEAD},num_samples_a\n0.01,8,320,501\n", r"num_samples=501 exceeds the 500 training samples of 'a'"),
        (f"{HEAD},coefficient\n0.01,8,320,-1\n", r"line 2: coefficient of a=-1.0 must be at least 0"),
        (f"{HEAD},optimizer\n0.01,8,320,adam\n", r"line 2, task 'a': optimizer='adam' is not one of"),
        (f"{HEAD},method\n0.01,8,320,magic\n", r"column 'method': value 'magic' must be one of .*ties"),
        (f"{HEAD},momentum_a\n0.01,8,320,0.9\n", r"task 'a': momentum=0.9 needs optimizer='momentum'"),
        (f'{HEAD}\n"0.01,8,320\n', "is not CSV"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(text: str, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        parse(text)


def test_files_that_are_no_text_or_too_large_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="is not a file"):
        read_plans(tmp_path, SAMPLES)
    path = tmp_path / "plans.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not UTF-8 text"):
        read_plans(path, SAMPLES)
    monkeypatch.setattr("advisor.plans_csv.MAX_BYTES", 2)
    with pytest.raises(ValueError, match="split it into several files"):
        read_plans(path, SAMPLES)
    monkeypatch.setattr("advisor.plans_csv.MAX_PLANS", 1)
    with pytest.raises(ValueError, match="more than 1 plans"):
        parse(f"{HEAD}\n0.01,8,20\n0.01,8,20\n")


COLUMNS = st.sampled_from([*FIELDS, *(f"{field}_{task}" for field in FIELDS for task in SAMPLES), "method", "label"])
CELLS = st.sampled_from(
    ["", "0.1", "1", "8", "64", "1e999", "1e30", "-1", "sgd", "momentum", "nan", "ties", "1,5", "\x00", "ü"]
)


@settings(max_examples=300, deadline=None)
@given(
    header=st.lists(COLUMNS | st.text(max_size=8), max_size=6),
    rows=st.lists(st.lists(CELLS | st.text(max_size=6), max_size=6), max_size=4),
    required=st.booleans(),
)
def test_any_table_gives_plans_or_a_clear_error(header: list[str], rows: list[list[str]], required: bool) -> None:
    stream = io.StringIO()
    writer = csv.writer(stream, escapechar="\\")
    writer.writerow([*(HEAD.split(",") if required else []), *header])
    for row in rows:
        writer.writerow([*(["0.1", "8", "64"] if required else []), *row])
    error = "plans"
    found = ()
    try:
        found = parse(stream.getvalue())
    except ValueError as caught:
        error = str(caught)
    assert all(0 < recipe.learning_rate < math.inf for row in found for recipe in row.plan.recipes.values())
    assert "plans" in error
    assert len(error) < 1500


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=120))
def test_any_text_gives_plans_or_a_clear_error(text: str) -> None:
    error = "plans"
    try:
        assert parse(text)
    except ValueError as caught:
        error = str(caught)
    assert "plans" in error

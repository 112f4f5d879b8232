import json
from pathlib import Path

import pytest

from estimators.splits import split_catalogue
from estimators.text_files import Columns, holds_texts, text_catalogue, text_name

ROWS = [(f"text number {n}", "even" if n % 2 == 0 else "odd") for n in range(24)]


def write_csv(path: Path, rows: list[tuple[str, str]], header: str = "text,label") -> Path:
    path.write_text(header + "\n" + "".join(f'"{text}",{label}\n' for text, label in rows))
    return path


def pairs(path: Path, **options) -> list[tuple[str, str]]:
    found = text_catalogue(path, **options)
    return [(found.open_sample(i), found.class_names[found.labels[i]]) for i in range(len(found))]


def test_tables_and_class_files_hold_the_same_texts(tmp_path: Path) -> None:
    csv = write_csv(tmp_path / "a.csv", ROWS)
    (tmp_path / "a.tsv").write_text("label\ttext\n" + "".join(f"{label}\t{text}\n" for text, label in ROWS))
    lines = [json.dumps({"text": text, "label": label, "more": 1}) for text, label in ROWS]
    (tmp_path / "a.jsonl").write_text("\r\n".join([*lines, ""]))
    (tmp_path / "a").mkdir()
    for label in ("even", "odd"):
        texts = [text for text, own in ROWS if own == label]
        (tmp_path / "a" / f"{label}.txt").write_text("\n\n".join(texts))
    assert pairs(csv) == ROWS
    assert pairs(tmp_path / "a.tsv") == ROWS
    assert pairs(tmp_path / "a.jsonl") == ROWS
    assert sorted(pairs(tmp_path / "a")) == sorted(ROWS)


def test_a_catalogue_of_texts_says_so_and_names_them_by_content(tmp_path: Path) -> None:
    found = text_catalogue(write_csv(tmp_path / "a.csv", ROWS), origin="a.csv")
    assert (found.kind, found.pool, found.class_names) == ("texts", "texts", ("even", "odd"))
    assert found.names[3] == text_name("text number 3")
    assert found.counts() == {"even": 12, "odd": 12}
    assert found.notes == ()


def test_splits_depend_on_the_texts_and_not_on_their_order(tmp_path: Path) -> None:
    one = text_catalogue(write_csv(tmp_path / "a.csv", ROWS))
    other = text_catalogue(write_csv(tmp_path / "b.csv", ROWS[::-1]))
    sides = [
        {
            found.names[i]: side
            for side in ("train", "validation", "test")
            for i in getattr(split_catalogue(found, seed=3), side)
        }
        for found in (one, other)
    ]
    assert sides[0] == sides[1]
    assert set(sides[0].values()) == {"train", "validation", "test"}


def test_quotes_commas_line_ends_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes('\ufefftext,label\n"one, ""two""\nthree",a\nfour,b\n'.encode())
    assert pairs(tmp_path / "a.csv") == [('one, "two"\nthree', "a"), ("four", "b")]


def test_columns_may_bear_other_names_and_labels_may_be_whole_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"review": "good", "stars": 5}\n{"review": "bad", "stars": 1}\n')
    assert pairs(tmp_path / "a.jsonl", columns=Columns(text="review", label="stars")) == [("good", "5"), ("bad", "1")]
    with pytest.raises(ValueError, match=r"a.jsonl:1 has no column 'text' but review, stars; set reader.text_key"):
        text_catalogue(tmp_path / "a.jsonl")


def test_given_splits_are_respected_as_tables_or_folders(tmp_path: Path) -> None:
    for side, rows in (("train", ROWS[:12]), ("val", ROWS[12:18]), ("test", ROWS[18:])):
        write_csv(tmp_path / f"{side}.csv", rows)
    found = text_catalogue(tmp_path)
    assert [found.sides.count(side) for side in ("train", "validation", "test")] == [12, 6, 6]
    (tmp_path / "test.csv").unlink()
    folder = tmp_path / "test"
    folder.mkdir()
    (folder / "even.txt").write_text("sixteen\neighteen")
    (folder / "odd.txt").write_text("seventeen")
    assert text_catalogue(tmp_path).sides.count("test") == 3


def test_a_text_counts_once_and_never_on_both_sides(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", [*ROWS[:12], ROWS[0], ("same", "even"), ("unsure", "odd"), ("unsure", "even")])
    write_csv(tmp_path / "test.csv", [*ROWS[12:], ("same", "even")])
    found = text_catalogue(tmp_path, origin="d")
    texts = [found.open_sample(i) for i in range(len(found))]
    assert len(set(texts)) == len(texts) == 25
    assert found.sides[texts.index("same")] == "test"
    assert "unsure" not in texts
    assert found.notes == (
        "data='d': 1 texts stand there more than once and count once",
        "data='d': 1 texts carry two labels and were left out",
        "data='d': 1 texts lie in two splits and were kept in the later one",
    )


BROKEN = {
    "empty.csv": (b"", r"empty.csv is empty"),
    "header.csv": (b"text,label\n", r"holds no text"),
    "latin.csv": ("text,label\nä,x\n".encode("latin-1"), r"latin.csv is not UTF-8 \(byte 11\); save it as UTF-8"),
    "one.csv": (b"text,label\na,x\nb,x\n", r"one class only \(x\).*add texts with another label"),
    "short.csv": (b"text,label\nalone\n", r"short.csv:2: label is None, not a text"),
    "nolabel.csv": (b"text,label\na,\n", r"nolabel.csv:2 has no label"),
    "quote.csv": (b'text,label\n"a,b\n', r"quote.csv:\d is no table row"),
    "bad.jsonl": (b"{\n", r"bad.jsonl:1 is no JSON"),
    "list.jsonl": (b"[1]\n", r"list.jsonl:1 holds a list"),
    "number.jsonl": (b'{"text": 3, "label": "a"}\n', r"number.jsonl:1: text is 3, not a text"),
    "truth.jsonl": (b'{"text": "a", "label": true}\n', r"truth.jsonl:1: label is True, not a text"),
    "long.jsonl": (b'{"text": "' + b"a" * 1_000_001 + b'", "label": "x"}\n', r"has 1,000,001 characters"),
    "both.jsonl": (b'{"text": "a", "label": "x"}\n{"text": "a", "label": "y"}\n', r"every text carries two labels"),
    "table.xls": (b"x", r"ends in '.xls'; texts come from .csv, .tsv, .jsonl or a folder"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_damaged_files_are_refused_with_place_and_next_step(tmp_path: Path, name: str) -> None:
    content, said = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=said):
        text_catalogue(tmp_path / name)


def test_files_that_are_far_too_large_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("estimators.text_files.LARGEST_FILE", 100)
    with pytest.raises(ValueError, match="a.csv has over 100 bytes; cut it into parts"):
        text_catalogue(write_csv(tmp_path / "a.csv", ROWS))


def test_folders_that_hold_no_texts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        text_catalogue(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no texts: it needs .txt files, one a class"):
        text_catalogue(tmp_path)
    for name in ("val.csv", "valid.csv", "train.csv"):
        write_csv(tmp_path / name, ROWS)
    with pytest.raises(ValueError, match=r"two validation parts, 'val.csv' and 'valid.csv'; keep one"):
        text_catalogue(tmp_path)
    (tmp_path / "valid.csv").unlink()
    write_csv(tmp_path / "val.csv", [row for row in ROWS if row[1] == "odd"])
    write_csv(tmp_path / "train.csv", [(f"{text} again", label) for text, label in ROWS])
    with pytest.raises(ValueError, match="class 'even' is absent from the validation split"):
        text_catalogue(tmp_path)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.txt").write_text("\n")
    with pytest.raises(ValueError, match="x.txt is empty"):
        text_catalogue(tmp_path / "b")


def test_texts_are_told_from_images_by_their_endings(tmp_path: Path) -> None:
    assert holds_texts(write_csv(tmp_path / "a.csv", ROWS))
    assert not holds_texts(tmp_path)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.txt").write_text("a")
    assert holds_texts(tmp_path / "b")
    (tmp_path / "flowers" / "train" / "rose").mkdir(parents=True)
    assert not holds_texts(tmp_path / "flowers")
    (tmp_path / "flowers" / "LICENCE.txt").write_text("a")
    assert not holds_texts(tmp_path / "flowers")
    (tmp_path / "a.png").write_bytes(b"")
    assert not holds_texts(tmp_path / "a.png")

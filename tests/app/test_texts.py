"""Projects of texts in the app: drafted, looked over and shown without asking anything of images."""

import json
from pathlib import Path

import pytest

from tests.app.conftest import Open, texts
from tests.small_encoders import CONFIG, write_table


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A table, and an encoder whose weights nobody looks at before a run starts."""
    folder = tmp_path / "encoder"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    write_table(tmp_path / "sayings.jsonl", 0)
    return tmp_path


def test_a_project_of_texts_shows_its_texts(open_page: Open, place: Path) -> None:
    (place / "project.yaml").write_text(
        "backbone: {kind: transformers, name: encoder, max_length: 12}\ntasks: {sayings: sayings.jsonl}\n"
        "search: {batch_size: [8, 16]}\n"
    )
    at = open_page("set_up")
    at.radio(key="source").set_value("Open a project file").run()
    at.text_input(key="project_file").set_value(str(place / "project.yaml")).run()
    at.button(key="check").click().run()
    assert not at.exception
    assert not at.error
    said = texts(at).replace("\\", "")
    assert "texts of at most 12 tokens" in said
    assert "cat: the cat" in said
    assert "cat (40)" in said
    assert not at.get("imgs")


def test_a_form_for_texts_drafts_an_encoder(open_page: Open, place: Path) -> None:
    at = open_page("set_up")
    next(box for box in at.text_area if box.label.startswith("Folders of images, or texts")).set_value(
        str(place / "sayings.jsonl")
    )
    next(box for box in at.text_input if box.label.startswith("Backbone")).set_value(str(place / "encoder"))
    next(radio for radio in at.radio if radio.label == "Pretrained weights").set_value("none")
    next(button for button in at.button if "Draft" in button.label).click().run()
    assert not at.exception
    assert not at.error
    assert "kind: transformers" in at.text_area(key="text").value
    at.button(key="check").click().run()
    assert not at.error
    assert "texts of at most 16 tokens" in texts(at)

from pathlib import Path

from pydantic import BaseModel

from advisor.project import Project
from advisor.project_reference import _inner_model, field_places, reference

DOCS = Path(__file__).resolve().parents[2] / "docs" / "project-file.md"


def test_the_page_is_what_the_models_say() -> None:
    assert DOCS.read_text() == reference(), "run: python -m advisor.project_reference > docs/project-file.md"


def test_every_field_has_a_description_and_a_row() -> None:
    def check(model: type[BaseModel]) -> None:
        for name, field in model.model_fields.items():
            assert field.description, name
            inner, _ = _inner_model(field.annotation)
            if inner is not None:
                check(inner)

    check(Project)
    text = DOCS.read_text()
    places = field_places()
    assert len(places) > 40
    assert all(f"| `{place}` |" in text for place in places)

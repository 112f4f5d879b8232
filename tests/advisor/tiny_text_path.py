"""A project of texts whose whole path takes seconds: a tiny BERT with random weights reads sentences of a few words."""

from pathlib import Path

from tests.small_encoders import write_encoder, write_table

PROJECT = """\
backbone: {kind: transformers, name: encoder, max_length: 12}
tasks:
  here:  {data: here.jsonl, split: [0.5, 0.25, 0.25]}
  there: {data: there.jsonl, split: [0.5, 0.25, 0.25]}
search:
  learning_rate: {sgd: [1.0e-3, 1.0e-1]}
  batch_size: [8, 16]
  steps: [8, 48]
  schedule: [constant]
budget: {probe_share: 1.0, probes: 3}
"""


def write_text_project(folder: Path, text: str = PROJECT) -> Path:
    """Encoder, tables and project file in a folder, which is given back."""
    write_encoder(folder / "encoder")
    write_table(folder / "here.jsonl", 0)
    write_table(folder / "there.jsonl", 1)
    (folder / "project.yaml").write_text(text)
    return folder

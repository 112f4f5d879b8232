"""Doctests are collected from every module; those of recorders for optional libraries need the libraries."""

from importlib.util import find_spec

OPTIONAL = {
    "estimators/recording_lightning.py": "lightning",
    "estimators/recording_transformers.py": "transformers",
}
collect_ignore = [path for path, library in OPTIONAL.items() if find_spec(library) is None]

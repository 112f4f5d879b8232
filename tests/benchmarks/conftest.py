from pathlib import Path

import pytest

from benchmarks.suite_format import Suite, load_suite
from tests.benchmarks.synthetic_suites import write_synthetic


@pytest.fixture(scope="session")
def suite_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("suites") / "synthetic")


@pytest.fixture(scope="session")
def suite(suite_folder: Path) -> Suite:
    return load_suite(suite_folder)

"""The public names, pinned: a change here is a change that users see."""

import subprocess
import sys

import pytest

import advisor

PUBLIC = [
    "Constants",
    "Plan",
    "Predicted",
    "ProbeData",
    "Project",
    "Recipe",
    "Recommendation",
    "RiskModel",
    "RunDirectory",
    "Validation",
    "Workspace",
    "advise",
    "load_project",
    "open_workspace",
    "run_all",
    "worst_case",
]


def test_the_public_names_are_exactly_these():
    assert advisor.__all__ == PUBLIC
    assert dir(advisor) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_loads_and_has_a_docstring(name):
    assert getattr(advisor, name).__doc__


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(AttributeError, match="no attribute 'advize'; its public names are"):
        advisor.advize  # noqa: B018


def test_importing_the_package_loads_neither_torch_nor_optuna():
    code = "import sys, advisor; print(sorted({'torch', 'optuna', 'streamlit'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

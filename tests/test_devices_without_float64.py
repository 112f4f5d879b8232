"""MPS has no float64: a tensor goes to the CPU before it becomes double, everywhere in the product."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(path for room in ("estimators", "advisor", "studies", "app") for path in (ROOT / room).rglob("*.py"))


def doubles_off_the_cpu(source: str) -> list[int]:
    """Lines on which something becomes double that was not moved to the CPU just before."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "double"):
            continue
        before = node.func.value
        if not (isinstance(before, ast.Call) and isinstance(before.func, ast.Attribute) and before.func.attr == "cpu"):
            found.append(node.lineno)
    return found


def test_the_rule_tells_one_order_from_the_other() -> None:
    assert doubles_off_the_cpu("a.double().cpu()\nb.cpu().double()\nc.double().sum()") == [1, 3]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_tensors_become_double_on_the_cpu_alone(path: Path) -> None:
    assert doubles_off_the_cpu(path.read_text(encoding="utf-8")) == []

"""Who may import whom (docs/architecture.md): the doors between the rooms."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("advisor", "estimators", "studies", "app")
ALLOWED = {
    "estimators": {"estimators"},
    "studies": {"studies"},
    "advisor": {"advisor", "estimators", "studies"},
    "app": {"app", "advisor"},
}
OPTUNA_ROOM = "studies"


def imported_packages(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "import_module":
            found |= {str(a.value).split(".")[0] for a in node.args if isinstance(a, ast.Constant)}
    return found


def modules(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_opens_only_its_own_doors(room):
    assert modules(room), f"{room} holds no module"
    forbidden = {
        str(path.relative_to(ROOT)): sorted(wrong)
        for path in modules(room)
        if (wrong := (imported_packages(path) & {*ROOMS, "tests", "benchmarks", "examples"}) - ALLOWED[room])
    }
    assert forbidden == {}


def test_optuna_lives_in_the_studies_room_only():
    users = {room for room in ROOMS for path in modules(room) if "optuna" in imported_packages(path)}
    assert users <= {OPTUNA_ROOM}


def test_the_app_leaves_torch_to_the_advisor():
    users = [path.name for path in modules("app") if imported_packages(path) & {"torch", "sklearn", "optuna"}]
    assert users == []


def test_nothing_of_a_user_is_unpickled_or_executed():
    """No pickle, no unsafe yaml, no eval or exec, and torch.load only with weights_only=True."""
    offences = []
    for path in [p for room in ROOMS for p in modules(room)]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            if name in ("eval", "exec", "yaml.load", "pickle.load", "pickle.loads", "marshal.loads", "joblib.load"):
                offences.append(f"{path.name}:{node.lineno} {name}")
            if name == "torch.load" and not any(
                k.arg == "weights_only" and isinstance(k.value, ast.Constant) and k.value.value is True
                for k in node.keywords
            ):
                offences.append(f"{path.name}:{node.lineno} torch.load without weights_only=True")
            if name.startswith(("pickle.", "shelve.", "dill.")):
                offences.append(f"{path.name}:{node.lineno} {name}")
        if imported_packages(path) & {"marshal", "shelve", "dill", "cloudpickle"}:
            offences.append(f"{path.name} imports a pickling module")
        uses = {ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
        # torch.load(weights_only=True) raises pickle's error: its name is the one thing of pickle that may be used
        if any(use.startswith("pickle.") and use != "pickle.UnpicklingError" for use in uses):
            offences.append(f"{path.name} uses pickle")
    assert offences == []


def test_rooms_hold_no_file_without_a_concept():
    nameless = {"utils.py", "helpers.py", "common.py", "misc.py", "core.py"}
    assert [str(p) for room in ROOMS for p in modules(room) if p.name in nameless] == []

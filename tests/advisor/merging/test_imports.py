"""Linear merges and everything on the way to them run without importing torch."""

import subprocess
import sys
from pathlib import Path

from safetensors.numpy import save_file

from tests.advisor.merging.checkpoints import random_base, random_experts

PROGRAM = """
import sys
from pathlib import Path
import advisor.merging
assert "torch" not in sys.modules, "the import"
folder = Path(sys.argv[1])
for method in ("average", "weighted_average", "task_arithmetic", "ties"):
    experts = {"a": folder / "a.safetensors"}
    advisor.merging.merge(folder / "base.safetensors", experts, method=method, out=folder / method)
    assert "torch" not in sys.modules, method
print("no torch")
"""


def test_linear_merges_do_not_import_torch(tmp_path: Path) -> None:
    base = random_base()
    save_file(base, tmp_path / "base.safetensors")
    save_file(random_experts(base, 1)[0], tmp_path / "a.safetensors")
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "no torch", done.stderr

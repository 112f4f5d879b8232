"""Linear merges and everything on the way to them run without importing torch."""

import subprocess
import sys
from pathlib import Path

from safetensors.numpy import save_file

import advisor.merging
from tests.advisor.merging.checkpoints import random_base, random_experts

PUBLIC = (
    "OPERATORS AdaMergingResult IncompatibleCheckpoints MergeDiverged MergeResult NotEnoughSpace Operator "
    "OperatorEntry TaskVectorGram TensorVectors UnreadableCheckpoint combine merge merge_lora "
    "merge_state_dicts merge_with_result metagpt_coefficients open_adapters task_vector_gram task_vectors "
    "trim_task_vectors tune_by_gradient"
).split()


def test_the_public_names_are_these() -> None:
    assert advisor.merging.__all__ == PUBLIC
    assert all(hasattr(advisor.merging, name) for name in PUBLIC)


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

from pathlib import Path

import yaml
from safetensors.numpy import save_file

from advisor.merging import merge
from tests.advisor.merging.checkpoints import random_base, random_experts


def test_the_card_tells_recipe_norms_and_given_figures(tmp_path: Path) -> None:
    base = random_base()
    names = ["base", "a", "b"]
    for name, state in zip(names, [base, *random_experts(base, 2)], strict=True):
        save_file(state, tmp_path / f"{name}.safetensors")
    experts = {name: tmp_path / f"{name}.safetensors" for name in "ab"}
    result = merge(
        tmp_path / "base.safetensors",
        experts,
        coefficients={"a": 0.25, "b": 0.5},
        out=tmp_path / "out",
        figures={"measured accuracy, task a": 0.9125, "verdict": "merge"},
        keep_base=["cls_*"],
    )
    card = (tmp_path / "out" / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert "merge" in front["tags"]
    assert f"| a | `{experts['a']}` | 0.25 | {result.norms[0]:.6g} |" in card
    assert "| measured accuracy, task a | 0.9125 |" in card
    assert "| verdict | merge |" in card
    assert "- `cls_token`: the base's value" in card
    assert "Not possible: tensor 'bn.num_batches_tracked' was kept" in card
    assert f"| a | 1.000 | {result.cosines[0, 1]:.3f} |" in card
    assert not (tmp_path / "out" / "mergekit.yml").exists()

import numpy as np
import pytest
from PIL import Image

from estimators.datasets import Catalogue, Side, shortened


def catalogue(labels: list[int], classes: tuple[str, ...] = ("a", "b", "c"), sides: tuple[Side, ...] = ()) -> Catalogue:
    return Catalogue(
        origin="data/x",
        names=tuple(f"{i:03d}" for i in range(len(labels))),
        labels=np.array(labels, dtype=np.int64),
        class_names=classes,
        sides=sides or tuple("" for _ in labels),
        open_sample=lambda i: Image.new("L", (1, 1), i),
    )


def test_a_choice_of_classes_relabels_in_the_order_given() -> None:
    chosen = catalogue([0, 1, 2, 0, 2]).with_classes(["c", "a"])
    assert chosen.class_names == ("c", "a")
    assert chosen.names == ("000", "002", "003", "004")
    assert chosen.labels.tolist() == [1, 0, 1, 0]
    assert chosen.open_sample(1).getpixel((0, 0)) == 2
    assert chosen.counts() == {"c": 2, "a": 2}


def test_unknown_and_repeated_classes_are_refused() -> None:
    rose = catalogue([0, 1], classes=("rose", "tulip"))
    with pytest.raises(ValueError, match="classes='rsoe' is no class of data='data/x'; did you mean 'rose'"):
        rose.with_classes(["rsoe", "tulip"])
    with pytest.raises(ValueError, match="names a class twice"):
        rose.with_classes(["rose", "rose"])


def test_a_source_that_cannot_be_a_task_is_refused() -> None:
    with pytest.raises(ValueError, match=r"data='data/x' has one class only \(a\).*at least two"):
        catalogue([0, 0], classes=("a",))
    with pytest.raises(ValueError, match="holds no image"):
        catalogue([])
    with pytest.raises(ValueError, match="labels from -1 to 0.*samples without a label"):
        catalogue([-1, 0])
    with pytest.raises(ValueError, match="2 sides; they must agree"):
        catalogue([0, 1, 1], sides=("train", "test"))


def test_long_lists_are_shortened() -> None:
    assert shortened(["a"]) == "a"
    assert shortened([str(i) for i in range(8)]) == "0, 1, 2, 3, 4 and 3 more"

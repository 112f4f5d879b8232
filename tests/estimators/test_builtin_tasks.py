import numpy as np
import pytest
from sklearn.datasets import load_digits

from estimators.builtin_tasks import BUILTIN_TASKS, POOL_ENDS, builtin_catalogue, pool_indices
from estimators.image_decoding import decode

DEMO = [f"builtin/digits-{name}" for name in ("rotated-low", "rotated-high", "rotated-even", "rotated-odd")]


def test_the_pools_part_all_digits_without_overlap() -> None:
    together = np.concatenate([pool_indices(pool) for pool in POOL_ENDS])
    assert sorted(together.tolist()) == list(range(1797))


def test_no_task_shares_an_image_with_the_pretraining_set() -> None:
    pretrain = set(builtin_catalogue("builtin/digits-pretrain").names)
    assert len(pretrain) in range(595, 605)
    for data in BUILTIN_TASKS:
        if data != "builtin/digits-pretrain":
            assert pretrain.isdisjoint(builtin_catalogue(data).names)


def test_tasks_of_one_pool_name_their_shared_images_alike() -> None:
    low, high, even, odd = (set(builtin_catalogue(data).names) for data in DEMO)
    assert low | high == even | odd == set(builtin_catalogue("builtin/digits").names)
    assert low.isdisjoint(high)
    assert {builtin_catalogue(data).pool for data in DEMO} == {"builtin/tasks"}


def test_the_demo_tasks_have_about_600_images_each_and_every_class() -> None:
    for data in DEMO:
        catalogue = builtin_catalogue(data)
        assert 590 <= len(catalogue) <= 610
        assert min(catalogue.counts().values()) >= 110


@pytest.mark.parametrize("data", BUILTIN_TASKS)
def test_labels_and_pixels_are_those_of_scikit_learn(data: str) -> None:
    digits = load_digits()
    catalogue, view = builtin_catalogue(data), BUILTIN_TASKS[data].view
    for position in (0, len(catalogue) // 2, len(catalogue) - 1):
        index = int(catalogue.names[position].removeprefix("digit-"))
        assert catalogue.class_names[catalogue.labels[position]] == str(digits.target[index])
        pixels = decode(catalogue.open_sample(position), size=8, channels=1)[0]
        expected = view(np.rint(digits.images[index] * 255 / 16).astype(np.uint8))
        assert (pixels == expected).all()


def test_rotated_digits_are_turned_and_inverted_ones_mirrored_and_inverted() -> None:
    corner = np.zeros((8, 8), dtype=np.uint8)
    corner[0, 7] = 255  # top right
    assert BUILTIN_TASKS["builtin/digits-rotated"].view(corner)[0, 0] == 255
    inverted = BUILTIN_TASKS["builtin/digits-inverted"].view(corner)
    assert inverted[0, 0] == 0
    assert inverted.sum() == 63 * 255


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ValueError, match="builtin/digits-lwo.*did you mean 'builtin/digits-low'"):
        builtin_catalogue("builtin/digits-lwo")
    with pytest.raises(ValueError, match="no built-in task; the built-in tasks are"):
        builtin_catalogue("builtin/zzzzzzzzzzzzzzzzzz")

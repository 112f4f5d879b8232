"""Image tasks: which images they hold and how these look."""

import numpy as np

from benchmarks.image_tasks import IMAGE_TASKS, VIEWS


def test_no_fashion_task_shares_an_image_with_the_pool_that_backbones_are_pretrained_on() -> None:
    pool = IMAGE_TASKS["fashion-pretrain"]
    others = [task for task in IMAGE_TASKS.values() if task.source == "fashion" and task != pool]
    assert len(others) >= 9
    assert all(task.first >= pool.first + pool.count for task in others)


def test_the_two_turned_tasks_share_no_image() -> None:
    plain, striped = IMAGE_TASKS["fashion-turned"], IMAGE_TASKS["fashion-turned-striped"]
    assert plain.first + plain.count <= striped.first


def test_every_view_keeps_the_size_and_changes_the_pixels_unless_it_is_upright() -> None:
    image = np.random.default_rng(0).integers(0, 256, size=(28, 28), dtype=np.uint8)
    for name, view in VIEWS.items():
        seen = view(image)
        assert seen.shape == image.shape, name
        assert seen.dtype == np.uint8, name
        assert np.array_equal(seen, image) == (name == "upright"), name


def test_stripes_on_a_turned_image_leave_two_rows_in_three_as_turned() -> None:
    image = np.random.default_rng(1).integers(0, 256, size=(28, 28), dtype=np.uint8)
    striped, turned = VIEWS["rotated-striped"](image), VIEWS["rotated"](image)
    assert (striped[::3] == 160).all()
    assert np.array_equal(np.delete(striped, np.s_[::3], axis=0), np.delete(turned, np.s_[::3], axis=0))

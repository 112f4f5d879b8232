import numpy as np
import pytest
import torch

from estimators.gradient_rows import draw_samples
from estimators.heterogeneity import Heterogeneity, MeanGradients, TaskVectorCosines, goal_weights
from estimators.per_sample_gradients import measure_gradients
from tests.known_problems import random_quadratic_problem
from tests.quadratic_objectives import rows_of
from tests.small_networks import NETWORKS, small_objective, small_split


def problem_rows(rng, count, **options):
    problem = random_quadratic_problem(rng, num_tasks=3, num_parameters=6, **options)
    draws = [task.sample(count, rng) for task in problem.tasks]
    rows = {
        name: rows_of(task.gradients(problem.start, draw))
        for name, task, draw in zip(problem.names, problem.tasks, draws, strict=True)
    }
    return problem, rows


def weights_of(problem):
    return dict(zip(problem.names, problem.task_weights.tolist(), strict=True))


def test_gram_matrix_is_the_naive_u_statistic():
    problem, rows = problem_rows(np.random.default_rng(0), 30)
    found = Heterogeneity().fit(rows).unbiased_gram_
    gradients = [item.sketches.numpy() for item in rows.values()]
    for i, a in enumerate(gradients):
        for j, b in enumerate(gradients):
            products = a @ b.T
            pairs = products[~np.eye(30, dtype=bool)] if i == j else products
            assert found[i, j] == pytest.approx(pairs.mean(), rel=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_gram_matrix_of_networks_equals_that_of_ordinary_gradients(name):
    objective = small_objective(name)
    splits = {"a": small_split(16, seed=1), "b": small_split(16, seed=2)}
    rows, means = {}, []
    for task, split in splits.items():
        rows[task] = measure_gradients(objective, objective.initial, split, population=16).best
        point = objective.initial.clone().requires_grad_()
        objective.losses(point, split.inputs, split.labels).mean().backward()
        means.append(point.grad.double())
    truth = (torch.stack(means) @ torch.stack(means).T).numpy()
    assert Heterogeneity().fit(rows).unbiased_gram_ == pytest.approx(truth, rel=1e-5, abs=1e-5 * truth.max())


def test_sampling_part_is_subtracted_so_that_means_hit_the_truth():
    rng = np.random.default_rng(1)
    problem, _ = problem_rows(rng, 8, spread=0.3)
    truth = problem.gram(problem.start)
    grams, zetas, plain = [], [], []
    for _ in range(400):
        rows = {
            name: rows_of(task.gradients(problem.start, task.sample(16, rng)))
            for name, task in zip(problem.names, problem.tasks, strict=True)
        }
        means = MeanGradients(list(rows.values()))
        grams.append(means.unbiased_gram())
        zetas.append([means.squared_length(np.eye(3)[i] - problem.task_weights) for i in range(3)])
        plain.append(means.raw_gram)
    errors = np.std(grams, axis=0) / 20
    assert (np.abs(np.mean(grams, axis=0) - truth) < 4 * errors).all()
    assert (
        np.abs(np.mean(zetas, axis=0) - problem.heterogeneity(problem.start)) < 4 * np.std(zetas, axis=0) / 20
    ).all()
    assert (np.diag(np.mean(plain, axis=0) - truth) > 5 * np.diag(errors)).all()  # what is subtracted matters


def test_the_whole_population_has_no_sampling_part():
    rng = np.random.default_rng(2)
    gradients = rng.standard_normal((10, 4))
    rows = rows_of(gradients, population=10)
    cell = Heterogeneity().fit({"only": rows}).gram_[0][0]
    assert cell.low == pytest.approx(cell.value)
    assert cell.value == pytest.approx(float(np.square(gradients.mean(0)).sum()))


def test_task_order_only_permutes():
    problem, rows = problem_rows(np.random.default_rng(3), 40)
    forward = Heterogeneity(task_weights=weights_of(problem)).fit(rows)
    backward = Heterogeneity(task_weights=weights_of(problem)).fit(dict(reversed(rows.items())))
    for name in problem.names:
        assert forward.estimates_[name].value == pytest.approx(backward.estimates_[name].value)
        assert forward.estimates_[name].low == pytest.approx(backward.estimates_[name].low, rel=1e-6)


def test_loss_scale_scales_everything_by_its_square():
    problem, rows = problem_rows(np.random.default_rng(4), 40)
    scaled = {name: rows_of(3 * item.sketches.numpy()) for name, item in rows.items()}
    one, nine = (Heterogeneity().fit(item).estimates_[problem.names[0]] for item in (rows, scaled))
    assert [nine.value, nine.low, nine.high] == pytest.approx([9 * one.value, 9 * one.low, 9 * one.high], rel=1e-6)


def test_noise_alone_is_flagged_and_a_negative_estimate_is_noted():
    rng = np.random.default_rng(5)
    noise = rng.standard_normal((32, 6))
    noise -= noise.mean(0)
    cell = Heterogeneity().fit({"only": rows_of(noise)}).gram_[0][0]
    assert (cell.value, cell.low, cell.identifiable) == (0.0, 0.0, False)
    assert "the unbiased estimate is -" in cell.note


def test_progress_direction_is_unbiased_with_an_honest_error():
    rng = np.random.default_rng(6)
    problem, _ = problem_rows(rng, 8, spread=0.3)
    truth = float(problem.gram(problem.start)[0] @ problem.task_weights)
    values, errors = [], []
    for _ in range(400):
        rows = [rows_of(task.gradients(problem.start, task.sample(32, rng))) for task in problem.tasks]
        value, error = MeanGradients(rows).directional(0, problem.task_weights)
        values.append(value)
        errors.append(error)
    assert np.mean(values) == pytest.approx(truth, abs=4 * np.std(values) / 20)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(values), rel=0.25)


def test_cosines_of_task_vectors_and_their_correction():
    rng = np.random.default_rng(7)
    direction = torch.as_tensor(rng.standard_normal(2000))
    noise = [torch.as_tensor(rng.standard_normal(2000)) for _ in range(2)]
    vectors = {"a": direction + noise[0], "b": direction + noise[1]}
    found = TaskVectorCosines(diffusion={"a": 2000.0, "b": 2000.0}).fit(vectors)
    a, b = (vector.numpy() for vector in vectors.values())
    assert found.cosines_[0, 1] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    assert found.cosines_[0, 1] == pytest.approx(0.5, abs=0.06)
    assert found.corrected_cosines_[0, 1] == pytest.approx(1.0, abs=0.1)
    with pytest.raises(ValueError, match="are zero, without a direction"):
        TaskVectorCosines().fit({"a": torch.zeros(3), "b": torch.ones(3)})


def test_goal_weights_must_be_a_share_for_every_task():
    assert goal_weights(["a", "b"], None).tolist() == [0.5, 0.5]
    with pytest.raises(ValueError, match="give every task a weight"):
        goal_weights(["a", "b"], {"a": 1.0})
    with pytest.raises(ValueError, match="divide by their sum"):
        goal_weights(["a", "b"], {"a": 1.0, "b": 1.0})


def test_draws_are_without_replacement():
    split = small_split(10)
    drawn = draw_samples(split, 6, 0, device=torch.device("cpu"))
    assert len({float(x.sum()) for x in drawn.inputs}) == 6
    assert len(draw_samples(split, 99, 0, device=torch.device("cpu"))) == 10

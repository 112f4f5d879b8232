r"""Where the worst-case theorem does not hold: every broken condition in words, with its number.

The theorem of ``docs/theory.md`` section 2 is one about SGD with replacement on losses that are smooth for every sample
and never negative, merged linearly with coefficients and weights fixed beforehand.  Real training breaks some of that.
What is broken informs the reader of the bound; it never decides the status of advice alone.

``Situation`` states the facts that neither constants nor plan can know.  A fact left at ``None`` is not known, and then
the condition is listed with ``certain=False`` instead of being passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from advisor.bound import BoundConstants, Form, Growth, worst_case
from advisor.plan import Plan, PlanTable
from estimators.recipe import Recipe

LINEAR_METHODS = ("task_arithmetic", "average", "weighted_average")


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenAssumption:
    """One condition of the theorem that does not hold.

    Attributes:
        name: machine name, stable.
        sentence: what is broken, naming the numbers.
        certain: False where it is only not known whether the condition holds.
    """

    name: str
    sentence: str
    certain: bool = True

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Facts about network, training and merge; ``None`` where not known.

    Attributes:
        form: stability form that the bound is read with.
        growth: growth that it is read with.
        smooth_network: no ReLU, max-pooling or other kink.
        convex_loss: every sample's loss is convex in the weights that move.
        nonnegative_loss: the loss cannot be negative.
        batch_norm_in_train_mode: batch statistics enter the loss of a sample.
        dropout: random masks during training.
        augmentation: random changes of the inputs.
        gradient_clipping: gradients are clipped.
        checkpoint_chosen_from_data: early stopping, or the best checkpoint kept.
        heads_fitted_on_training_samples: frozen heads come from the same samples.
        start_fitted_on_training_samples: x_0 comes from the same samples.
        samples_shared_between_tasks: some sample is in two tasks.
        batch_order_shared_between_tasks: experts see the same random order.
        goal_weights_fixed_beforehand: p was not chosen from results.
        coefficients_chosen_after_training: lambda was tuned on the finished experts.
        layerwise_coefficients: one lambda for each layer.
        smallest_coefficient: the smallest lambda used anywhere, if other than the plan's.
        pl_constant_of_realised_risk: mu holds for almost every realised F, not for f or one sample of data.
    """

    form: Form = "refined"
    growth: Growth = "general"
    smooth_network: bool | None = None
    convex_loss: bool | None = None
    nonnegative_loss: bool | None = None
    batch_norm_in_train_mode: bool | None = None
    dropout: bool | None = None
    augmentation: bool | None = None
    gradient_clipping: bool | None = None
    checkpoint_chosen_from_data: bool | None = None
    heads_fitted_on_training_samples: bool | None = None
    start_fitted_on_training_samples: bool | None = None
    samples_shared_between_tasks: bool | None = None
    batch_order_shared_between_tasks: bool | None = None
    goal_weights_fixed_beforehand: bool | None = None
    coefficients_chosen_after_training: bool | None = None
    layerwise_coefficients: bool | None = None
    smallest_coefficient: float | None = None
    pl_constant_of_realised_risk: bool | None = None


def broken_assumptions(constants: BoundConstants, plan: Plan, situation: Situation) -> tuple[BrokenAssumption, ...]:
    """Every condition of the theorem that this plan breaks, or may break, in the order of ``docs/theory.md``."""
    if plan.names != constants.names:
        raise ValueError(f"plan names the tasks {plan.names}, constants {constants.names}; use the same in one order")
    found: list[BrokenAssumption] = []
    for part in (_steps, _constants, _training, _facts, _merge, _value):
        found.extend(part(constants, plan, situation))
    return tuple(found)


Broken = Iterator[BrokenAssumption]


def _tasks_where(plan: Plan, test: Callable[[Recipe], bool]) -> list[str]:
    return [name for name, recipe in plan.recipes.items() if test(recipe)]


def _longest(recipe: Recipe) -> float:
    """Largest eta a_k of a recipe, |x|^2/loss."""
    return float(recipe.learning_rate * recipe.step_weights().max())


def _steps(c: BoundConstants, plan: Plan, situation: Situation) -> Broken:
    longest = {name: _longest(recipe) for name, recipe in plan.recipes.items()}
    heavy = _tasks_where(plan, lambda r: r.momentum > 0)
    if situation.growth == "convex":
        limit = 2 / c.smoothness
        over = [name for name, step in longest.items() if step > limit]
        if over:
            yield BrokenAssumption(
                name="step_too_long_for_convex_growth",
                sentence=f"the longest step eta*a_k={_range(longest[n] for n in over)} exceeds 2/L={limit:.3g} "
                f"({', '.join(over)}), so g = 1 + eta L a_k is used instead of g = 1",
            )
        if heavy:
            yield BrokenAssumption(
                name="momentum_in_convex_growth",
                sentence=f"momentum {plan.recipes[heavy[0]].momentum:g} ({', '.join(heavy)}) is not a contraction even "
                "where losses are convex, so g = 1 + eta L a_k is used instead of g = 1",
            )
        if situation.convex_loss is not True:
            yield _stated(
                "loss_not_convex",
                "g = 1 asks for a loss that is convex in the moving weights for every sample; a deep network's is not",
                situation.convex_loss is False,
            )
    limits = {name: 1 / value for name, value in zip(c.names, c.task_smoothness.tolist(), strict=True)}
    over = [name for name in plan.names if longest[name] > limits[name] or name in heavy]
    if over:
        momentum = f" and momentum {plan.recipes[heavy[0]].momentum:g}" if heavy else ""
        yield BrokenAssumption(
            name="no_displacement_by_descent",
            sentence=f"the longest step eta*a_k={_range(longest[n] for n in over)} against 1/L_i="
            f"{_range(limits[n] for n in over)}{momentum} ({', '.join(over)}) leaves only the growing form of d_i",
        )


def _range(values: Iterable[float]) -> str:
    """One number, or the smallest and largest of several."""
    ends = sorted(values)
    low, high = f"{ends[0]:.3g}", f"{ends[-1]:.3g}"
    return low if low == high else f"{low} to {high}"


def _constants(c: BoundConstants, plan: Plan, situation: Situation) -> Broken:
    source = c.sources.get("smoothness", "")
    if source and source != "sample_smoothness":
        yield BrokenAssumption(
            name="smoothness_not_per_sample",
            sentence=f"L={c.smoothness:.3g} comes from {source}, which is smaller than the Lipschitz constant of every "
            "sample's gradient that the theorem asks for",
        )
    square = c.gradient_variance + c.initial_gradient_norm**2
    most = 2 * c.smoothness * c.initial_risk
    over = [i for i in range(len(c.names)) if square[i] > most[i]]
    if over:
        worst = max(over, key=lambda i: square[i] / most[i])
        yield BrokenAssumption(
            name="self_bounding_fails",
            sentence=f"{c.names[worst]}: sigma^2 + G^2={square[worst]:.3g} exceeds 2 L F_i(x0)={most[worst]:.3g}, "
            f"impossible for a non-negative loss: L={c.smoothness:.3g} is too small"
            + (f"; so too for {', '.join(c.names[i] for i in over if i != worst)}" if len(over) > 1 else ""),
        )
    if c.sources:
        yield BrokenAssumption(
            name="constants_at_start_only",
            sentence=f"L={c.smoothness:.3g} and sigma^2={c.gradient_variance.max():.3g} were measured at or near x0, "
            "not as a bound along the whole path",
        )
    if c.pl_constant > 0 and situation.pl_constant_of_realised_risk is not True:
        yield _stated(
            "pl_constant_not_of_every_sample",
            f"mu={c.pl_constant:.3g} must hold for almost every realised empirical risk, not for the population's or "
            "one sample of data",
            situation.pl_constant_of_realised_risk is False,
        )


def _training(c: BoundConstants, plan: Plan, situation: Situation) -> Broken:
    adaptive = _tasks_where(plan, lambda r: r.optimizer == "adamw")
    if adaptive:
        yield BrokenAssumption(
            name="adaptive_optimizer",
            sentence=f"AdamW ({', '.join(adaptive)}) rescales each weight by its own gradients; the bound treats its "
            f"{plan.recipes[adaptive[0]].steps} steps as plain SGD",
        )
    decayed = _tasks_where(plan, lambda r: r.weight_decay > 0)
    if decayed:
        yield BrokenAssumption(
            name="weight_decay",
            sentence=f"weight decay {plan.recipes[decayed[0]].weight_decay:g} ({', '.join(decayed)}) pulls the weights "
            "outside of F_i",
        )
    shuffled = _tasks_where(plan, lambda r: r.sampling == "shuffled")
    if shuffled:
        draws = _range(plan.recipes[n].steps * plan.recipes[n].batch_size for n in shuffled)
        samples = _range(plan.recipes[n].num_samples or int(c.num_samples[c.names.index(n)]) for n in shuffled)
        yield BrokenAssumption(
            name="shuffled_epochs",
            sentence=f"shuffled epochs ({', '.join(shuffled)}: K b={draws} draws from n={samples}) draw without "
            "replacement; the theorem is proved for draws with replacement",
        )
    aligned = _tasks_where(plan, lambda r: r.alignment != "none")
    if aligned:
        yield BrokenAssumption(
            name="aligned_training",
            sentence=f"alignment {plan.recipes[aligned[0]].alignment!r} ({', '.join(aligned)}) follows other gradients "
            "than those of F_i",
        )
    if situation.form == "paper":
        limits = {
            name: int(min(recipe.num_samples or n, n)) * recipe.batch_size
            for name, recipe, n in zip(plan.names, plan.recipes.values(), c.num_samples, strict=True)
        }
        over = [name for name, recipe in plan.recipes.items() if recipe.steps > limits[name]]
        if over:
            yield BrokenAssumption(
                name="paper_form_too_many_steps",
                sentence=f"K={_range(plan.recipes[n].steps for n in over)} exceeds n b="
                f"{_range(limits[n] for n in over)} ({', '.join(over)}), beyond which the paper's form of the "
                "stability is no upper bound",
            )


_FACTS: tuple[tuple[str, bool, str, str], ...] = (
    ("smooth_network", True, "non_smooth_network", "a network with kinks (ReLU, max-pooling) has no finite L"),
    ("nonnegative_loss", True, "loss_may_be_negative", "self-bounding asks for a loss that is never negative"),
    ("gradient_clipping", False, "gradient_clipping", "clipped gradients are not those of F_i"),
    (
        "batch_norm_in_train_mode",
        False,
        "batch_norm_statistics",
        "batch-norm statistics make a sample's loss depend on the rest of its batch",
    ),
    ("dropout", False, "dropout", "dropout trains on another loss in every step"),
    ("augmentation", False, "augmentation", "augmented inputs are no i.i.d. draws from the n samples"),
    (
        "checkpoint_chosen_from_data",
        False,
        "checkpoint_chosen_from_data",
        "early stopping or a checkpoint chosen from data makes the number of steps depend on the samples",
    ),
    (
        "heads_fitted_on_training_samples",
        False,
        "heads_fitted_on_training_samples",
        "frozen heads fitted on the training samples tie the loss itself to them",
    ),
    (
        "start_fitted_on_training_samples",
        False,
        "start_fitted_on_training_samples",
        "x0 fitted on the training samples is not independent of them",
    ),
    (
        "samples_shared_between_tasks",
        False,
        "samples_shared_between_tasks",
        "samples shared between tasks tie the experts to each other",
    ),
    (
        "batch_order_shared_between_tasks",
        False,
        "batch_order_shared_between_tasks",
        "a batch order shared between tasks ties their noise together",
    ),
    (
        "goal_weights_fixed_beforehand",
        True,
        "goal_weights_not_fixed_beforehand",
        "goal weights chosen from results are not the p of the theorem",
    ),
)


def _facts(c: BoundConstants, plan: Plan, situation: Situation) -> Broken:
    for fact, needed, name, sentence in _FACTS:
        value = getattr(situation, fact)
        if value is not needed:
            yield _stated(name, sentence, value is not None)


def _merge(c: BoundConstants, plan: Plan, situation: Situation) -> Broken:
    if situation.smallest_coefficient is not None and situation.smallest_coefficient < 0:
        yield BrokenAssumption(
            name="negative_coefficient",
            sentence=f"a coefficient of {situation.smallest_coefficient:g} is negative; the theorem needs lambda >= 0",
        )
    total = sum(plan.coefficients.values())
    if situation.layerwise_coefficients is not False:
        yield _stated(
            "layerwise_coefficients",
            f"coefficients of each layer are not the single lambda of each task (sum {total:.3g}) of the theorem",
            situation.layerwise_coefficients is True,
        )
    if situation.coefficients_chosen_after_training is not False:
        yield _stated(
            "coefficients_chosen_after_training",
            f"coefficients (sum {total:.3g}) chosen after seeing the experts depend on the samples",
            situation.coefficients_chosen_after_training is True,
        )
    if plan.method not in LINEAR_METHODS:
        yield BrokenAssumption(
            name="nonlinear_operator",
            sentence=f"{plan.method} is no linear merge x0 + sum lambda_i (x_i - x0), which the theorem is about",
        )


def _value(c: BoundConstants, plan: Plan, situation: Situation) -> Broken:
    table = PlanTable.from_plans([plan], {name: int(n) for name, n in zip(c.names, c.num_samples, strict=True)})
    terms = worst_case(c, table, form=situation.form, growth=situation.growth)
    if terms.vacuous[0]:
        yield BrokenAssumption(
            name="vacuous",
            sentence=f"the bound is 10^{terms.log10('total')[0]:.3g} and F(x0)={c.goal_risk:.3g}: it promises no more "
            "than x0 does (vacuous)",
        )


def _stated(name: str, sentence: str, certain: bool) -> BrokenAssumption:
    """A condition that is broken, or of which it is not known whether it holds."""
    return BrokenAssumption(name=name, sentence=sentence if certain else f"not known: {sentence}", certain=certain)

r"""What the pool of the claims holds: networks, tasks, runs and checkpoints.

Two small timm networks are pre-trained on a third of scikit-learn's digits, upright; eight tasks are made from the
others, turned by 90 degrees or with rows and columns exchanged, each 0-4, 5-9, even or odd digits.  No file is needed
that scikit-learn does not carry.  All runs of a unit (network, seed) are named here; rates of SGD are fractions of 2/L
with L the largest top curvature that was measured at x_0, rates of AdamW are the network's own.

A run with a constant rate is also the run of every shorter one, so one run serves many claims:

    base, more      AdamW, the base recipe, on the four main and the four further tasks
    slow, fast      a third of and three times the base rate          b2, b32        other batch sizes
    n8, n4, n2      an eighth, a quarter, half of the samples         tangent, sam   aligned in training
    sgd-0.125 ...   plain SGD at a fraction of 2/L                    sgd-b2, sgd-b32
"""

from __future__ import annotations

from dataclasses import dataclass

from estimators.recipe import Recipe

MAIN = ("turned-low", "turned-high", "turned-even", "turned-odd")
FURTHER = ("transposed-low", "transposed-high", "transposed-even", "transposed-odd")
TASKS = {name: "builtin/digits-" + name.replace("turned", "rotated") for name in MAIN + FURTHER}
SPLIT = (0.55, 0.15, 0.30)
BATCH = 8
SLOWER, FASTER = 1 / 3, 3.0
SHARES = {"n8": 1 / 8, "n4": 1 / 4, "n2": 1 / 2}  # of the training samples
SGD_BATCH_FRACTION = 1 / 4  # of 2/L, where the batch size of SGD is varied
PROBE_STEPS = 40  # the model is fitted on merges of at most so many steps; claims are judged on later ones
METHODS = ("ties", "dare")
COEFFICIENTS = (0.125, 0.25, 0.5, 0.75, 1.0, 2.0)  # of linear merges of the base run
METHOD_COEFFICIENTS = {"ties": (0.25, 0.5, 1.0, 2.0), "dare": (0.125, 0.25, 0.5, 1.0)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A backbone of the pool.

    Attributes:
        model: timm name.
        image_size: side of the inputs.
        epochs: passes of pre-training.
        pretraining_rate: its peak rate.
        rate: AdamW's base rate of the fine-tunes.
    """

    model: str
    image_size: int
    epochs: int
    pretraining_rate: float
    rate: float


NETWORKS = {
    "resnet": Network(model="test_resnet", image_size=16, epochs=10, pretraining_rate=3e-3, rate=2e-4),
    "vit": Network(model="test_vit", image_size=32, epochs=15, pretraining_rate=1e-3, rate=6e-5),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRun:
    """One recipe on some tasks.

    Attributes:
        name: of the run.
        recipe: as trained.
        tasks: on which.
        checkpoints: steps at which experts are kept.
    """

    name: str
    recipe: Recipe
    tasks: tuple[str, ...]
    checkpoints: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """How large a pool is.

    Attributes:
        name: folder of the pool.
        networks: keys of ``NETWORKS``.
        seeds: of splits, heads and batch order.
        checkpoints: of the base run, increasing.
        middle: steps at which recipes are compared; one of ``checkpoints``.
        sgd_steps: length of the SGD sweep.
        fractions: rates of the SGD sweep, of 2/L.
        twin_fractions: rates of the twin runs, of 2/L.
        twin_batches: batch sizes of the twin runs at ``twin_fractions[1]``, besides ``BATCH``.
        twin_pairs: pairs for each setting.
        twin_steps: their length.
        twin_samples: their training samples.
        subsets: random subsets of tasks for each number of tasks.
        claims: what is measured.
    """

    name: str
    networks: tuple[str, ...]
    seeds: tuple[int, ...]
    checkpoints: tuple[int, ...]
    middle: int
    sgd_steps: int
    fractions: tuple[float, ...]
    twin_fractions: tuple[float, ...]
    twin_batches: tuple[int, ...]
    twin_pairs: int
    twin_steps: int
    twin_samples: int
    subsets: int
    claims: tuple[int, ...]

    def __post_init__(self) -> None:
        """Steps at which recipes are compared must be kept."""
        if self.middle not in self.checkpoints:
            raise ValueError(f"middle={self.middle} is no checkpoint; choose one of {self.checkpoints}")

    @property
    def early(self) -> tuple[int, ...]:
        """Checkpoints that the model may be fitted on."""
        return tuple(step for step in self.checkpoints if step <= PROBE_STEPS)

    def runs(self, network: Network, edge: float, num_samples: int) -> list[PoolRun]:
        """Every run of a unit.

        Args:
            network: gives AdamW's rates.
            edge: 2/L.
            num_samples: training samples of the smallest main task.
        """
        base = Recipe(learning_rate=network.rate, batch_size=BATCH, steps=self.checkpoints[-1], optimizer="adamw")
        other = base.replace(steps=self.middle)
        short = tuple(step for step in self.checkpoints if step <= self.middle)
        found = [
            PoolRun(name="base", recipe=base, tasks=MAIN, checkpoints=self.checkpoints),
            PoolRun(name="more", recipe=other, tasks=FURTHER, checkpoints=short),
        ]
        if not set(self.claims) <= {1, 3, 5}:
            variants = {
                "slow": other.replace(learning_rate=network.rate * SLOWER),
                "fast": other.replace(learning_rate=network.rate * FASTER),
                "b2": other.replace(batch_size=2),
                "b32": other.replace(batch_size=32),
            }
            variants |= {name: other.replace(num_samples=round(share * num_samples)) for name, share in SHARES.items()}
            aligned = other.replace(steps=self.middle // 2)
            variants |= {"tangent": aligned.replace(alignment="tangent"), "sam": aligned.replace(alignment="sam")}
            found += [self._run(name, recipe, short) for name, recipe in variants.items()]
        sgd = Recipe(learning_rate=edge, batch_size=BATCH, steps=self.sgd_steps)
        steps = (10, 20, self.sgd_steps)
        found += [self._run(f"sgd-{f:g}", sgd.replace(learning_rate=f * edge), steps) for f in self.fractions]
        if 2 in self.claims:
            quarter = sgd.replace(learning_rate=SGD_BATCH_FRACTION * edge)
            found += [self._run(f"sgd-b{b}", quarter.replace(batch_size=b), steps) for b in (2, 32)]
        return found

    @staticmethod
    def _run(name: str, recipe: Recipe, steps: tuple[int, ...]) -> PoolRun:
        kept = tuple(sorted({step for step in steps if step <= recipe.steps} | {recipe.steps}))
        return PoolRun(name=name, recipe=recipe, tasks=MAIN, checkpoints=kept)


FULL = Design(
    name="full",
    networks=("resnet", "vit"),
    seeds=(0, 1, 2),
    checkpoints=(10, 20, 40, 80, 160, 320, 640, 1280),
    middle=160,
    sgd_steps=80,
    fractions=(1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0),
    twin_fractions=(1 / 16, 1 / 8, 1 / 4, 1 / 2),
    twin_batches=(2, 32),
    twin_pairs=5,
    twin_steps=32,
    twin_samples=64,
    subsets=3,
    claims=tuple(range(1, 11)),
)
SMALL = Design(
    name="small",
    networks=("resnet",),
    seeds=(100, 101, 102),
    checkpoints=(10, 20, 40, 80, 160),
    middle=40,
    sgd_steps=40,
    fractions=(1 / 8, 1 / 2, 1.0, 2.0, 4.0),
    twin_fractions=(1 / 16, 1 / 8, 1 / 4, 1 / 2),
    twin_batches=(),
    twin_pairs=3,
    twin_steps=24,
    twin_samples=64,
    subsets=2,
    claims=(1, 3, 5),
)

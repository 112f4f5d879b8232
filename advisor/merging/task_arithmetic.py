"""Task arithmetic: add scaled task vectors to the base.

    x_avg = x₀ + Σ c_t τ_t

The default c_t = 0.3 is the value used without validation data in the paper's successors; a good sum may exceed 1.
Source: Ilharco et al. 2022, arXiv 2212.04089.
"""

from advisor.merging.operator import Operator, TensorVectors

DEFAULT_COEFFICIENT = 0.3


def task_arithmetic_operator() -> Operator:
    """The plain sum of scaled task vectors."""
    return Operator(
        name="task_arithmetic",
        merge=TensorVectors.weighted_sum,
        default_coefficient=DEFAULT_COEFFICIENT,
        elementwise=True,
    )

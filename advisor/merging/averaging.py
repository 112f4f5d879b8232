"""Simple and weighted averages of experts.

    simple:    x_avg = (1/N) Σ x_t            = x₀ + (1/N) Σ τ_t
    weighted:  x_avg = Σ c_t x_t / Σ c_t      = x₀ + Σ (c_t/Σc) τ_t        (Σc > 0)

Equal to task arithmetic with coefficients that sum to one.
Source: Wortsman et al. 2022, Model soups, arXiv 2203.05482; Matena & Raffel 2022, arXiv 2111.09832.
"""

from advisor.merging.operator import Operator, TensorVectors


def average_operator() -> Operator:
    """Every expert weighs 1/N; takes no coefficients."""
    return Operator(name="average", merge=TensorVectors.weighted_sum, weights="equal", elementwise=True)


def weighted_average_operator() -> Operator:
    """Every expert weighs c_t / Σ c."""
    return Operator(name="weighted_average", merge=TensorVectors.weighted_sum, weights="normalize", elementwise=True)

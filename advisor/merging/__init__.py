"""Merging fine-tuned experts: operators, a streaming engine, and the inner products that come with it.

    x_avg = x₀ + Π(c₁, τ₁, ..., c_N, τ_N),        τ_t = x_t − x₀

Importing this package imports no torch; `fisher_estimation` and `activation_grams`, which do, are imported by name. See
docs/merging.md.
"""

from advisor.merging.adamerging import AdaMergingResult, MergeDiverged, tune_by_gradient
from advisor.merging.compatibility import IncompatibleCheckpoints
from advisor.merging.grams import TaskVectorGram
from advisor.merging.lora import merge_lora, open_adapters
from advisor.merging.metagpt import metagpt_coefficients
from advisor.merging.operator import Operator, OperatorEntry, TensorVectors
from advisor.merging.registry import OPERATORS
from advisor.merging.results import MergeResult
from advisor.merging.safetensors_writing import NotEnoughSpace
from advisor.merging.sources import UnreadableCheckpoint
from advisor.merging.state_dicts import combine, merge_state_dicts, merge_with_result, task_vectors
from advisor.merging.streaming import merge, task_vector_gram
from advisor.merging.trimmed_vectors import trim_task_vectors

__all__ = [
    "OPERATORS",
    "AdaMergingResult",
    "IncompatibleCheckpoints",
    "MergeDiverged",
    "MergeResult",
    "NotEnoughSpace",
    "Operator",
    "OperatorEntry",
    "TaskVectorGram",
    "TensorVectors",
    "UnreadableCheckpoint",
    "combine",
    "merge",
    "merge_lora",
    "merge_state_dicts",
    "merge_with_result",
    "metagpt_coefficients",
    "open_adapters",
    "task_vector_gram",
    "task_vectors",
    "trim_task_vectors",
    "tune_by_gradient",
]

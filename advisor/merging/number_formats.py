"""Storage formats of checkpoint tensors and the numbers we compute with, in NumPy alone.

A tensor is stored in its *storage* dtype and merged in its *working* dtype: fp32 for bf16, fp16 and fp32,
fp64 for fp64. NumPy has no bfloat16, so its bits travel as uint16:

    bf16 → fp32:  bits₃₂ = bits₁₆ · 2¹⁶                          (exact)
    fp32 → bf16:  bits₁₆ = (bits₃₂ + 0x7FFF + lsb) / 2¹⁶         (round to nearest, ties to even)

Names of dtypes are those of the safetensors format (`F32`, `BF16`, `I64`, ...).
Source: https://github.com/huggingface/safetensors (format) and IEEE 754 (rounding).
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
RawArray = NDArray[Any]

STORAGE: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
FLOATING = frozenset({"F64", "F32", "F16", "BF16"})


def working_dtype(dtype: str) -> np.dtype[Any]:
    """The dtype a floating tensor is merged in: fp64 for fp64, else fp32."""
    return np.dtype(np.float64) if dtype == "F64" else np.dtype(np.float32)


def to_working(raw: RawArray, dtype: str, out: FloatArray | None = None) -> FloatArray:
    """Storage numbers [n] as working numbers [n]: fp32 and fp64 as they are, others in ``out`` if it is given."""
    if dtype == "BF16":
        bits = None if out is None else out.view(np.uint32)
        return np.left_shift(raw, 16, out=bits, dtype=np.uint32).view(np.float32)
    if dtype == "F16" and out is not None:
        out[:] = raw
        return out
    return raw.astype(working_dtype(dtype), copy=False)


def to_storage(values: FloatArray, dtype: str) -> RawArray:
    """Working numbers [n] rounded to nearest in the storage format; themselves where that is their dtype.

    Callers silence NumPy's warnings of overflow (``np.errstate``, once a tensor: it costs as much as a small block).

    Raises:
        OverflowError: a finite value is too large for the storage format.
    """
    if dtype == "BF16":
        bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
        rounded = ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(
            np.uint16
        )
        finite = bool(((rounded & np.uint16(0x7F80)) != np.uint16(0x7F80)).all())
        stored: RawArray = rounded
    else:
        stored = values.astype(STORAGE[dtype], copy=False)
        finite = _is_finite(stored)
    if not finite:
        raise OverflowError(f"a merged value is not finite in dtype={dtype}")
    return stored


def _is_finite(values: FloatArray) -> bool:
    # A sum of squares is finite only if every term is; it can overflow though all terms are, hence the second look.
    # BLAS, which has no fp16, is the fastest way to touch each number.
    finite = values.dtype != np.float16 and math.isfinite(np.dot(values, values))
    return finite or bool(np.isfinite(values).all())

"""Products in full precision: process-wide switches of torch, set around scoring and set back.

float32 factors are not rounded to TF32 or bfloat16, and sums of half dtypes are kept in float32
until they are whole. With TF32 even the angles of rotary positions beyond 2,048 round.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

_REDUCED = (
    "allow_bf16_reduced_precision_reduction",
    "allow_fp16_reduced_precision_reduction",
    "allow_fp16_accumulation",
)
_lock = threading.Lock()
_inside = 0  # contexts that are open, in whatever thread
_outermost = ExitStack()


@contextmanager
def full_precision() -> Iterator[None]:
    """Return a context in which torch multiplies and sums in full precision.

    The switches are the process's. They are set by the first of all threads that enters and set
    back by the last that leaves, to what they were at first: what is set meanwhile is in force
    until then.
    """
    global _inside
    with _lock:
        if not _inside:
            _set_all(_outermost)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _outermost.close()


def _set_all(before: ExitStack) -> None:
    """Set all switches that are not yet as they are to be; the stack sets them back."""
    cuda: Any = torch.backends.cuda
    for name in _REDUCED:
        if getattr(cuda.matmul, name, False):
            before.callback(setattr, cuda.matmul, name, True)
            setattr(cuda.matmul, name, False)
    if cuda.fp16_bf16_reduction_math_sdp_allowed():
        before.callback(cuda.allow_fp16_bf16_reduction_math_sdp, True)
        cuda.allow_fp16_bf16_reduction_math_sdp(False)
    _set_precision(before)


def _set_precision(before: ExitStack) -> None:
    """Set how float32 is multiplied.

    Before torch 2.9 by two switches. Since then there is one for each operator, which follows its
    backend's and that of all backends until it is set itself; to read an older one is an error
    where it contradicts them. One for convolutions is left alone, since it would follow no more.
    """
    backends: Any = torch.backends
    products = [backends.cuda.matmul, getattr(backends.mkldnn, "matmul", None)]
    others = [backends, backends.cudnn]
    others += [getattr(backends.cudnn, name, None) for name in ("conv", "rnn")]
    others += [getattr(backends.mkldnn, name, None) for name in ("conv", "rnn")]
    has_operators = hasattr(backends, "fp32_precision")
    try:
        older = torch.get_float32_matmul_precision()
    except RuntimeError:
        older = "highest"
    if older != "highest":
        for product in products if has_operators else ():
            before.callback(setattr, product, "fp32_precision", product.fp32_precision)
        before.callback(torch.set_float32_matmul_precision, older)
        torch.set_float32_matmul_precision("highest")
    if not has_operators and backends.cudnn.allow_tf32:
        before.callback(setattr, backends.cudnn, "allow_tf32", True)
        backends.cudnn.allow_tf32 = False
    for operator in (*others, *products) if has_operators else ():
        if operator.fp32_precision != "ieee":
            before.callback(setattr, operator, "fp32_precision", operator.fp32_precision)
            operator.fp32_precision = "ieee"

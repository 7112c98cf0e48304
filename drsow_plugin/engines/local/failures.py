"""What went wrong, told from an exception of torch or of a model's own code."""

from __future__ import annotations

import torch

_LENGTH = 200  # of what is quoted of a message; compilers write pages


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an exception, or one that it came of, says that memory ran out."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, torch.OutOfMemoryError | MemoryError) or (
            isinstance(cause, RuntimeError) and "allocate memory" in str(cause)
        ):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def one_line(error: BaseException) -> str:
    """Return an exception's kind and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return ": ".join([type(error).__name__, *(line.strip()[:_LENGTH] for line in lines[:1])])

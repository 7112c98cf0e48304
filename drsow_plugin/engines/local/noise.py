"""What rounding comes to: the measure of differences."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def perturbed(embeddings: torch.nn.Module, pattern: int) -> Iterator[None]:
    """Perturb the embeddings by one rounding step, to estimate rounding noise.

    Up to the order of the signs::

        embeddings(ids) * (1 + torch.finfo(dtype).eps * random_signs)

    Args:
        embeddings: Of a model.
        pattern: Which numbers go up and which down; any odd number.
    """

    def perturb(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        places = torch.arange(output.numel(), device=output.device)
        signs = places.mul(7919).remainder(pattern).remainder(2)
        step = signs.mul(2).sub(1).view(output.shape).to(output)
        return output + output * step * torch.finfo(output.dtype).eps

    hook = embeddings.register_forward_hook(perturb)
    try:
        yield
    finally:
        hook.remove()


def tolerance(values: torch.Tensor) -> torch.Tensor:
    """Return by how much values may differ that are the same but for rounding, a scalar."""
    return max(50 * torch.finfo(values.dtype).eps, 1e-4) * values.std()

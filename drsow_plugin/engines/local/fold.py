"""Log-probs from logits that come tile by tile: each is read once, on a GPU in one pass."""

from __future__ import annotations

import importlib
import logging
from functools import cache
from typing import Any

import torch

from drsow_plugin.engines.local.failures import one_line

logger = logging.getLogger(__name__)

_SUMMED = 64  # exponentials that are summed in float32, before the sums are in float64


class Fold:
    """What is kept of logits of which no more than a tile is in memory.

    Up to rounding, once all tiles were added::

        fold.logprobs() == logits.log_softmax(dim=-1)[positions, targets]

    A tile is some positions by a part of the vocabulary. Of each the maximum and the sum of the
    exponentials is kept, and joined in float64 at the end. The logits of targets are taken out of
    the tiles: they are rounded as those in the sum are, so that no log-prob comes out above 0.
    """

    def __init__(
        self,
        logits: torch.Tensor,
        starts: torch.Tensor,
        count: int,
        positions: torch.Tensor,
        targets: torch.Tensor,
    ) -> None:
        """Begin with no tile. All tensors are on the same device.

        Args:
            logits: Any tensor of the dtype of the logits: float32 or float64.
            starts: First entry of the vocabulary of each part, (parts,).
            count: Number of positions.
            positions: For each target the position that predicts it, ascending, (targets,).
            targets: Token ids, (targets,).
        """
        self._starts, self._positions, self._targets = starts, positions, targets
        every = torch.arange(count + 1, device=positions.device)
        self._offsets = torch.searchsorted(positions, every)
        self._maxima, self._sums = logits.new_empty(2, len(starts), count).unbind()
        self._selected = logits.new_full((len(targets),), torch.nan)

    def add(self, logits: torch.Tensor, start: int, part: int) -> None:
        """Add a tile.

        Args:
            logits: (positions, entries), contiguous; used up.
            start: The first of its positions.
            part: Which part of the vocabulary it has.
        """
        stop = start + len(logits)
        maxima, sums = self._maxima[part, start:stop], self._sums[part, start:stop]
        if not (logits.is_cuda and logits.dtype == torch.float32 and _has_kernel(logits.device)):
            self._select(logits, start, part)
            torch.amax(logits, dim=-1, out=maxima)
            sums.copy_(sum_of_exp(logits, _finite(maxima).unsqueeze(1)))
            return
        targets = (self._offsets[start:], self._targets, self._selected)
        with torch.cuda.device(logits.device):
            kernel().fold(logits, maxima, sums, targets, self._starts[part:])

    def _select(self, logits: torch.Tensor, start: int, part: int) -> None:
        rows, entries = self._positions - start, self._targets - self._starts[part]
        height, width = logits.shape
        is_here = (rows >= 0) & (rows < height) & (entries >= 0) & (entries < width)
        found = logits[rows.clamp(0, height - 1), entries.clamp(0, width - 1)]
        self._selected = torch.where(is_here, found, self._selected)

    def logprobs(self) -> torch.Tensor:
        """Return ln p of each target, (targets,), in nats, float64 (float32 on MPS)."""
        dtype = sum_dtype(self._maxima)
        maximum = _finite(self._maxima.amax(dim=0)).to(dtype)
        weights = (self._maxima.to(dtype) - maximum).exp()
        total = (self._sums.to(dtype) * weights).sum(dim=0)
        selected = self._selected.to(dtype) - maximum[self._positions]
        return selected - total.log()[self._positions]


def _finite(maxima: torch.Tensor) -> torch.Tensor:
    return maxima.clamp_min(torch.finfo(maxima.dtype).min)  # where all are minus infinity


def kernel() -> Any:
    """Return the module of the kernel.

    Raises:
        ImportError: There is no Triton.
    """
    return importlib.import_module("drsow_plugin.engines.local.fold_kernel")


@cache
def _has_kernel(device: torch.device) -> bool:
    """Tell whether the kernel runs on a device: Triton compiles, for which it needs a compiler."""
    logits, numbers = (torch.zeros(1, 8192, device=device), torch.zeros(3, device=device))
    indices = torch.zeros(2, dtype=torch.long, device=device)
    try:
        with torch.cuda.device(device):
            targets = (indices, indices, numbers[2:])
            kernel().fold(logits, numbers, numbers[1:], targets, indices)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of the compiler, the driver or Triton itself
        logger.info(
            "Triton cannot be used on %s, so that logits are read several times: %s",
            *(device, one_line(error)),
        )
        return False
    return True


def sum_of_exp(logits: torch.Tensor, maximum: torch.Tensor) -> torch.Tensor:
    """Return the sums of exp(logits - maximum), (positions,); the logits are used up."""
    logits.sub_(maximum).exp_()
    whole = logits.shape[1] // _SUMMED * _SUMMED
    parts = logits[:, :whole].view(len(logits), -1, _SUMMED).sum(dim=-1)
    rest = logits[:, whole:].to(sum_dtype(logits))
    total: torch.Tensor = parts.to(rest.dtype).sum(dim=-1) + rest.sum(dim=-1)
    return total


def sum_dtype(tensor: torch.Tensor) -> torch.dtype:
    """Return the dtype of sums: float64 where the device has it."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64

"""Arrays to a device and back, without waiting for what it computes meanwhile."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

Name = TypeVar("Name", bound=Hashable)


_ALIGNED = 16  # numbers: what is compiled for a GPU may be so for how a tensor is aligned


def moved(
    arrays: Mapping[Name, npt.NDArray[np.integer]], device: torch.device
) -> dict[Name, torch.Tensor]:
    """Return arrays of whole numbers as tensors on a device, brought there in one copy.

    A GPU that computes is not waited for: the copy takes its turn, from memory that the system
    does not move.
    """
    lengths = [-(-array.size // _ALIGNED) * _ALIGNED for array in arrays.values()]
    kind = torch.from_numpy(np.empty(0, np.result_type(*arrays.values()))).dtype
    buffer = torch.empty(sum(lengths), dtype=kind, pin_memory=device.type == "cuda")
    for part, array in zip(torch.split(buffer, lengths), arrays.values(), strict=True):
        part[: array.size].copy_(torch.from_numpy(array.ravel()))
    parts = torch.split(buffer.to(device, non_blocking=device.type == "cuda"), lengths)
    return {
        name: part[: array.size].view(array.shape).to(torch.from_numpy(array).dtype)
        for (name, array), part in zip(arrays.items(), parts, strict=True)
    }


class OnTheWay:
    """Values that a device computes, read once they are wanted.

    What is launched on a GPU after this was made is not waited for: the copy, and the mark behind
    it, stand in line before that.
    """

    def __init__(self, values: torch.Tensor) -> None:
        """Have values copied, (values,), as soon as they are computed."""
        self._values, self._copied = values, None
        if values.is_cuda:
            self._values = torch.empty_like(values, device="cpu", pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._copied = torch.cuda.current_stream(values.device).record_event()

    def read(self) -> npt.NDArray[np.float64]:
        """Return the values, in float64; waits until they are computed."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._values.cpu().double().numpy()

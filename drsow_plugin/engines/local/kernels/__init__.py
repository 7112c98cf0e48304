"""The kernels that attend over a packed tree, best first: varlen, flex, and run by run.

Up to rounding, for each run and its keys, (heads, tokens, size) and (key heads, keys, size)::

    logits = query @ key.repeat_interleave(heads // key_heads, 0).mT * scale
    logits = softcap * tanh(logits / softcap) + mask  # of minus infinity, for what is not seen
    weights = cat([logits, sinks], -1).softmax(-1)[..., :keys]
    weights @ value.repeat_interleave(heads // key_heads, 0)

A kernel raises an error where it cannot attend as a layer asks; the next one is tried then.
"""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import numpy.typing as npt
import torch

from drsow_plugin.engines.local.attention import Kernel, Packing
from drsow_plugin.engines.local.kernels import varlen
from drsow_plugin.engines.local.kernels.flex import by_flex
from drsow_plugin.engines.local.kernels.runs import by_run
from drsow_plugin.engines.local.kernels.varlen import by_varlen

__all__ = ["arrays_of", "by_flex", "by_run", "by_varlen", "kernels_for"]


def kernels_for(device: torch.device) -> tuple[Kernel, ...]:
    """Return the kernels to try on a device, best first."""
    return (by_varlen, by_flex, by_run) if device.type == "cuda" else (by_run,)


def arrays_of(packing: Packing) -> dict[Hashable, npt.NDArray[np.integer]]:
    """Return what the kernel will ask a packing for and is known before the chunk is launched."""
    return varlen.arrays_of(packing) if packing.kernel is by_varlen else {}

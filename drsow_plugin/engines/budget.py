"""How many tokens are computed at once."""

from __future__ import annotations

import ctypes
import gc
import sys
from pathlib import Path

import psutil
import torch

from drsow_plugin.engines.network import Network

CPU_TOKENS = 2048
GPU_TOKENS = 16384
LEAST_TOKENS = 16
_SHARE_OF_FREE = 0.5
_CGROUP = Path("/sys/fs/cgroup")


_trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


class Budget:
    """Most tokens and most rows at once; shrinks when memory runs out.

    Attributes:
        tokens: Most tokens at once.
        rows: Most rows, or parts of rows, at once.
    """

    def __init__(self, tokens: int, rows: int | None = None) -> None:
        """Set out with so many tokens and, unless ``None``, rows."""
        self.tokens = tokens
        self.rows = rows or sys.maxsize

    def halve(self, used: int, least: int = LEAST_TOKENS) -> bool:
        """Go on with half of what did not fit; tell whether that is possible."""
        if used <= least:
            return False
        self.tokens = max(least, used // 2)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return True


def fitting_tokens(network: Network) -> int:
    """Return how many tokens fit into half of the memory that is free, up to what is of use.

    More than a few thousand tokens make a CPU no faster, nor more than some ten thousand a GPU.
    """
    most = CPU_TOKENS if network.device.type == "cpu" else GPU_TOKENS
    free = free_memory(network.device)
    if free is None:
        return most
    return max(LEAST_TOKENS, min(most, int(free * _SHARE_OF_FREE) // network.bytes_per_token))


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that are free on a device; ``None`` if it does not tell.

    On a CPU no more than what is left of the control group's limit.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    if device.type != "cpu":
        return None
    return min(int(psutil.virtual_memory().available), _left_in_group())


def _left_in_group() -> int:
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
        cached = dict(
            line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines()
        ).get("inactive_file", "0")
    except (OSError, ValueError):
        return sys.maxsize
    return sys.maxsize if limit == "max" else max(0, int(limit) - used + int(cached))


def give_back(device: torch.device) -> None:
    """Return freed memory to the system, which glibc would keep: more than is ever in use."""
    if device.type == "cpu" and _trim is not None:
        _trim(0)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Tell whether an error of torch's is a lack of memory."""
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)

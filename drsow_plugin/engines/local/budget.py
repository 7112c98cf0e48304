"""How many tokens are computed at once, and what happens when memory runs out."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

import torch

from drsow_plugin.engines.local.failures import is_out_of_memory
from drsow_plugin.engines.local.network import Network

CPU_TOKENS = 2048
GPU_TOKENS = 16384
MIN_TOKENS = 16
_FREE_SHARE = 0.5
_CGROUP = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


class _Names(NamedTuple):
    """What a version of control groups calls a limit, what is used, and what of it is cache."""

    limit: str
    used: str
    cached: str


_V1 = _Names("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = _Names("memory.max", "memory.current", "inactive_file")

_ASKED = {"GLIBC_TUNABLES", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"}

P = ParamSpec("P")
T = TypeVar("T")

# In glibc. Other libraries of C have none of it.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None
_trim = getattr(_libc, "malloc_trim", None)
_mallopt = getattr(_libc, "mallopt", None) if _trim is not None else None
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # as <malloc.h> numbers them
_KEPT = {_MMAP_THRESHOLD: 32 << 20, _TRIM_THRESHOLD: 1 << 30}  # bytes; more is not taken for mmap


class Budget:
    """Maximum tokens and sequences at once; shrinks when memory runs out.

    Attributes:
        tokens: Maximum number of tokens at once.
        sequences: Maximum number of sequences, or parts of sequences, at once.
    """

    def __init__(self, tokens: int, sequences: int | None = None) -> None:
        """Set out with so many tokens and, unless ``None``, sequences."""
        self.tokens = tokens
        self.sequences = sequences or sys.maxsize

    def halve(self, used: int, minimum: int = MIN_TOKENS) -> bool:
        """Go on with half of the tokens that did not fit; tell whether that is possible."""
        if used <= minimum:
            return False
        self.tokens = max(minimum, used // 2)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return True


def fitting_tokens(network: Network) -> int:
    """Return how many tokens fit into half of the memory that is free, up to what is of use.

    More than a few thousand tokens make a CPU no faster, nor more than some ten thousand a GPU.
    """
    maximum = CPU_TOKENS if network.device.type == "cpu" else GPU_TOKENS
    free = free_memory(network.device)
    if free is None:
        return maximum
    return max(MIN_TOKENS, min(maximum, int(free * _FREE_SHARE) // network.bytes_per_token))


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that are free on a device; ``None`` if it does not tell.

    On a CPU no more than what is left of the control group's limit.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    if device.type != "cpu":
        return None
    import psutil  # a GPU is asked by way of torch, on machines that have little else

    return min(int(psutil.virtual_memory().available), _left_in_group())


def _left_in_group() -> int:
    """Return the bytes that are left of the limits of this process's control group, v1 or v2."""
    left = [sys.maxsize]
    for names, group in _groups():
        for folder in (group, *group.parents):
            if not folder.is_relative_to(_CGROUP):
                break
            left.append(_left_in(folder, names))
    return min(left)


def _groups() -> Iterator[tuple[_Names, Path]]:
    """Yield where this process's limits are; in a container also at the root of what it sees."""
    yield _V2, _CGROUP
    yield _V1, _CGROUP / "memory"
    try:
        lines = _MEMBERSHIP.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield _V2, _CGROUP / path.lstrip("/")
        elif "memory" in controllers.split(","):
            yield _V1, _CGROUP / "memory" / path.lstrip("/")


def _left_in(folder: Path, names: _Names) -> int:
    try:
        limit = int((folder / names.limit).read_text())
        used = int((folder / names.used).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return max(0, limit - used + int(stat.get(names.cached, "0")))
    except (OSError, ValueError):  # without a limit v2 says "max", and v1 has a huge number
        return sys.maxsize


def keep_for_reuse(device: torch.device) -> None:
    """Let glibc keep what a layer frees for the next one, until :func:`give_back`.

    By default it returns blocks that are large, or last on the heap, at once, and each tensor then
    comes in pages that the system has to clear anew. What the environment sets stays in force.
    """
    if device.type == "cpu" and _mallopt is not None and not _ASKED & os.environ.keys():
        for threshold, size in _KEPT.items():
            _mallopt(threshold, size)


def give_back(device: torch.device) -> None:
    """Return freed memory to the system, which glibc would keep: more than is ever in use."""
    if device.type == "cpu" and _trim is not None:
        _trim(0)


def unless_out_of_memory(compute: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """Return what a function computes; ``None``, with all that it held let go, without memory."""
    try:
        return compute(*args, **kwargs)
    except RuntimeError as error:
        if is_out_of_memory(error):
            return None
        raise

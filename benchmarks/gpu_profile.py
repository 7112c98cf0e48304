"""What the time of a device goes to, by the names of its kernels, and how much of it is idle."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

# The first kind of which a part stands in a kernel's name, in small letters; a name of torch's
# operation on a CPU has them too.
KINDS = {
    "attention": ("flash", "fmha", "flex", "attention", "softmax_warp", "mha_"),
    "compiled elementwise": ("triton_",),  # its names hold those of all that it replaces
    "head fold": ("_fold",),
    "products": (
        *("gemm", "nvjet", "cutlass", "xmma", "cublas", "aten::mm", "aten::addmm", "aten::bmm"),
        *("mkldnn_linear", "aten::linear", "splitk"),
    ),
    "gather and copies": (
        *("gather", "index", "memcpy", "memset", "catarray", "copy", "scatter", "aten::cat"),
        "aten::clone",
    ),
}
REST = "elementwise"


@dataclass(frozen=True)
class Profile:
    """Where the time went.

    Attributes:
        shares: For each kind of kernel its share of the time from the first kernel to the end of
            the last; on a CPU of the time in all operations.
        idle: The share in which no kernel ran; ``None`` on a CPU.
        most: The names of the kernels that took most, with their shares.
    """

    shares: dict[str, float]
    idle: float | None
    most: dict[str, float]


Interval = tuple[str, float, float]
"""A kernel's name, and when it began and ended, in microseconds."""


def kind_of(name: str) -> str:
    """Return what a kernel does, by its name."""
    small = name.lower()
    return next((kind for kind, parts in KINDS.items() if any(p in small for p in parts)), REST)


def summary(intervals: Iterable[Interval]) -> Profile:
    """Return the shares of the kinds of kernels, and the share without any."""
    ordered = sorted(intervals, key=lambda interval: interval[1])
    if not ordered:
        return Profile({}, None, {})
    begin, end, busy = ordered[0][1], ordered[0][1], 0.0
    names: dict[str, float] = {}
    for name, start, stop in ordered:
        names[name] = names.get(name, 0.0) + stop - start
        busy += max(0.0, stop - max(end, start))
        end = max(end, stop)
    span = end - begin
    return Profile(_shares(names, span), 1 - busy / span, _most(names, span))


def _shares(names: dict[str, float], span: float) -> dict[str, float]:
    shares = dict.fromkeys([*KINDS, REST], 0.0)
    for name, spent in names.items():
        shares[kind_of(name)] += spent / span
    return shares


def _most(names: dict[str, float], span: float, number: int = 5) -> dict[str, float]:
    ordered = sorted(names.items(), key=lambda item: -item[1])
    return {name[:100]: spent / span for name, spent in ordered[:number]}


def profiled(work: Callable[[], Any], device: str) -> Profile:
    """Return where the time of some work went on a device."""
    from torch.profiler import ProfilerActivity, profile

    if device == "cpu":
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            work()
        names = {e.key: float(e.self_cpu_time_total) for e in profiler.key_averages()}
        span = sum(names.values())
        return Profile(_shares(names, span), None, _most(names, span))
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiler:
        work()
        torch.cuda.synchronize()
    return summary(
        (event.name, event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if event.device_type == torch.autograd.DeviceType.CUDA and not event.is_user_annotation
    )

"""Attention for all runs at once by torch's ``varlen_attn``: flash attention, on a GPU.

It takes half precision, heads of at most 256 numbers, a multiple of 8 and as many for values as
for keys, and says so itself where it is given something else.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from drsow_plugin.engines.local.attention import KernelError, Options, Packing, gathered
from drsow_plugin.engines.local.spans import slots_of
from drsow_plugin.engines.local.tree import Run

_BLOCK = 128  # queries that flash attention computes in one block of its grid
# Blocks, of each head, that may have nothing to do: 4,096 take some 0.6 ms with 32 heads (by
# estimate), and reading queries apart a third of that.
_MAX_IDLE = 4096


@dataclass(frozen=True)
class Batch:
    """Runs as sequences of various lengths, the way flash attention takes them.

    Attributes:
        tokens: The tokens of the runs, one run behind the other, (tokens,).
        slots: The slots of the keys of each run, one run behind the other, (keys,).
        cu_seqlens_q: Ends of the runs, after a 0, (runs + 1,), int32.
        cu_seqlens_k: Ends of their keys, after a 0, (runs + 1,), int32.
        max_seqlen_q: Length of the longest run.
        max_seqlen_k: Number of keys of the run that has most.
    """

    tokens: npt.NDArray[np.int64]
    slots: npt.NDArray[np.int64]
    cu_seqlens_q: npt.NDArray[np.int32]
    cu_seqlens_k: npt.NDArray[np.int32]
    max_seqlen_q: int
    max_seqlen_k: int

    @classmethod
    def of(cls, runs: Sequence[Run]) -> Batch:
        """Return some runs of a chunk as a batch."""
        queries = np.array([run.stop - run.start for run in runs])
        keys = np.array([run.num_keys for run in runs])
        return cls(
            slots_of([(run.start, run.stop) for run in runs]),
            slots_of([span for run in runs for span in run.keys]),
            np.append(0, queries.cumsum()).astype(np.int32),
            np.append(0, keys.cumsum()).astype(np.int32),
            int(queries.max()),
            int(keys.max()),
        )


def batches_of(runs: Sequence[Run]) -> list[Batch]:
    """Return a chunk's runs as one batch, or as two where most of one would be idle.

    Flash attention starts as many blocks for each run as the longest takes: beside one run of
    8,192 tokens, 400 short ones start 25,600 blocks a head, of which 464 have something to do.
    """
    blocks = np.array([-(-(run.stop - run.start) // _BLOCK) for run in runs])
    by_length = np.argsort(blocks, kind="stable")
    lengths, shorter = blocks[by_length], np.arange(1, len(runs) + 1)
    grids = shorter * lengths + (len(runs) - shorter) * lengths[-1]  # with so many in the first
    split = int(np.argmin(grids))
    if grids[-1] - grids[split] <= _MAX_IDLE:
        return [Batch.of(runs)]
    parts = (np.sort(part) for part in np.split(by_length, [split + 1]))
    return [Batch.of([runs[index] for index in part]) for part in parts]


def arrays_of(packing: Packing) -> dict[Hashable, npt.NDArray[np.integer]]:
    """Return what :func:`by_varlen` will ask the packing for."""
    batches = _batches(packing)
    names = ("slots", "cu_seqlens_q", "cu_seqlens_k", "tokens")[: 3 if len(batches) == 1 else 4]
    return {
        (name, number): getattr(batch, name)
        for number, batch in enumerate(batches)
        for name in names
    }


def _batches(packing: Packing) -> list[Batch]:
    return packing.once("batches", lambda: batches_of(packing.chunk.runs))


def by_varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    packing: Packing,
    options: Options,
) -> torch.Tensor:
    """Attend for all runs at once; see :data:`~drsow_plugin.engines.local.attention.Kernel`.

    Raises:
        KernelError: This torch or this layer does not allow it.
    """
    attend = _with(options, query.shape[-1], is_grouped=key.shape[1] != len(query))
    batches = _batches(packing)
    queries = query.transpose(0, 1)
    parts = []
    for number, batch in enumerate(batches):
        on = partial(_on, packing, key.device, number, batch)
        slots = on("slots")
        result = attend(
            queries.contiguous() if len(batches) == 1 else queries[on("tokens")],
            gathered(key, slots),
            gathered(value, slots),
            on("cu_seqlens_q"),
            on("cu_seqlens_k"),
            # With a single query flash attention may mix heads and tokens in its log-sum-exp.
            max(2, batch.max_seqlen_q),
            batch.max_seqlen_k,
        )
        parts.append(result if options.sinks is None else _with_sinks(result, options.sinks))
    if len(parts) == 1:
        return parts[0]
    attended = parts[0].new_empty(len(queries), *parts[0].shape[1:])
    for number, (batch, part) in enumerate(zip(batches, parts, strict=True)):
        attended[_on(packing, key.device, number, batch, "tokens")] = part
    return attended


def _on(
    packing: Packing, device: torch.device, number: int, batch: Batch, name: str
) -> torch.Tensor:
    """Return an array of a batch as a tensor on a device."""
    return packing.on((name, number), getattr(batch, name), device)


def _with(options: Options, size: int, is_grouped: bool) -> Callable[..., Any]:
    """Return ``varlen_attn`` with what a layer asks for; its parameters differ by release."""
    if options.softcap is not None:
        raise KernelError("it knows no soft cap")
    try:
        from torch.nn.attention import varlen
    except ImportError as error:
        raise KernelError("this torch has no varlen_attn") from error
    allowed = _parameters(varlen.varlen_attn)
    arguments: dict[str, Any] = {}
    if options.scale is not None and not math.isclose(options.scale, size**-0.5):
        arguments["scale"] = options.scale
    left = -1 if options.window is None else options.window - 1  # beside the token itself
    if left < 0 and "is_causal" in allowed:
        arguments["is_causal"] = True
    else:
        arguments["window_size"] = (left, 0)
    if is_grouped and "enable_gqa" in allowed:  # without it torch does not compare the heads
        arguments["enable_gqa"] = True
    if options.sinks is not None:
        arguments["return_aux"] = varlen.AuxRequest(lse=True)
    lacking = arguments.keys() - allowed
    if lacking:
        raise KernelError(f"this torch's varlen_attn has no {', '.join(sorted(lacking))}")
    return partial(varlen.varlen_attn, **arguments)


@lru_cache(maxsize=8)
def _parameters(function: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)


def _with_sinks(result: tuple[torch.Tensor, torch.Tensor], sinks: torch.Tensor) -> torch.Tensor:
    """Let sinks take part in the softmax after the fact.

    ::

        weights = exp(logits) / (exp(logits).sum() + exp(sink))
                = exp(logits) / exp(lse) * sigmoid(lse - sink)

    Args:
        result: What is attended without sinks, (tokens, heads, size), which is changed, and the
            log-sum-exp of the logits, (heads, tokens), whatever torch's documentation says.
        sinks: (heads,).
    """
    attended, lse = result
    if lse.shape != (attended.shape[1], attended.shape[0]):
        raise KernelError(f"this torch's log-sum-exp is of an unknown shape, {tuple(lse.shape)}")
    share = torch.sigmoid(lse.transpose(0, 1).float() - sinks.to(lse.device, torch.float32))
    return attended.mul_(share.unsqueeze(-1))

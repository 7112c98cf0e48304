"""Attention for all runs at once by torch's FlexAttention, which Triton compiles for a GPU.

For what flash attention does not take: soft caps, float32, large heads, other sizes of values.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import torch

from drsow_plugin.engines.local.attention import KernelError, Options, Packing
from drsow_plugin.engines.local.kernels.blocks import BLOCK, blocks_of, listed, table_of
from drsow_plugin.engines.local.transfer import moved

# What is compiled is compiled for lengths, so that these are padded to 2,048 times a power of two.
# Blocks of padding are not computed.
_MIN_LENGTH = 2048
_MAX_COMPILED = 64  # lengths, windows, soft caps and models in one process, before it is an error


def by_flex(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    packing: Packing,
    options: Options,
) -> torch.Tensor:
    """Attend for all runs at once; see :data:`~drsow_plugin.engines.local.attention.Kernel`.

    Raises:
        KernelError: This torch does not allow it.
    """
    attend, tokens = _attend(), query.shape[1]
    where = ("flex", options.window, key.device)
    mask = packing.once(where, lambda: _mask(packing, options.window, key.device))
    rows, slots = mask.seq_lengths
    attended, lse = attend(
        _padded(query.transpose(0, 1), rows),
        _padded(key, slots),
        _padded(value, slots),
        mask,
        options.softcap,
        options.scale,
        options.sinks is not None,
    )
    if options.sinks is not None and lse is not None:
        share = torch.sigmoid(lse - options.sinks.to(lse).view(1, -1, 1))
        attended = attended.mul_(share.unsqueeze(-1))
    return attended[0, :, :tokens].transpose(0, 1)


def _padded(rows: torch.Tensor, length: int) -> torch.Tensor:
    """Return (1, heads, length, size) of (rows, heads, size), zeros behind the rows.

    It lies in memory the same way each time, for which it is compiled too.
    """
    padded = rows.new_zeros(length, *rows.shape[1:])
    padded[: len(rows)] = rows
    return padded.transpose(0, 1).unsqueeze(0)


def _length(least: int) -> int:
    length = _MIN_LENGTH
    while length < least:
        length *= 2
    return length


def _mask(packing: Packing, window: int | None, device: torch.device) -> Any:
    """Return the ``BlockMask`` of a chunk, for padded lengths; padding sees and is seen by nothing.

    ``create_block_mask`` would ask about each token and slot.
    """
    from torch.nn.attention.flex_attention import BlockMask

    table = table_of(packing.chunk)
    tokens, slots = len(packing.chunk.ids), len(table.end)
    lengths = _length(tokens), _length(slots)
    shape = lengths[0] // BLOCK, lengths[1] // BLOCK
    some, all_ = blocks_of(table, window)
    lists = [each for flags in (some & ~all_, all_) for each in listed(flags, shape)]
    arrays: dict[Hashable, Any] = {"end": table.end, "positions": table.positions}
    here = moved(arrays | dict(enumerate(lists)), device)
    kept = torch.full((), table.cache_length, dtype=torch.int32, device=device)
    end, position = (torch.zeros(lengths[1], dtype=torch.int32, device=device) for _ in "ep")
    end[:slots], position[:slots] = here["end"], here["positions"]
    # Numbers are captured as tensors: it would be compiled anew for each of them.
    oldest = torch.zeros(lengths[0], dtype=torch.int32, device=device)
    if window is not None:
        oldest[:tokens] = position[table.cache_length : slots] - (window - 1)

    def sees(_batch: Any, _head: Any, token: torch.Tensor, slot: torch.Tensor) -> torch.Tensor:
        own = token + kept
        return (slot <= own) & (own < end[slot])

    def sees_in_window(batch: Any, head: Any, token: Any, slot: Any) -> torch.Tensor:
        return sees(batch, head, token, slot) & (position[slot] >= oldest[token])

    return BlockMask.from_kv_blocks(
        here[0][None, None],
        here[1][None, None],
        here[2][None, None],
        here[3][None, None],
        BLOCK_SIZE=(BLOCK, BLOCK),
        mask_mod=sees if window is None else sees_in_window,
        seq_lengths=lengths,
    )


def _attended(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: Any,
    softcap: float | None,
    scale: float | None,
    needs_lse: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return what is attended, (1, heads, tokens, size), and the log-sum-exp, if it is needed."""
    from torch.nn.attention.flex_attention import AuxRequest, flex_attention

    def capped(score: torch.Tensor, *_place: torch.Tensor) -> torch.Tensor:
        return score if softcap is None else softcap * torch.tanh(score / softcap)

    attended, aux = flex_attention(
        query,
        key,
        value,
        score_mod=None if softcap is None else capped,
        block_mask=mask,
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
        return_aux=AuxRequest(lse=needs_lse),
    )
    return attended, aux.lse


def _attended_if_compiled(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    if not torch.compiler.is_dynamo_compiling():
        raise KernelError("torch does not compile here, and else it computes all scores")
    return _attended(*arguments)


@lru_cache(maxsize=1)
def _attend() -> Callable[..., tuple[torch.Tensor, torch.Tensor | None]]:
    """Return :func:`_attended`, compiled.

    Where it cannot be compiled, or not once more, there is an error: what torch does instead
    needs the memory of all scores at once.
    """
    if find_spec("triton") is None:
        raise KernelError("Triton is not installed")
    compiled = torch.compile(_attended_if_compiled, fullgraph=True, dynamic=False)

    def attend(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        with torch._dynamo.config.patch(recompile_limit=_MAX_COMPILED):
            return compiled(*arguments)

    return attend

"""The fold of a tile of logits as a Triton kernel: each logit is read once."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

_BLOCK = 2048  # logits at once in the registers of a program


# What moves on from tile to tile would be compiled anew for each alignment.
@triton.jit(do_not_specialize_on_alignment=["maxima", "sums", "first"])  # type: ignore[untyped-decorator]
def _fold(  # type: ignore[no-untyped-def]  # noqa: PLR0913
    logits,
    maxima,
    sums,
    offsets,
    targets,
    selected,
    first,
    columns: tl.constexpr,
    block: tl.constexpr,
):
    position = tl.program_id(0)
    row = logits + position.to(tl.int64) * columns
    maximum, total = -float("inf"), 0.0
    for start in range(0, columns, block):
        column = start + tl.arange(0, block)
        part = tl.load(row + column, mask=column < columns, other=-float("inf"))
        higher = tl.maximum(maximum, tl.max(part, axis=0))
        base = tl.where(higher == -float("inf"), 0.0, higher)
        total = total * tl.exp(maximum - base) + tl.sum(tl.exp(part - base), axis=0)
        maximum = higher
    tl.store(maxima + position, maximum)
    tl.store(sums + position, total)
    before = tl.load(first)
    index, stop = tl.load(offsets + position), tl.load(offsets + position + 1)
    while index < stop:
        entry = tl.load(targets + index) - before
        is_here = (entry >= 0) & (entry < columns)
        tl.store(selected + index, tl.load(row + entry, mask=is_here), mask=is_here)
        index += 1


def fold(
    logits: torch.Tensor,
    maxima: torch.Tensor,
    sums: torch.Tensor,
    targets: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    first: torch.Tensor,
) -> None:
    """Fold a tile; see :class:`drsow_plugin.engines.local.fold.Fold`.

    Args:
        logits: (positions, entries), float32, contiguous.
        maxima: Where they go, (positions,), float32, contiguous.
        sums: The same.
        targets: Where those of each position begin and the last one's end, (positions + 1,);
            the targets; and where their logits go, float32.
        first: The first of the entries of the vocabulary, in front of anything else.
    """
    _fold[(len(logits),)](logits, maxima, sums, *targets, first, logits.shape[1], _BLOCK)

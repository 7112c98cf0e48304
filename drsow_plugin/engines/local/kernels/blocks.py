"""Which tokens of a chunk see which slots, by one table, and by blocks of either.

A token sees a slot where the slot's token begins its own sequence. Slots stand in depth-first
order, so that what continues a sequence up to a slot ends with the slots before ``end[slot]``::

    slot = chunk.cache_length + token
    other <= slot < end[other]
    positions[other] > positions[slot] - window  # where there is a window
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drsow_plugin.engines.local.tree import Chunk

BLOCK = 128  # tokens, and slots

Numbers = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Table:
    """What tells which tokens of a chunk see which slots.

    Attributes:
        end: The slot behind the last one whose token continues the sequence, (slots,).
        positions: Depth of each slot's token in its sequence, (slots,).
        cache_length: Slots before that of the first token.
    """

    end: Numbers
    positions: Numbers
    cache_length: int


def table_of(chunk: Chunk) -> Table:
    """Return a chunk's table, from one pass over its runs, last first."""
    cached = chunk.cache_length
    positions = np.concatenate([np.arange(cached), chunk.positions]).astype(np.int32)
    end = np.empty_like(positions)
    # By depth: where the nearest run after this one begins that leaves the path there, or before.
    left = np.full(max(cached, int(positions.max()) + 1), len(positions), dtype=np.int32)
    for run in reversed(chunk.runs):
        start, stop = cached + run.start, cached + run.stop
        depth = positions[start]
        end[start:stop] = left[depth : depth + stop - start]
        left[depth:] = start
    end[:cached] = left[:cached]
    return Table(end, positions, cached)


def blocks_of(table: Table, window: int | None) -> tuple[Flags, Flags]:
    """Return which blocks of slots hold what a block of tokens sees, and which nothing else.

    Returns:
        Two tables, (blocks of tokens, blocks of slots). Without a window the first is exact;
        with one, blocks may be in the first of which nothing is seen, and may not be in the
        second although all is seen.
    """
    slots = len(table.end)
    starts = np.arange(0, slots, BLOCK)
    firsts = np.arange(table.cache_length, slots, BLOCK).reshape(-1, 1)  # slots of tokens
    lasts = np.minimum(firsts + BLOCK, slots) - 1
    some = (starts <= lasts) & (np.maximum.reduceat(table.end, starts) > firsts)
    all_ = (starts + BLOCK <= firsts + 1) & (np.minimum.reduceat(table.end, starts) > lasts)
    if window is not None:
        own = table.positions[table.cache_length :]
        at = np.arange(0, len(own), BLOCK)
        oldest, newest = (f.reduceat(own, at).reshape(-1, 1) for f in (np.minimum, np.maximum))
        some &= np.maximum.reduceat(table.positions, starts) > oldest - window
        all_ &= np.minimum.reduceat(table.positions, starts) > newest - window
    return some, all_


def listed(flags: Flags, shape: tuple[int, int]) -> tuple[Numbers, Numbers]:
    """Return, for each row, how many flags are set, and their columns before all others.

    Args:
        flags: (rows, columns).
        shape: To which flags that are not set are added, behind the others.

    Returns:
        (rows,) and (rows, columns), of that shape.
    """
    padded = np.zeros(shape, dtype=np.bool_)
    padded[: flags.shape[0], : flags.shape[1]] = flags
    columns = np.argsort(~padded, axis=1, kind="stable")
    return padded.sum(axis=1, dtype=np.int32), columns.astype(np.int32)

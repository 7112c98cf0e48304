"""How many rows are scored, and kept, together."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from drsow_plugin.addresses import Address
from drsow_plugin.annotate.items import Item
from drsow_plugin.annotate.store import file_of
from drsow_plugin.cache import PAIR
from drsow_plugin.errors import DataError
from drsow_plugin.scoring.drsow import DrSoW

USUAL = 128
OF_SMALL = 512
"""For small models on a GPU, to which fewer rows are over before the next are there."""

_SMALL_BYTES = 5 << 30  # of weights: 2.7 billion parameters in half precision
_EACH = 4  # larger shards are for data that has so many for each process
_KEY = "shard_rows"


def usual_size(pair: DrSoW, rows: int | None, processes: int) -> int:
    """Return how many rows are scored together where no number was given.

    Args:
        pair: What scores them.
        rows: How many there are; ``None`` if that is not known.
        processes: How many processes share them.
    """
    if rows is not None and rows < _EACH * processes * OF_SMALL:
        return USUAL
    models = pair.models.values()
    if not all(model.device.startswith("cuda") for model in models):
        return USUAL
    sizes = [model.weight_bytes for model in models]
    small = all(size is not None and size <= _SMALL_BYTES for size in sizes)
    return OF_SMALL if small else USUAL


def begun_size(folder: Path | Address, firsts: Iterable[Sequence[Item]], usual: int) -> int:
    """Return the size of shard that work was begun with, by what is kept of it; else the usual.

    Args:
        folder: Finished rewards.
        firsts: The first rows of each split, as many as there are in the largest shard of
            :func:`sizes_in`, or in the usual one.
        usual: The size for other work.
    """
    sizes = [*dict.fromkeys([usual, *sizes_in(folder)])]
    for first in firsts if len(sizes) > 1 else ():
        kept = [size for size in sizes if file_of(folder, first[:size]).is_file()]
        sizes = kept or sizes
    return sizes[0]


def check_begins_alike(name: str, before: Sequence[Item], now: Sequence[Item]) -> None:
    """Check that a split whose first rows were read for :func:`begun_size` still has them.

    Args:
        name: Name of the split.
        before: Its first row as it was read then; none if it was not.
        now: The same, read again.

    Raises:
        DataError: It is a stream that goes on where it was left, or begins otherwise each time.
    """
    if before and [item.content() for item in before] != [item.content() for item in now]:
        raise DataError(
            f"The split {name!r} is a stream that begins otherwise when it is read again. Its "
            "first rows were read to find out how many were scored together before: give that "
            f"number (shard_rows={USUAL}), and it is read once."
        )


def sizes_in(folder: Path | Address) -> list[int]:
    """Return the sizes of shard of all work that is kept in a folder, the last one first."""
    try:
        options = json.loads((folder / PAIR).read_text(encoding="utf-8"))
        sizes = options.get(_KEY, [USUAL])  # it was not said once
        return [size for size in sizes if isinstance(size, int) and size > 0]
    except (OSError, ValueError, AttributeError, TypeError):
        return []


def described(options: Mapping[str, Any], folder: Path | Address, size: int) -> dict[str, Any]:
    """Return the options of a pair with the sizes of shard, this one first."""
    return {**options, _KEY: [*dict.fromkeys([size, *sizes_in(folder)])]}

"""What a model's tokens see, read from the masks that it has transformers make.

A model describes a mask to transformers as a function of two places in a row, which the
attention in use may turn into anything. Here that function is asked, once, about many places.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_EACH = 256  # places that are asked about one by one; behind them a few are
_FURTHEST = 1 << 17  # … up to here
_BEHIND = 64  # places behind a token that are asked about
_LOOKUPS = {"embedding", "gather", "index_select", "take", "take_along_dim"}
_NO_BLOCK = -1  # what transformers fills in for tokens that are no part of a picture


class UnshareableError(Exception):
    """A model attends in a way that a packed tree of rows cannot follow."""


@dataclass(frozen=True)
class Reach:
    """How far back a token sees.

    Attributes:
        window: Most tokens that it sees, itself included; ``None`` for all.
        longest: Most tokens of a row in which that is so; ``None`` for any row.
    """

    window: int | None
    longest: int | None


def reach_of(arguments: dict[str, Any]) -> Reach:
    """Return how far back a token sees by a mask.

    Args:
        arguments: What transformers hands to a function of its ``AttentionMaskInterface``.

    Raises:
        UnshareableError: What a token sees depends on more than where it and others stand.
    """
    window, before = None, -1
    for place, seen in _seen(arguments):
        if seen != min(place + 1, window or place + 1):
            if window is not None or seen is None or seen <= before:
                return Reach(window, before + 1)
            window = seen
        before = place
    return Reach(window, None)


def _seen(arguments: dict[str, Any]) -> Iterator[tuple[int, int | None]]:
    """Yield places, ascending, and how many tokens before and at each are seen from there.

    ``None`` where these are not all of the last ones.
    """
    config = arguments["config"]
    last = min(getattr(config, "max_position_embeddings", None) or _FURTHEST, _FURTHEST)
    # A length at which something changes is a power of two or a number of the configuration.
    lengths = {1 << power for power in range(_FURTHEST.bit_length())}
    lengths |= {value for value in vars(config).values() if isinstance(value, int)}
    places = {length + step for length in lengths for step in (-1, 0, 1)}
    for first, row in enumerate(_rows(arguments, 0, _EACH)):
        yield first, _count(row, first)
    for place in sorted(place for place in places if _EACH <= place <= last):
        yield place, _count(_rows(arguments, place, 1)[0], place)


def _count(row: torch.Tensor, place: int) -> int | None:
    count = int(row.sum())
    last = row[max(0, place + 1 - count) : place + 1]
    return count if 0 < count == int(last.sum()) else None


def _rows(arguments: dict[str, Any], first: int, count: int) -> torch.Tensor:
    """Return what some places see, (places, tokens up to behind the last place)."""
    from transformers.masking_utils import sdpa_mask

    asked = {
        **arguments,
        **{"batch_size": 1, "q_offset": first, "q_length": count, "kv_offset": 0},
        "kv_length": first + count + _BEHIND,
        "attention_mask": None,
        "use_vmap": False,
        "allow_is_causal_skip": False,
        "allow_is_bidirectional_skip": False,
    }
    with _NoLookup():
        mask: Any = sdpa_mask(**asked)
    return mask[0, 0].cpu()  # type: ignore[no-any-return]


class _NoLookup(TorchFunctionMode):
    """Refuses masks that look up what they know of each token, such as its document."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:  # what torch wants it to be
        if getattr(func, "__name__", "") in _LOOKUPS:
            raise UnshareableError("its mask depends on more than the places of its tokens")
        if func is torch.Tensor.__getitem__ and args[0].numel() > 1:
            places = args[1] if isinstance(args[1], tuple) else (args[1],)
            asked = [place for place in places if isinstance(place, torch.Tensor)]
            if asked and args[0].ne(_NO_BLOCK).any():
                raise UnshareableError("its mask depends on more than the places of its tokens")
            if asked:
                return torch.full_like(sum(asked[1:], asked[0]), _NO_BLOCK)
        return func(*args, **(kwargs or {}))

"""What a model's tokens see, read from the masks that it has transformers make.

A model describes a mask to transformers as a function of two positions, which the attention in
use may turn into anything. Here that function is asked, once, about many positions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_EACH = 256  # positions that are asked about one by one; behind them a few are
_FURTHEST = 1 << 17  # … up to here
_BEHIND = 64  # positions behind a token that are asked about
_LOOKUPS = {"embedding", "gather", "index_select", "take", "take_along_dim"}
_FIRST_MARK = 97  # a number that nobody else writes into a mask
_NO_BLOCK = -1  # what transformers fills in for tokens that are no part of a picture


class UnshareableError(Exception):
    """A model attends in a way that a packed tree of sequences cannot follow."""


@dataclass(frozen=True)
class Reach:
    """How far back a token sees.

    Attributes:
        window: Maximum number of tokens that it sees, itself included; ``None`` for all.
        max_length: Up to which length of a sequence, in tokens, that is so; ``None`` for any.
    """

    window: int | None
    max_length: int | None


@dataclass
class Masks:
    """The masks of one chunk on its way through a model; each stands as a tensor of one number.

    Attributes:
        known: What the model's masks are, in the order that it makes them; ``None`` reads them.
        made: Those that it has made.
        used: Which of these a layer was handed; ``None`` for a layer that was handed none.
    """

    known: Sequence[Reach] | None = None
    made: list[Reach] = field(default_factory=list)
    used: set[int | None] = field(default_factory=set)

    def mark(self, arguments: dict[str, Any]) -> torch.Tensor:
        """Return what stands for a mask that the model makes, (1, 1, 1, 1)."""
        number = len(self.made)
        if self.known is not None and number >= len(self.known):
            raise UnshareableError("it makes other masks than at first")
        self.made.append(reach_of(arguments) if self.known is None else self.known[number])
        return torch.full((1, 1, 1, 1), float(_FIRST_MARK + number))

    def window(self, mark: torch.Tensor | None) -> int | None:
        """Return the window of the mask that a layer is handed."""
        if mark is None:
            self.used.add(None)
            return None
        number = mark.item() - _FIRST_MARK if mark.numel() == 1 else math.nan
        if number not in range(len(self.made)):
            raise UnshareableError("its attention takes a mask that is not transformers' own")
        self.used.add(int(number))
        return self.made[int(number)].window

    @property
    def max_length(self) -> int | None:
        """Up to which length the masks that layers were handed are known; ``None`` for any."""
        lengths = (self.made[number].max_length for number in self.used if number is not None)
        return min((length for length in lengths if length is not None), default=None)


def reach_of(arguments: dict[str, Any]) -> Reach:
    """Return how far back a token sees by a mask.

    Up to ``max_length``, a token at ``query`` sees the one at ``key`` where::

        key <= query and (window is None or query - key < window)

    Args:
        arguments: What transformers hands to a function of its ``AttentionMaskInterface``.

    Raises:
        UnshareableError: What a token sees depends on more than its position and theirs.
    """
    window, before = None, -1
    for position, count in _counts(arguments):
        if count != min(position + 1, window or position + 1):
            if window is not None or count is None or count <= before:
                return Reach(window, before + 1)
            window = count
        before = position
    return Reach(window, None)


def _counts(arguments: dict[str, Any]) -> Iterator[tuple[int, int | None]]:
    """Yield positions, ascending, and how many tokens up to each are seen from there.

    ``None`` where these are not the last ones before it, it included.
    """
    config = arguments["config"]
    last = min(getattr(config, "max_position_embeddings", None) or _FURTHEST, _FURTHEST)
    # A length at which something changes is a power of two or a number of the configuration.
    lengths = {1 << power for power in range(_FURTHEST.bit_length())}
    lengths |= {value for value in vars(config).values() if isinstance(value, int)}
    positions = {length + step for length in lengths for step in (-1, 0, 1)}
    for first, row in enumerate(_rows(arguments, 0, _EACH)):
        yield first, _count(row, first)
    for position in sorted(each for each in positions if _EACH <= each <= last):
        yield position, _count(_rows(arguments, position, 1)[0], position)


def _count(row: torch.Tensor, position: int) -> int | None:
    count = int(row.sum())
    last = row[max(0, position + 1 - count) : position + 1]
    return count if 0 < count == int(last.sum()) else None


def _rows(arguments: dict[str, Any], first: int, number: int) -> torch.Tensor:
    """Return the mask of some positions, (positions, tokens up to behind the last), bool."""
    from transformers.masking_utils import sdpa_mask

    asked = {
        **arguments,
        "batch_size": 1,
        "q_offset": first,
        "q_length": number,
        "kv_offset": 0,
        "kv_length": first + number + _BEHIND,
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

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in _LOOKUPS:
            raise UnshareableError("its mask depends on more than the positions of its tokens")
        if func is torch.Tensor.__getitem__ and args[0].numel() > 1:
            indices = args[1] if isinstance(args[1], tuple) else (args[1],)
            positions = [index for index in indices if isinstance(index, torch.Tensor)]
            if positions and args[0].ne(_NO_BLOCK).any():
                raise UnshareableError("its mask depends on more than the positions of its tokens")
            if positions:
                return torch.full_like(sum(positions[1:], positions[0]), _NO_BLOCK)
        return func(*args, **(kwargs or {}))

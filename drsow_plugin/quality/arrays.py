"""Arrays of one length each, and how they grow."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T", bound="Arrays")


@dataclass(frozen=True)
class Arrays:
    """Arrays of one length, one for each attribute."""

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    def where(self: T, mask: np.ndarray) -> T:
        """Return those that a mask, or places, choose."""
        return type(self)(*(getattr(self, f.name)[mask] for f in fields(self)))


_WHOLE = {"row", "place", "strong_tokens", "weak_tokens", "length", "group", "better", "other"}


class Columns:
    """Arrays that grow."""

    def __init__(self, kind: type[Arrays]) -> None:
        self._kind = kind
        codes = {"prompt": "Q", "gold": "b"}
        self._arrays = [
            array(codes.get(f.name, "q" if f.name in _WHOLE else "d")) for f in fields(kind)
        ]

    def __len__(self) -> int:
        return len(self._arrays[0])

    def add(self, *values: Any) -> None:
        """Append a value to each."""
        for column, value in zip(self._arrays, values, strict=True):
            column.append(int(value) if column.typecode in "qQb" else value)

    def arrays(self) -> Any:
        """Return what was added."""
        columns = [np.array(column) for column in self._arrays]
        named = zip(fields(self._kind), columns, strict=True)
        return self._kind(*(c.astype(bool) if f.name == "gold" else c for f, c in named))


def joined(kind: type[T], parts: Sequence[T]) -> T:
    """Return arrays one after the other."""
    if not parts:
        empty: T = Columns(kind).arrays()
        return empty
    return kind(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(kind)))

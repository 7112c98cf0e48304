"""What a test costs, in things that can be counted: `make quick` leaves out what costs much."""

from __future__ import annotations

import resource
import sys
from typing import Any, NamedTuple

from drsow_plugin.models.demo import SHA256

CHILD_MB = 64
"""A Python process with torch or datasets in it touches more memory, any other one less."""

_MB = 1 << 20
_opened = 0


def _notice(event: str, arguments: tuple[Any, ...]) -> None:
    global _opened
    if event == "open" and SHA256[:32] in str(arguments[0]):
        _opened += 1


sys.addaudithook(_notice)


class Cost(NamedTuple):
    """Of this process so far.

    Attributes:
        children: Bytes of memory touched by processes that it started and waited for.
        demo: How often a file of the converted demo model was opened.
    """

    children: int
    demo: int

    @classmethod
    def so_far(cls) -> Cost:
        faults = resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt
        return cls(faults * resource.getpagesize(), _opened)


def too_much(before: Cost, after: Cost) -> str | None:
    """Return what makes a test slow that lies between two moments, if anything does."""
    touched = after.children - before.children
    if touched > CHILD_MB * _MB:
        return f"processes that it starts touch {touched // _MB} MB, more than {CHILD_MB}"
    if after.demo > before.demo:
        return "it opens the demo model"
    return None

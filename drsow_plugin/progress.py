"""Tells how far a long piece of work has come."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SHOW_AFTER_S = 5.0


@contextmanager
def token_progress(
    progress: Callable[[int, int], object] | None, total: int
) -> Iterator[Callable[[int], object]]:
    """Yield what to call with the number of tokens just scored.

    Args:
        progress: Given those and the total; ``None`` shows a bar on stderr, once the work has
            taken a few seconds.
        total: Tokens of the whole work.
    """
    if progress is not None:
        yield lambda tokens: progress(tokens, total)
        return
    from tqdm.auto import tqdm

    with tqdm(
        total=total,
        desc="drsow",
        unit="tok",
        unit_scale=True,
        delay=_SHOW_AFTER_S,
        file=sys.stderr,
    ) as bar:
        yield bar.update

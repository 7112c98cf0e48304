"""Progress of long work, told on stderr."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SHOW_AFTER_S = 5.0
_SAID_AFTER_S = 3.0
_IN_LOGS_EVERY_S = 10.0
_ROWS = (
    "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total_fmt} rows [{elapsed}<{remaining}{postfix}]"
)


def tell(text: str) -> None:
    """Say on stderr what is being done, in one line."""
    print(f"drsow: {text}", file=sys.stderr, flush=True)


@contextmanager
def told(text: str) -> Iterator[None]:
    """Say on stderr what is being done, once it has taken a few seconds."""
    timer = threading.Timer(_SAID_AFTER_S, tell, [text])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def token_progress(
    progress: Callable[[int, int], object] | None, total: int | None, name: str = "drsow"
) -> Iterator[Callable[[int], object]]:
    """Yield what to call with the number of tokens just scored.

    Args:
        progress: Given those and the total; ``None`` shows a bar on stderr, once the work has
            taken a few seconds.
        total: Tokens of the whole work; ``None`` if that is not known.
        name: What stands before the bar.
    """
    if progress is not None:
        yield lambda tokens: progress(tokens, total or 0)
        return
    from tqdm.auto import tqdm

    with tqdm(
        total=total,
        desc=name,
        unit="tok",
        unit_scale=True,
        delay=_SHOW_AFTER_S,
        file=sys.stderr,
    ) as bar:
        yield bar.update


class RowProgress:
    """A bar on stderr: rows done, time left, tokens a second."""

    def __init__(self, rows: int | None, name: str) -> None:
        """Show an empty bar.

        Args:
            rows: How many there are; ``None`` if that is not known.
            name: What stands before the bar.
        """
        from tqdm.auto import tqdm

        every = 0.5 if sys.stderr.isatty() else _IN_LOGS_EVERY_S
        self._bar = tqdm(
            total=rows, desc=name, file=sys.stderr, bar_format=_ROWS, mininterval=every, miniters=0
        )
        self._started = time.monotonic()
        self._done_rows = 0
        self._tokens = self._shard_tokens = 0

    def within(self, rows: int) -> Callable[[int, int], None]:
        """Return what to call with tokens done, and tokens in all, while rows are scored."""
        self._shard_tokens = 0

        def advance(tokens: int, total: int) -> None:
            self._shard_tokens += tokens
            self._show(self._done_rows + rows * self._shard_tokens / max(total, 1))

        return advance

    def finish(self, rows: int, tokens: int = 0) -> None:
        """Tell of finished rows, and of tokens scored for them elsewhere."""
        self._done_rows += rows
        self._tokens += self._shard_tokens + tokens
        self._shard_tokens = 0
        self._show(self._done_rows)

    def _show(self, rows: float) -> None:
        scored = self._tokens + self._shard_tokens
        rate = scored / max(time.monotonic() - self._started, 1e-9)
        self._bar.set_postfix_str(f"{rate:,.0f} tokens/s" if scored else "", refresh=False)
        self._bar.update(rows - self._bar.n)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.refresh()
        self._bar.close()

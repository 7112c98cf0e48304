"""Ctrl-C and SIGTERM end a command with one line and the exit status that shells expect."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click


@contextmanager
def signals_told() -> Iterator[None]:
    """Let SIGTERM clean up as Ctrl-C does; say what is kept, and exit with 128 + its number."""
    received = signal.SIGINT

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal received
        received = signal.Signals(number)
        raise KeyboardInterrupt

    # Python lets nobody else have handlers.
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, stop) if is_main else None
    try:
        yield
    except KeyboardInterrupt as error:
        detail = f": {error}" if str(error) else ""
        click.echo(f"Interrupted{detail}.", err=True)
        raise SystemExit(128 + received) from None
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)

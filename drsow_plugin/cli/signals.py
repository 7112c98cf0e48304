"""Ctrl-C and SIGTERM end a command with one line and the exit status that shells expect."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

_SOON_S = 0.05


@contextmanager
def signals_told() -> Iterator[None]:
    """Let SIGTERM clean up as Ctrl-C does; say what is kept, and exit with 128 + its number.

    Python drops an interrupt that comes in the middle of a destructor; it is sent again then.
    """
    received = signal.SIGINT
    again: threading.Timer | None = None

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal received
        received = signal.Signals(number)
        raise KeyboardInterrupt

    def tell_again(lost: sys.UnraisableHookArgs) -> None:
        nonlocal again
        if lost.exc_type is not KeyboardInterrupt:
            shown(lost)
            return
        again = threading.Timer(_SOON_S, os.kill, (os.getpid(), received))
        again.daemon = True
        again.start()

    # Python lets nobody else have handlers.
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, stop) if is_main else None
    shown, sys.unraisablehook = sys.unraisablehook, tell_again
    try:
        yield
    except KeyboardInterrupt as error:
        detail = f": {error}" if str(error) else ""
        click.echo(f"Interrupted{detail}.", err=True)
        raise SystemExit(128 + received) from None
    finally:
        sys.unraisablehook = shown
        if again is not None:
            again.cancel()
        if before is not None:
            signal.signal(signal.SIGTERM, before)

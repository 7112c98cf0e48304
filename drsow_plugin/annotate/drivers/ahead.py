"""Makes the next of something in a thread, while the last one is at work."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeVar

S = TypeVar("S")
T = TypeVar("T")

_PATIENCE_S = 10.0  # for what is made when it is not wanted any more, such as of a disk that hangs
_END = object()


def made_ahead(given: Iterable[S], make: Callable[[S], T]) -> Generator[T, None, None]:
    """Yield what is made of each value, in order; of the next one it is made in a thread meanwhile.

    One is made ahead, no more. Values are taken in the thread of the caller: they may come of
    code that cannot move to another, or that uses the models which are at work between two of
    them. What is raised is raised in its turn, after what was made before that; an interrupt
    comes at once.
    """
    values = iter(given)
    asked: queue.SimpleQueue[Any] = queue.SimpleQueue()
    found: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def ask() -> None:
        try:
            value = next(values, _END)
        except Exception as error:
            found.put((None, error))
        else:
            (found if value is _END else asked).put((value, None))

    thread = threading.Thread(target=_make, args=(make, asked, found), name="ahead", daemon=True)
    thread.start()
    try:
        ask()
        while True:
            made, error = found.get()
            if error is not None:
                raise error
            if made is _END:
                return
            ask()
            yield made
    finally:
        asked.put((_END, None))
        thread.join(_PATIENCE_S)


def _make(
    make: Callable[[S], T], asked: queue.SimpleQueue[Any], found: queue.SimpleQueue[Any]
) -> None:
    while (value := asked.get()[0]) is not _END:
        try:
            found.put((make(value), None))
        except BaseException as error:  # it is told where it is waited for
            found.put((None, error))

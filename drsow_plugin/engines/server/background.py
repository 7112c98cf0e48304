"""Coroutines at work in a thread, and what they give as an ordinary iterator."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Generator
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")

_Emit = Callable[[T], None]


class _End:
    """The end of the work, and what it ended with."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def emitted(work: Callable[[_Emit[T]], Awaitable[None]]) -> Generator[T, None, None]:
    """Yield what a coroutine function emits, as it comes; closing this cancels it.

    The coroutine has an event loop of its own, in a thread that ends with it, so that this may be
    used in any thread, beside another loop, and in a process that was forked.

    Args:
        work: Given what to call with each item.

    Raises:
        BaseException: Whatever the coroutine raised, after all that it emitted before.
    """
    items: SimpleQueue[T | _End] = SimpleQueue()
    loop = asyncio.new_event_loop()

    async def whole() -> None:
        await work(items.put)

    task = loop.create_task(whole())

    def run() -> None:
        try:
            loop.run_until_complete(task)
        except BaseException as error:
            items.put(_End(error))
        else:
            items.put(_End())
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    thread = threading.Thread(target=run, name="drsow-server", daemon=True)
    thread.start()
    try:
        while not isinstance(item := items.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        if thread.is_alive() and not loop.is_closed():
            _cancel(loop, task)
        thread.join()


def _cancel(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    try:
        loop.call_soon_threadsafe(task.cancel)
    except RuntimeError:  # it has ended just now
        return


def result_of(work: Callable[[], Awaitable[T]]) -> T:
    """Return what a coroutine function returns, run likewise."""

    async def once(emit: _Emit[T]) -> None:
        emit(await work())

    (result,) = emitted(once)
    return result

"""Scores shards of rows: here, or in processes with a device each."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection
from typing import TYPE_CHECKING, Any

from drsow_plugin.annotate.items import Item, Rewards
from drsow_plugin.annotate.store import Shards
from drsow_plugin.errors import EngineError
from drsow_plugin.models.devices import use_threads
from drsow_plugin.progress import RowProgress

if TYPE_CHECKING:
    import pyarrow as pa

    from drsow_plugin.annotate.annotator import Annotator


@dataclass(frozen=True)
class Shard:
    """Rows that are scored together.

    Attributes:
        first_row: Number of the first.
        table: The rows as they are.
        values: The columns that are read, as Python values.
        items: The rows, read.
    """

    first_row: int
    table: pa.Table
    values: dict[str, list[Any]]
    items: list[Item]


Scored = tuple[Shard, Rewards]
_Pending = Future[tuple[Rewards, int]] | Rewards


def score_here(
    annotator: Annotator, shards: Iterable[Shard], done: Shards, progress: RowProgress
) -> Generator[Scored, None, None]:
    """Yield each shard with its rewards, in order; what is finished is taken from disk."""
    for shard in shards:
        rewards = done.load(shard.items)
        if rewards is None:
            done.check_writable()
            rewards = annotator.rewards(
                shard.items,
                first_row=shard.first_row,
                progress=progress.within(len(shard.items)),
            )
            done.save(shard.items, rewards)
        progress.finish(len(shard.items))
        yield shard, rewards


def score_in_processes(
    annotator: Annotator,
    shards: Iterable[Shard],
    done: Shards,
    progress: RowProgress,
    num_proc: int,
) -> Generator[Scored, None, None]:
    """Yield each shard with its rewards, in order, scored in ``num_proc`` processes.

    Raises:
        EngineError: A process died.
    """
    context = multiprocessing.get_context("spawn")
    ranks = context.Queue()
    for rank in range(num_proc):
        ranks.put(rank)
    threads = max(1, (os.cpu_count() or 1) // num_proc)
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        num_proc, context, initializer=_start, initargs=(annotator, ranks, done, threads)
    )
    waiting: deque[tuple[Shard, _Pending]] = deque()

    try:
        for shard in shards:
            waiting.append((shard, _submit(pool, shard, done)))
            while len(waiting) > 2 * num_proc:
                yield _next(waiting, done, progress)
        while waiting:
            yield _next(waiting, done, progress)
    except (KeyboardInterrupt, GeneratorExit):
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
            process.join()
        done.kept += sum(_is_kept(shard, pending, done) for shard, pending in waiting)
        raise
    except BrokenProcessPool as error:
        raise EngineError(
            "A process that scored rows died: for want of memory (then use fewer processes or a "
            "smaller batch_tokens), or because a script starts them outside of if __name__ == "
            '"__main__". Finished work is kept: run again.'
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, shard: Shard, done: Shards) -> _Pending:
    found = done.load(shard.items)
    if found is not None:
        return found
    done.check_writable()
    with _without_interrupts():
        return pool.submit(_score, shard.items, shard.first_row)


def _next(waiting: deque[tuple[Shard, _Pending]], done: Shards, progress: RowProgress) -> Scored:
    shard, pending = waiting[0]
    rewards, tokens = pending.result() if isinstance(pending, Future) else (pending, 0)
    waiting.popleft()
    done.kept += _is_kept(shard, pending, done)
    progress.finish(len(shard.items), tokens)
    return shard, rewards


def _is_kept(shard: Shard, pending: _Pending, done: Shards) -> bool:
    """Tell whether rewards were saved by another process, which may not have told so yet."""
    return isinstance(pending, Future) and done.path(shard.items).is_file()


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Let processes that are started here be deaf to Ctrl-C: this one ends them.

    They get it too, in the middle of whatever they do, and each would show a traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# In a process of its own

_mine: dict[str, Any] = {}


def _start(annotator: Annotator, ranks: Any, done: Shards, threads: int) -> None:
    from tqdm import tqdm

    use_threads(threads)
    # The default is a lock between processes, which one that is ended would leave behind.
    tqdm.set_lock(threading.RLock())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _mine.update(annotator=annotator, rank=ranks.get(), done=done)


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, however it went."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _score(items: list[Item], first_row: int) -> tuple[Rewards, int]:
    scored = 0

    def count(tokens: int, _total: int) -> None:
        nonlocal scored
        scored += tokens

    rewards = _mine["annotator"].rewards(
        items, rank=_mine["rank"], first_row=first_row, progress=count
    )
    _mine["done"].save(items, rewards)
    return rewards, scored

"""Scores shards of rows here, or in processes with a device each."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from functools import partial
from multiprocessing import connection
from typing import Any

from drsow_plugin.annotate.drivers.ahead import made_ahead
from drsow_plugin.annotate.items import Item, Rewards
from drsow_plugin.annotate.scorer import Scorer
from drsow_plugin.annotate.store import RewardStore
from drsow_plugin.annotate.tables import Shard, UnreadShard
from drsow_plugin.errors import EngineError
from drsow_plugin.models.devices import use_threads
from drsow_plugin.progress import RowProgress
from drsow_plugin.scoring.rows import Row

_Pending = Future[tuple[Rewards, int]] | Rewards


def score_here(
    scorer: Scorer, shards: Iterable[UnreadShard], store: RewardStore, progress: RowProgress
) -> Generator[tuple[Shard, Rewards], None, None]:
    """Score in this process; a :class:`~drsow_plugin.annotate.drivers.Driver`.

    The next shard is read, and tokenized, in a thread while one is scored.
    """
    with closing(made_ahead(shards, partial(_read, scorer, store))) as ahead:
        for shard, read in ahead:
            rewards = store.load(shard.items)
            if rewards is None:
                store.check_writable()
                advance = progress.within(len(shard.items))
                rewards = scorer.rewards(shard.items, read=read, progress=advance)
                store.save(shard.items, rewards)
            progress.finish(len(shard.items))
            yield shard, rewards


def _read(
    scorer: Scorer, store: RewardStore, unread: UnreadShard
) -> tuple[Shard, list[Row] | None]:
    """Return a shard with its rows, tokenized where that is needed and asks no model."""
    shard = unread()
    is_needed = not (scorer.routes or store.path(shard.items).is_file())
    return shard, scorer.read(shard.items) if is_needed else None


def score_in_processes(
    scorer: Scorer,
    shards: Iterable[UnreadShard],
    store: RewardStore,
    progress: RowProgress,
    *,
    num_proc: int,
) -> Generator[tuple[Shard, Rewards], None, None]:
    """Score in several processes; a :class:`~drsow_plugin.annotate.drivers.Driver`.

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
        num_proc, context, initializer=_start, initargs=(scorer, ranks, store, threads)
    )
    waiting: deque[tuple[Shard, _Pending]] = deque()

    try:
        for unread in shards:
            shard = unread()
            waiting.append((shard, _submit(pool, shard, store)))
            while len(waiting) > 2 * num_proc:
                yield _next(waiting, store, progress)
        while waiting:
            yield _next(waiting, store, progress)
    except (KeyboardInterrupt, GeneratorExit):
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
            process.join()
        store.kept += sum(_is_kept(shard, pending, store) for shard, pending in waiting)
        raise
    except BrokenProcessPool as error:
        raise EngineError(
            "A process that scored rows died: for want of memory (then use fewer processes or a "
            "smaller batch_tokens), or because a script starts them outside of if __name__ == "
            '"__main__". Finished work is kept: run again.'
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, shard: Shard, store: RewardStore) -> _Pending:
    rewards = store.load(shard.items)
    if rewards is not None:
        return rewards
    store.check_writable()
    with _without_interrupts():
        return pool.submit(_score, shard.items)


def _next(
    waiting: deque[tuple[Shard, _Pending]], store: RewardStore, progress: RowProgress
) -> tuple[Shard, Rewards]:
    shard, pending = waiting[0]
    rewards, tokens = pending.result() if isinstance(pending, Future) else (pending, 0)
    waiting.popleft()
    store.kept += _is_kept(shard, pending, store)
    progress.finish(len(shard.items), tokens)
    return shard, rewards


def _is_kept(shard: Shard, pending: _Pending, store: RewardStore) -> bool:
    """Tell whether rewards were saved by another process, which may not have told so yet."""
    return isinstance(pending, Future) and store.path(shard.items).is_file()


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


def _start(scorer: Scorer, ranks: Any, store: RewardStore, threads: int) -> None:
    from tqdm import tqdm

    if scorer.pair.computes_here:
        use_threads(threads)
    # The default is a lock between processes, which one that is ended would leave behind.
    tqdm.set_lock(threading.RLock())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _mine.update(scorer=scorer, rank=ranks.get(), store=store)


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, however it went."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _score(items: list[Item]) -> tuple[Rewards, int]:
    total = 0

    def count(tokens: int, _total: int) -> None:
        nonlocal total
        total += tokens

    rewards = _mine["scorer"].rewards(items, rank=_mine["rank"], progress=count)
    _mine["store"].save(items, rewards)
    return rewards, total

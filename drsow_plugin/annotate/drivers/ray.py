"""Scores shards of rows in the actors of a Ray cluster, with Ray Data.

Ray restarts an actor that dies, wherever there is room, and gives its unfinished shards to it or
to another. An actor keeps what it has scored itself, in a store that all nodes see, before it
tells of it: neither a node that is lost nor the end of this process costs finished work.
"""

from __future__ import annotations

import logging
import math
import os
import pickle
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from drsow_plugin.annotate.actor import Actor, Begun, Failed
from drsow_plugin.annotate.drivers import Where
from drsow_plugin.annotate.items import Rewards
from drsow_plugin.annotate.pieces import Done, Job, PieceActor, read_blocks
from drsow_plugin.annotate.scorer import Scorer
from drsow_plugin.annotate.store import RewardStore
from drsow_plugin.annotate.tables import Shard, UnreadShard
from drsow_plugin.errors import ConfigError, EngineError
from drsow_plugin.progress import RowProgress

_READERS = 8  # stretches of files that are read at once
_AT_ONCE = 2  # in an actor: one shard is scored, another read and tokenized
_IN_FLIGHT = 4  # of an actor: two more are on the way to it
_SET = ("enable_progress_bars", "print_on_execution_start", "target_max_block_size")
_LEAST_WINDOW = 1 << 30  # bytes of rows that are handed to the cluster at once


@dataclass(frozen=True)
class Pool:
    """Actors, as a cluster has room for them.

    Attributes:
        actors: How many.
        gpus: GPUs of each.
        threads: Threads of each, where it computes on processors.
        window: Bytes of rows that are handed to them at once.
    """

    actors: int
    gpus: float
    threads: int
    window: int

    @classmethod
    def of(cls, scorer: Scorer, num_actors: int | None, gpus_per_actor: float | None) -> Pool:
        """Find room in the cluster that this process is connected with.

        Args:
            scorer: What is to have room.
            num_actors: How many actors; ``None`` is one for each GPU, or else for each node.
            gpus_per_actor: GPUs of each; ``None`` is one where there are any and they are needed.

        Raises:
            ConfigError: There is not room for that.
        """
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        most = max((node.get("GPU", 0.0) for node in nodes), default=0.0)
        gpus = gpus_per_actor
        if gpus is None:
            gpus = 1.0 if scorer.pair.computes_here and most >= 1 else 0.0
        if gpus > most:
            raise ConfigError(
                f"gpus_per_actor={gpus:g}: no node of the Ray cluster has so many GPUs, the most "
                f"is {most:g}. Give fewer, or start nodes that have them."
            )
        kind, each = ("GPU", gpus) if gpus else ("CPU", 1.0)
        room = sum(math.floor(node.get(kind, 0.0) / each) for node in nodes)
        actors = num_actors or (room if gpus else len(nodes))
        if actors > room:
            raise ConfigError(
                f"num_actors={actors}: the Ray cluster of {len(nodes)} nodes has room for {room} "
                f"with {each:g} {kind} each. Give fewer, or start more nodes."
            )
        memory = sum(node.get("object_store_memory", 0.0) for node in nodes)
        return cls(
            actors,
            gpus,
            threads=max(1, (os.cpu_count() or 1) * len(nodes) // actors),
            window=max(_LEAST_WINDOW, int(memory) // 2),
        )


def score_on_ray(
    scorer: Scorer,
    shards: Iterable[UnreadShard],
    store: RewardStore,
    progress: RowProgress,
    *,
    num_actors: int | None = None,
    gpus_per_actor: float | None = None,
) -> Generator[tuple[Shard, Rewards], None, None]:
    """Score in actors of a cluster; a :class:`~drsow_plugin.annotate.drivers.Driver`.

    Args:
        scorer: See there, as for the next three.
        shards: Those.
        store: Has to be seen by all nodes: a folder that they share, or an address.
        progress: That.
        num_actors: How many actors, each with both models; see :meth:`Pool.of`.
        gpus_per_actor: GPUs of each.

    Raises:
        ConfigError: There is no cluster, or no room in it.
        EngineError: A model failed, or actors died that scored the same rows.
        StorageError: Rewards cannot be kept, or not where all nodes see them.
    """
    with ExitStack() as stack:
        stack.enter_context(_connected())
        pool = Pool.of(scorer, num_actors, gpus_per_actor)
        store.check_writable()
        for window in _windows(shards, pool.window):
            with closing(_score(window, scorer, store, pool, progress)) as scored:
                yield from scored


@contextmanager
def _connected() -> Iterator[None]:
    """Connect with a cluster, unless this process is connected with one."""
    with ExitStack() as stack:
        if not ray.is_initialized():
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what is wrong is raised
            try:
                ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
            except (ConnectionError, RuntimeError, ValueError, RayError) as error:
                said = " ".join(str(error).split())
                raise ConfigError(
                    f"driver=ray needs a Ray cluster, and none could be reached: {said:.200} Start "
                    "one with 'ray start --head', or name one in RAY_ADDRESS."
                ) from error
            stack.callback(ray.shutdown)
        logger = logging.getLogger("ray.data")
        stack.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.ERROR)
        yield


@dataclass(frozen=True)
class _Window:
    """Shards that are handed to the cluster together, each as a block of one row."""

    unread: list[UnreadShard]
    blocks: list[Any]


def _windows(shards: Iterable[UnreadShard], most: int) -> Iterator[_Window]:
    window, size = _Window([], []), 0
    for unread in shards:
        items = pickle.dumps(unread().items)
        number = len(window.unread)
        window.blocks.append(ray.put(pa.table({"number": [number], "content": [items]})))
        window.unread.append(unread)
        size += len(items)
        if size >= most:
            yield window
            window, size = _Window([], []), 0
    if window.unread:
        yield window


def _score(
    window: _Window, scorer: Scorer, store: RewardStore, pool: Pool, progress: RowProgress
) -> Generator[tuple[Shard, Rewards], None, None]:
    """Yield the shards of a window with their rewards, in order."""
    with _quiet():
        blocks = ray.data.from_arrow_refs(window.blocks)
    pool = replace(pool, actors=min(pool.actors, len(window.blocks)))
    with closing(_in_order(blocks, Actor, (scorer, store), pool)) as coming:
        for unread, done in zip(window.unread, coming, strict=True):
            store.kept += done.is_kept
            shard = unread()
            progress.finish(len(shard.items), done.tokens)
            yield shard, done.rewards


def label_pieces(
    job: Job, scorer: Scorer, store: RewardStore, progress: RowProgress, where: Where
) -> Generator[Done, None, None]:
    """Have pieces of files read, labelled and written on a cluster, and yield each, in order.

    Args:
        job: What is read, how it is labelled and where it is written.
        scorer: See :func:`score_on_ray`, as for the others, and for what is raised.
        store: See there.
        progress: See there.
        where: How many actors, with how many GPUs.
    """
    with ExitStack() as stack:
        stack.enter_context(_connected())
        pool = Pool.of(scorer, where.num_actors, where.gpus_per_actor)
        pool = replace(pool, actors=min(pool.actors, job.plan.pieces))
        store.check_writable()
        stretches = [{"stretch": pickle.dumps(stretch)} for stretch in job.plan.stretches]
        with _quiet() as context:
            context.target_max_block_size = 1  # a piece is a block: each goes where there is room
            blocks = ray.data.from_items(stretches, override_num_blocks=len(stretches))
            rows = blocks.map_batches(
                partial(read_blocks, job.plan),
                batch_size=1,
                batch_format="pyarrow",
                num_cpus=0,  # actors may have all processors
                compute=ray.data.TaskPoolStrategy(size=min(_READERS, len(stretches))),
            )
        with closing(_in_order(rows, PieceActor, (job, scorer, store), pool)) as done:
            for piece in done:
                store.kept += piece.kept
                progress.finish(piece.rows, piece.tokens)
                yield piece


@contextmanager
def _quiet() -> Iterator[Any]:
    """Yield the context of Ray Data, without its bars; it is as before at the end."""
    context = ray.data.DataContext.get_current()
    before = {name: getattr(context, name) for name in _SET}
    context.enable_progress_bars = context.print_on_execution_start = False
    try:
        yield context
    finally:
        for name, value in before.items():
            setattr(context, name, value)


def _in_order(
    blocks: Any, actor: type[Actor], arguments: tuple[Any, ...], pool: Pool
) -> Generator[Any, None, None]:
    """Yield what actors make of blocks, in the order of their numbers."""
    finished: dict[int, Any] = {}
    following = 0
    with closing(_as_finished(blocks, actor, arguments, pool)) as coming:
        try:
            for number, outcome in coming:
                if isinstance(outcome, Failed):
                    raise outcome.kind(outcome.message)
                finished[number] = outcome
                while following in finished:
                    yield finished.pop(following)
                    following += 1
        except RayError as error:
            raise EngineError(
                f"The Ray cluster failed: {_cause(error)}. Finished work is kept: run again."
            ) from error


def _as_finished(
    blocks: Any, actor: type[Actor], arguments: tuple[Any, ...], pool: Pool
) -> Generator[tuple[int, Any], None, None]:
    """Yield what actors make of blocks, with its number, as it is finished."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    how = {"num_cpus": 0, "scheduling_strategy": here}
    lasting = {"max_restarts": -1, "max_task_retries": -1}  # it may be lost too, and counts anew
    begun = ray.remote(Begun).options(**how, **lasting).remote()
    with _quiet():
        done = blocks.map_batches(
            actor,
            batch_size=1,
            batch_format="pyarrow",
            fn_constructor_args=(*arguments, partial(_count, begun), pool.threads),
            compute=ray.data.ActorPoolStrategy(
                size=pool.actors,
                max_tasks_in_flight_per_actor=_IN_FLIGHT,
                max_concurrent_calls_per_actor=_AT_ONCE,
                enable_true_multi_threading=True,
            ),
            num_cpus=0 if pool.gpus else 1,
            num_gpus=pool.gpus,
        )
        batches = done.iter_batches(batch_size=None, batch_format="pyarrow")
    for batch in batches:
        for number, outcome in zip(batch["number"], batch["outcome"], strict=True):
            # It comes of an actor of ours, which Ray has pickled itself.
            yield number.as_py(), pickle.loads(outcome.as_py())  # noqa: S301


def _cause(error: BaseException) -> str:
    """Return the first line of what Ray tells in many."""
    while (cause := getattr(error, "cause", None) or error.__cause__) is not None:
        error = cause
    line = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {line:.300}".rstrip(".: ")


def _count(begun: Any, number: int) -> int:
    times: int = ray.get(begun.count.remote(number))
    return times

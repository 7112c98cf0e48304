"""What scores shards of rows in an actor of a cluster."""

from __future__ import annotations

import logging
import pickle
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from drsow_plugin.annotate.items import Item, Rewards
from drsow_plugin.annotate.scorer import Scorer
from drsow_plugin.annotate.store import RewardStore
from drsow_plugin.cache import PAIR
from drsow_plugin.errors import ConfigError, DataError, DrSoWError, EngineError, StorageError
from drsow_plugin.models.devices import use_threads

_log = logging.getLogger(__name__)
_MOST_DEATHS = 5  # of the actors that score one shard
_KINDS = (ConfigError, DataError, EngineError, StorageError)


@dataclass(frozen=True)
class Finished:
    """What an actor made of a shard.

    Attributes:
        rewards: Those of its rows.
        tokens: How many were scored for them.
        is_kept: Whether they are in the store.
    """

    rewards: Rewards
    tokens: int
    is_kept: bool


@dataclass(frozen=True)
class Failed:
    """Why an actor made nothing of a shard.

    Attributes:
        kind: The error that ends the run.
        message: What it says.
    """

    kind: type[DrSoWError]
    message: str

    @classmethod
    def of(cls, error: DrSoWError) -> Failed:
        """Return what to tell of an error: its kinds do not all unpickle."""
        return cls(
            next((kind for kind in _KINDS if isinstance(error, kind)), EngineError), str(error)
        )


class Begun:
    """Counts how often each shard was begun: actors that die of it end in an error, not never."""

    def __init__(self) -> None:
        self._times: Counter[int] = Counter()

    def count(self, number: int) -> int:
        """Count once more, and return how often that is."""
        self._times[number] += 1
        return self._times[number]


class Actor:
    """A pair of models, in a process of the cluster; scores one shard while it reads another."""

    def __init__(
        self, scorer: Scorer, store: RewardStore, begins: Callable[[int], int], threads: int
    ) -> None:
        """Open no model yet.

        Args:
            scorer: Gives the rewards.
            store: Where they are kept, as the driver opened it.
            begins: Counts how often a shard was begun, and returns it.
            threads: For a model that computes on processors.
        """
        self._scorer, self._store, self._begins = scorer, store, begins
        self._scoring, self._reading = threading.Lock(), threading.Lock()
        self._is_shared = False
        if scorer.pair.computes_here:
            use_threads(threads)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return what became of one shard; may be called in several threads."""
        number: int = batch["number"][0].as_py()
        try:
            outcome = self._finish(number, batch["content"][0].as_py())
        except DrSoWError as error:
            outcome = Failed.of(error)
        except Exception as error:
            _log.exception("shard %s", number)
            outcome = Failed(EngineError, f"An actor failed: {type(error).__name__}: {error}")
        return pa.table({"number": [number], "outcome": [pickle.dumps(outcome)]})

    def _finish(self, number: int, content: bytes) -> Any:
        """Return what is made of one block: here of a shard, whose rows the driver has read."""
        items = pickle.loads(content)  # noqa: S301 — of the driver, whose code runs here
        return self.finish_shard(number, items)

    def finish_shard(self, number: int, items: list[Item]) -> Finished:
        """Score a shard, or take its rewards from the store.

        Args:
            number: What tells it from others.
            items: Its rows.
        """
        rewards = self._store.load(items)
        if rewards is not None:
            return Finished(rewards, 0, is_kept=True)
        self._check_shared()
        if self._begins(number) > _MOST_DEATHS:
            raise EngineError(
                f"{_MOST_DEATHS} actors of the Ray cluster died while they scored the same rows, "
                f"the shard {number}: for want of memory (then a smaller batch_tokens helps), or "
                "because nodes were lost. Finished work is kept: run again."
            )
        total = 0

        def count(tokens: int, _total: int) -> None:
            nonlocal total
            total += tokens

        read = None
        if not self._scorer.routes:
            with self._reading:
                read = self._scorer.read(items)
        with self._scoring:
            rewards = self._scorer.rewards(items, read=read, progress=count)
        return Finished(rewards, total, is_kept=self._store.save(items, rewards))

    def _check_shared(self) -> None:
        """Check, once, that rewards are kept where the other nodes see them."""
        folder, writing = self._store.folder, self._store.writing
        if self._is_shared:
            return
        if not (writing.is_dir() if isinstance(writing, Path) else (folder / PAIR).is_file()):
            raise StorageError(
                f"Scores cannot be kept in {folder}: it is not the same on all nodes of the Ray "
                "cluster. Name a folder that they share, or an address such as s3://bucket/scores, "
                "as cache_dir."
            )
        self._is_shared = True

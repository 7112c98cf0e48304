"""Drivers decide where shards of rows are scored: in this process, or in several."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Protocol

from drsow_plugin.config.parse import parse_positive
from drsow_plugin.errors import ConfigError
from drsow_plugin.models.devices import device_names

if TYPE_CHECKING:
    from drsow_plugin.annotate.items import Rewards
    from drsow_plugin.annotate.scorer import Scorer
    from drsow_plugin.annotate.store import RewardStore
    from drsow_plugin.annotate.tables import Shard
    from drsow_plugin.progress import RowProgress


class Driver(Protocol):
    """Has shards of rows scored somewhere; a function of one call."""

    def __call__(
        self, scorer: Scorer, shards: Iterable[Shard], store: RewardStore, progress: RowProgress
    ) -> Generator[tuple[Shard, Rewards], None, None]:
        """Yield each shard with its rewards, in order.

        Args:
            scorer: Gives the rewards; picklable.
            shards: The rows; not all of them are held at once.
            store: What is in there is not scored again; what is scored goes in there.
            progress: Told of the rows that are finished.

        Raises:
            EngineError: A model failed, or what it ran in died.
            StorageError: Rewards cannot be kept.
        """
        ...


def parse_processes(value: object) -> int:
    """Return how many processes score, 1 for ``None``.

    Raises:
        ConfigError: It is no whole number of at least 1, or of more than could be at work at once.
    """
    number = parse_positive("num_proc", value) or 1
    if number == 1:
        return number
    processors, devices = os.cpu_count() or 1, len(device_names())
    if number > max(processors, devices):
        raise ConfigError(
            f"num_proc={number}: each process holds both models, and this machine has {processors} "
            f"processors and {devices} GPUs. Give at most {max(processors, devices)}."
        )
    return number

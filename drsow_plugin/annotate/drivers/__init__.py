"""Drivers decide where shards of rows are scored: in this process, in several, on a cluster."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypedDict

from drsow_plugin.config.parse import parse_choice, parse_positive
from drsow_plugin.errors import ConfigError, MissingExtraError
from drsow_plugin.models.devices import device_names

if TYPE_CHECKING:
    from drsow_plugin.annotate.items import Rewards
    from drsow_plugin.annotate.scorer import Scorer
    from drsow_plugin.annotate.store import RewardStore
    from drsow_plugin.annotate.tables import Shard, UnreadShard
    from drsow_plugin.progress import RowProgress


class Driver(Protocol):
    """Has shards of rows scored somewhere; a function of one call."""

    def __call__(
        self,
        scorer: Scorer,
        shards: Iterable[UnreadShard],
        store: RewardStore,
        progress: RowProgress,
    ) -> Generator[tuple[Shard, Rewards], None, None]:
        """Yield each shard with its rewards, in order.

        Args:
            scorer: Gives the rewards; picklable.
            shards: The rows; not all of them are held at once. They are taken in the thread of the
                caller, since a stream may run anyone's code.
            store: What is in there is not scored again; what is scored goes in there.
            progress: Told of the rows that are finished.

        Raises:
            EngineError: A model failed, or what it ran in died.
            StorageError: Rewards cannot be kept.
        """
        ...


class DriverOptions(TypedDict, total=False):
    """Where rows are scored, as :meth:`drsow_plugin.Annotator.run` takes it."""

    num_proc: int | None
    driver: Literal["processes", "ray"] | None
    num_actors: int | None
    gpus_per_actor: float | None


@dataclass(frozen=True)
class Where:
    """Where rows are scored, checked.

    Attributes:
        driver: The kind of driver.
        processes: How many processes of this machine.
        num_actors: How many actors of a cluster; ``None`` for as many as it has room for.
        gpus_per_actor: GPUs of each; ``None`` is one where the cluster has any that are needed.
    """

    driver: str = "processes"
    processes: int = 1
    num_actors: int | None = None
    gpus_per_actor: float | None = None

    @classmethod
    def of(cls, options: DriverOptions) -> Where:
        """Return what some options say.

        Raises:
            ConfigError: A value is wrong, or belongs to another driver.
            MissingExtraError: Ray is not installed.
        """
        driver = parse_choice("driver", options.get("driver") or "processes", ("processes", "ray"))
        others = ("num_proc",) if driver == "ray" else ("num_actors", "gpus_per_actor")
        for name in others:
            if options.get(name) is not None:
                advice = "driver=ray takes num_actors" if driver == "ray" else "driver=ray does"
                raise ConfigError(f"{name} says nothing with driver={driver}: {advice}.")
        if driver == "ray" and importlib.util.find_spec("ray") is None:
            raise MissingExtraError("driver=ray", "ray")
        return cls(
            driver,
            parse_processes(options.get("num_proc")),
            parse_positive("num_actors", options.get("num_actors")),
            _parse_gpus(options.get("gpus_per_actor")),
        )


def _parse_gpus(value: object) -> float | None:
    """Return GPUs of an actor: a whole number of them, or a part of one."""
    if value is None:
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(str(value))
    except ValueError:
        number = math.nan
    if not (0 <= number < 1 or (number > 0 and number.is_integer())):
        raise ConfigError(
            f"gpus_per_actor is a whole number of GPUs, 0 or a part of one, got {value!r}."
        )
    return number


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

"""What lm-eval wrote of a run into ``results_….json``, read back as plain values."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drsow_plugin.errors import DataError

_STDERR, _INTERVAL = "_stderr", "_interval"
_NO_METRICS = {"name", "alias", "samples", "sample_len", "sample_count"}


@dataclass(frozen=True)
class Metric:
    """A value that a task reports.

    Attributes:
        name: Such as ``acc``, or ``SUBSET/acc``.
        filter: The filter of lm-eval that it is of; ``none`` without one.
        value: The value.
        stderr: Its standard error; ``None`` where lm-eval gives none.
        interval: Its 95 % interval, which draws prompts; ``None`` where there is none.
        higher_is_better: Whether a higher one is better.
    """

    name: str
    filter: str
    value: float
    stderr: float | None
    interval: tuple[float, float] | None
    higher_is_better: bool

    @property
    def subset(self) -> str:
        """The subset that it is of; empty for the task as a whole."""
        return self.name.rpartition("/")[0]

    @property
    def kind(self) -> str:
        """The name without the subset."""
        return self.name.rpartition("/")[2]


@dataclass(frozen=True)
class TaskResult:
    """What one task or group reports.

    Attributes:
        name: The task or group.
        metrics: What has a value.
        without: The names of what has none: scores of a part of a benchmark, and NaN.
        samples: Number of documents, if lm-eval says it.
        config: The task file with all that was added; empty for a group.
    """

    name: str
    metrics: tuple[Metric, ...]
    without: tuple[str, ...]
    samples: int | None
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One run of lm-eval.

    Attributes:
        path: The file.
        model: What ``--model`` was.
        model_args: What ``--model_args`` said.
        described: What our own models tell of themselves; empty for others.
        limit: What ``--limit`` was, if given.
        date: When it was, in seconds since 1970.
        version: That of lm-eval.
        tasks: All tasks and groups that report something, by name.
        groups: The tasks of each group.
    """

    path: Path
    model: str
    model_args: Mapping[str, Any]
    described: Mapping[str, Any]
    limit: float | None
    date: float
    version: str
    tasks: Mapping[str, TaskResult]
    groups: Mapping[str, tuple[str, ...]]

    @property
    def day(self) -> str:
        """The date as ISO 8601 has it, in UTC."""
        moment = datetime.datetime.fromtimestamp(self.date, datetime.timezone.utc)
        return moment.isoformat(timespec="seconds")


def read_runs(path: str) -> list[Run]:
    """Read a results file of lm-eval, or all in a folder.

    Raises:
        DataError: There is none, or it cannot be read.
    """
    place = Path(path).expanduser()
    files = sorted(place.rglob("results*.json")) if place.is_dir() else [place]
    if not files:
        raise DataError(
            f"{path} has no results_….json. Give the folder that --output_path of lm-eval named, "
            "or such a file."
        )
    return [_read(file) for file in files]


def _read(file: Path) -> Run:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read as JSON: {error}. Give a results file.") from error
    try:
        config, results = found["config"], found["results"]
        groups = {
            name: tuple(map(_short, of))
            for name, of in (found.get("group_subtasks") or {}).items()
            if of
        }
        all_of = {**results, **(found.get("groups") or {})}
        tasks = {name: _task(name, of, found) for name, of in all_of.items()}
        return Run(
            path=file,
            model=str(config["model"]),
            model_args=_arguments(config.get("model_args")),
            described=config.get("drsow") or config.get("reward_model") or {},
            limit=config.get("limit"),
            date=float(found["date"]),
            version=str(found.get("lm_eval_version") or "unknown"),
            tasks={name: task for name, task in tasks.items() if task.metrics or task.without},
            groups=groups,
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(
            f"{file} is no results file of lm-eval ({type(error).__name__}: {error}). Give a "
            "results_….json of lm-eval 0.4.12 or later."
        ) from error


def _short(task: str) -> str:
    """Return a task's name without that of its group, which the next lm-eval writes before it."""
    return task.rpartition("::")[2]


def _arguments(given: str | Mapping[str, Any] | None) -> Mapping[str, Any]:
    if isinstance(given, Mapping):
        return given
    parts = (part.partition("=") for part in (given or "").split(","))
    return {name.strip(): value for name, _, value in parts if name.strip()}


def _task(name: str, values: Mapping[str, Any], found: Mapping[str, Any]) -> TaskResult:
    directions = {_short(task): of for task, of in (found.get("higher_is_better") or {}).items()}
    better = directions.get(name) or {}
    samples = (found.get("n-samples") or {}).get(name) or {}
    metrics, without = [], []
    for key, value in values.items():
        metric, _, of = key.partition(",")
        if not metric.strip() or metric in _NO_METRICS or metric.endswith((_STDERR, _INTERVAL)):
            continue
        if not _is_number(value):
            without.append(metric)
            continue
        stderr, ends = (values.get(f"{metric}{end},{of}") for end in (_STDERR, _INTERVAL))
        metrics.append(
            Metric(
                name=metric,
                filter=of or "none",
                value=float(value),
                stderr=float(stderr) if stderr is not None and _is_number(stderr) else None,
                interval=_ends(ends),
                higher_is_better=better.get(metric) is not False,
            )
        )
    config = (found.get("configs") or {}).get(name) or {}
    number = samples.get("effective", values.get("sample_len"))
    number = number if isinstance(number, int) else None
    return TaskResult(name, tuple(metrics), tuple(without), number, config)


def _ends(value: object) -> tuple[float, float] | None:
    if isinstance(value, list) and len(value) == 2 and all(map(_is_number, value)):
        return float(value[0]), float(value[1])
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

"""The rows of a study: preference pairs of a data set or of a benchmark, with their parts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module, resources
from typing import Any

import datasets
import yaml

from drsow_plugin.annotate.items import Item, read_rows
from drsow_plugin.annotate.layout import find_layout
from drsow_plugin.annotate.options import LabelConfig
from drsow_plugin.annotate.tables import tables_of, with_class_names
from drsow_plugin.errors import ConfigError, DataError, unknown_name
from drsow_plugin.harness.benchmarks.loading import NO_ROWS
from drsow_plugin.hashing import text_sha256
from drsow_plugin.prompts import Messages
from drsow_plugin.records import Message, Problem

SUBSET = "subset"
"""The column that parts the rows of a data set, where no other is named."""


@dataclass(frozen=True)
class StudyRow:
    """A prompt and two responses to it, of which the first is the better one.

    Attributes:
        prompt: The messages.
        responses: Chosen and rejected.
        subset: The part of the data that it is of; empty where it has none.
        section: The part of a benchmark that its subset is of; empty likewise.
    """

    prompt: Sequence[Message]
    responses: tuple[str, str]
    subset: str = ""
    section: str = ""

    @cached_property
    def prompt_key(self) -> str:
        """A hash of the prompt: rows that share it are drawn together."""
        return text_sha256(json.dumps(list(self.prompt), sort_keys=True, default=str))

    @cached_property
    def keys(self) -> tuple[str, str]:
        """A hash of the prompt and each response, which is what log-probs are kept by."""
        first, second = (
            text_sha256(json.dumps([list(self.prompt), text], sort_keys=True, default=str))
            for text in self.responses
        )
        return first, second


@dataclass(frozen=True)
class StudyData:
    """The rows that could be read.

    Attributes:
        name: What the data is called.
        rows: The rows.
        bad: Why others could not be read.
        weights: For each section the weight of each of its subsets in the section's accuracy,
            where the benchmark has such.
    """

    name: str
    rows: tuple[StudyRow, ...]
    bad: tuple[Problem, ...] = ()
    weights: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @cached_property
    def sha256(self) -> str:
        """A hash of the rows, in order."""
        parts = ([*row.keys, row.subset, row.section] for row in self.rows)
        return text_sha256("\n".join(json.dumps(part) for part in parts))


def read_data(data: Any, config: LabelConfig, name: str, limit: int | None = None) -> StudyData:
    """Return the preference pairs of a data set.

    Args:
        data: A ``Dataset``, or rows as mappings.
        config: Where prompt, chosen and rejected are, and by ``group_column`` the subset.
        name: What the data is called.
        limit: Rows that are read, from the first; ``None`` for all.

    Raises:
        DataError: It holds no pairs, or not one row can be read.
    """
    if isinstance(data, Sequence) and not isinstance(data, str):
        data = datasets.Dataset.from_list([dict(row) for row in data])
    if not isinstance(data, datasets.Dataset):
        kind = type(data).__name__
        several = f": {', '.join(data)}" if isinstance(data, Mapping) else ""
        raise DataError(
            f"A study takes one data set, or a list of rows, got a {kind}{several}. Give one split."
        )
    if limit is not None:
        data = data.select(range(min(limit, len(data))))
    group = config.group_column or (SUBSET if SUBSET in data.column_names else None)
    layout = find_layout(data.column_names, config)
    rows: list[StudyRow] = []
    bad: list[Problem] = []
    first = 0
    for table in tables_of(data, 1000):
        values = with_class_names(table[:], table.features)
        groups = values[group] if group else [None] * len(table)
        for item, subset in zip(read_rows(values, layout, first), groups, strict=True):
            problem = item.problem
            if problem is not None:
                bad.append(problem)
            else:
                rows.append(_row(item, "" if subset is None else str(subset)))
        first += len(table)
    return _checked(StudyData(name, tuple(rows), tuple(bad)))


def _row(item: Item, subset: str) -> StudyRow:
    chosen, rejected = item.responses
    assert chosen is not None and rejected is not None  # of a pair that could be read
    return StudyRow(item.prompt, (chosen, rejected), subset)


def _checked(data: StudyData) -> StudyData:
    if not data.rows:
        why = f": {data.bad[0]}" if data.bad else ""
        raise DataError(f"{data.name} has no preference pair that can be read{why}.")
    return data


class _Task(yaml.SafeLoader):
    """Reads this package's task files: functions stay names."""


_Task.add_constructor("!function", lambda _loader, node: node.value)


_OF_PAIRS = ("PreferenceTask", "RewardBenchTask")
"""The classes of tasks whose rows are pairs; others are of more responses."""


def task_names() -> list[str]:
    """Return the tasks and groups of this package that have pairs of their own."""
    files = resources.files("drsow_plugin.tasks").iterdir()
    names = [file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml")]
    return sorted(name for name in names if name != "preference" and _is_of_pairs(name))


def _is_of_pairs(task: str) -> bool:
    config = _read(task)
    if isinstance(config["task"], list):
        return all(map(_is_of_pairs, config["task"]))
    return str(config["class"]).endswith(_OF_PAIRS)


def _read(task: str) -> dict[str, Any]:
    file = resources.files("drsow_plugin.tasks") / f"{task}.yaml"
    text = file.read_text(encoding="utf-8")
    config: dict[str, Any] = yaml.load(text, Loader=_Task)  # noqa: S506 (a SafeLoader)
    return config


def read_task(task: str, metadata: Mapping[str, Any], limit: int | None = None) -> StudyData:
    """Return the rows of a benchmark that this package has a task of.

    Args:
        task: The name of a task, or of a group of tasks, which are its sections.
        metadata: What the benchmark is told, such as ``data``, a local copy.
        limit: Rows of each task that are read, from the first; ``None`` for all.

    Raises:
        ConfigError: There is no such task.
        DataError: Its data cannot be read.
    """
    if task not in task_names():
        raise ConfigError(unknown_name("task", task, task_names()))
    rows: list[StudyRow] = []
    members = list(_members(task))
    for name, load, arguments in members:
        split = load(**{**metadata, **arguments})["test"]
        wanted = (row for row in split if row.get("subset") != NO_ROWS)
        rows += _of_benchmark(wanted, name, limit)
    return _checked(StudyData(task, tuple(rows), (), _weights(members, rows)))


def _members(task: str) -> Iterable[tuple[str, Callable[..., Any], Mapping[str, Any]]]:
    """Yield the tasks of a group, or a task itself, with what loads its rows."""
    config = _read(task)
    if isinstance(config["task"], list):
        for member in config["task"]:
            yield from _members(member)
        return
    module, _, function = config["custom_dataset"].rpartition(".")
    load = getattr(import_module(module), function)
    yield config["task"], load, config.get("dataset_kwargs", {})


def _of_benchmark(
    rows: Iterable[Mapping[str, Any]], section: str, limit: int | None
) -> list[StudyRow]:
    made = [
        StudyRow(
            Messages(row["prompt"]),
            (row["chosen"], row["rejected"]),
            str(row.get("subset") or ""),
            section,
        )
        for row in rows
    ]
    return made[:limit]


def _weights(
    members: Sequence[tuple[str, Callable[..., Any], Mapping[str, Any]]], rows: Sequence[StudyRow]
) -> dict[str, dict[str, float]]:
    """Return RewardBench's weights of the sections whose rows are all there."""
    weights: dict[str, dict[str, float]] = {}
    for name, load, arguments in members:
        if load.__module__.endswith(".rewardbench"):
            from drsow_plugin.harness.benchmarks.rewardbench import WEIGHTS, is_complete

            section = arguments["section"]
            if is_complete(section, [row.subset for row in rows if row.section == name]):
                weights[name] = {key: float(value) for key, value in WEIGHTS[section].items()}
    return weights

"""Prompts that are answered in shards, by several machines, and the responses as one data set."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from drsow_plugin.annotate.parts.content import ContentHash
from drsow_plugin.annotate.parts.part import Part
from drsow_plugin.annotate.parts.plan import Plan, Unit, plan_of
from drsow_plugin.annotate.parts.together import (
    FinishedPart,
    check_together,
    features_of,
    read_part,
    tables_of,
)
from drsow_plugin.annotate.place import REPORT, Place
from drsow_plugin.annotate.writing import write_rows
from drsow_plugin.generation.report import KIND, Counts, GenerationReport

KEPT_TOGETHER = 16  # prompts; shards end where such do, so that all find the same finished work
_HASHED_TOGETHER = 4096  # rows
_MAX_CUT, _SERVERS = "max_cut", "servers"


def plan_prompts(splits: Mapping[str, datasets.Dataset], part: Part) -> Plan:
    """Find out which prompts are in a shard: as many as in any other, or nearly so."""
    content = ContentHash()
    units: list[Unit] = []
    for name, data in splits.items():
        content.add(data.select([]).with_format("arrow")[:])  # its columns, without a row
        for begin in range(0, len(data), _HASHED_TOGETHER):
            rows = range(begin, min(begin + _HASHED_TOGETHER, len(data)))
            content.add(data.select(rows).with_format("arrow")[:])
        for begin in range(0, len(data), KEPT_TOGETHER):
            rows = range(begin, min(begin + KEPT_TOGETHER, len(data)))
            units.append(Unit(name, rows, len(rows)))
    return plan_of(units, splits, part, 0, content)


@dataclass(frozen=True)
class AnsweredPart(FinishedPart):
    """A shard of prompts that are answered.

    Attributes:
        report: The report on it.
    """

    report: GenerationReport

    @classmethod
    def load(cls, path: Path) -> AnsweredPart:
        """Read what is known of a shard.

        Raises:
            DataError: It is no shard, is not whole, or was changed since it was written.
        """
        Place.of(path).check_whole()
        report = GenerationReport.load(path)
        said = read_part(path, report.shard, "generate")
        same = {
            "policy": {name: value for name, value in report.policy.items() if name != _SERVERS},
            "sampling": report.sampling,
            "prompt_column": report.options.get("prompt_column"),
        }
        return cls(**said, same=same, report=report)


def are_answered(path: Path) -> bool:
    """Tell whether a finished output holds responses to prompts, and no labels."""
    try:
        said = json.loads(Place.of(path).at(REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(said, dict) and said.get("kind") == KIND


@dataclass(frozen=True)
class MergedResponses:
    """Shards as one data set, on disk, with the report that a single run would have written."""

    data: datasets.Dataset | datasets.DatasetDict
    report: GenerationReport


def merge_responses(paths: Sequence[Path], rows: Path) -> MergedResponses:
    """Merge shards of prompts that are answered.

    Args:
        paths: Their folders, in any order.
        rows: A folder for the rows.

    Raises:
        DataError: One is missing, there twice, not whole, or of other data, another policy or
            other sampling than the rest.
        StorageError: There is no room for the rows.
    """
    parts = check_together([AnsweredPart.load(path) for path in paths])
    made, counts = {}, {}
    for name in parts[0].all_rows:
        tables = (table for _, table in tables_of(parts, name, KEPT_TOGETHER))
        made[name] = write_rows(tables, features_of(parts, name), name, rows)
        counts[name] = sum((part.report.splits[name] for part in parts), Counts())
    data = datasets.DatasetDict(made) if len(made) > 1 else next(iter(made.values()))
    return MergedResponses(data, _report([part.report for part in parts], counts))


def _report(reports: Sequence[GenerationReport], counts: Mapping[str, Counts]) -> GenerationReport:
    """Return the report on all; servers, and the share that may be cut, may be each shard's own."""
    options, policy = dict(reports[0].options), dict(reports[0].policy)
    shares: list[Any] = [r.options[_MAX_CUT] for r in reports if _MAX_CUT in r.options]
    if shares:
        options[_MAX_CUT] = max(shares)
    if _SERVERS in policy:
        policy[_SERVERS] = list(dict.fromkeys(url for r in reports for url in r.policy[_SERVERS]))
    return GenerationReport(options, policy, reports[0].sampling, counts)

"""Shards of a data set as one, with the report that a single run would have written."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from drsow_plugin.annotate.columns import Status
from drsow_plugin.annotate.options import LabelConfig
from drsow_plugin.annotate.parts.record import LabelledPart, prompt_column
from drsow_plugin.annotate.parts.together import check_together, features_of, tables_of
from drsow_plugin.annotate.plots import draw
from drsow_plugin.annotate.report import Report
from drsow_plugin.annotate.summary import Summary, nothing_labelled, tell_left_out
from drsow_plugin.annotate.tables import with_class_names
from drsow_plugin.annotate.writing import write_rows
from drsow_plugin.errors import ConfigError, DataError

_KEEP = "keep_unusable"
_OPTION = "shard"


@dataclass(frozen=True)
class Merged:
    """Shards as one data set.

    Attributes:
        data: The rows, on disk: a ``Dataset``, or a ``DatasetDict`` of several splits.
        report: As a single run would have written it.
        parts: What they are made of.
    """

    data: datasets.Dataset | datasets.DatasetDict
    report: Report
    parts: Sequence[LabelledPart]


def merge_parts(paths: Sequence[Path], rows: Path, fingerprint: str | None = None) -> Merged:
    """Merge the shards of a data set.

    Args:
        paths: Their folders, in any order.
        rows: A folder for the labelled rows.
        fingerprint: That of the pair that they have to be labelled by; ``None`` for any.

    Raises:
        DataError: One is missing, there twice, not whole, or of other data or options than the
            rest; or no row of theirs could be labelled.
        ConfigError: They were labelled by another pair.
        StorageError: There is no room for the rows.
    """
    parts = check_together([LabelledPart.load(path) for path in paths])
    first = parts[0].report
    if fingerprint not in (None, first.fingerprint):
        raise ConfigError(
            f"The shards were labelled by another pair (fingerprint {first.fingerprint}) than "
            f"this one ({fingerprint}). Merge them with that one."
        )
    config = _config(first)
    keeps = bool(first.annotation[_KEEP])
    summaries = {name: Summary(parts[0].layout, config) for name in parts[0].all_rows}
    labelled = {
        name: write_rows(
            _tables(parts, name, summary, keeps=keeps), _features(parts, name, config), name, rows
        )
        for name, summary in summaries.items()
    }
    if not any(map(len, labelled.values())):
        raise DataError(nothing_labelled(summaries))
    if not keeps:
        tell_left_out(summaries)
    data = datasets.DatasetDict(labelled) if len(labelled) > 1 else next(iter(labelled.values()))
    return Merged(data, _report(parts, summaries), parts)


def _config(report: Report) -> LabelConfig:
    known = {field.name for field in fields(LabelConfig)}
    return LabelConfig(**{n: v for n, v in report.annotation.items() if n in known})


def _report(parts: Sequence[LabelledPart], summaries: Mapping[str, Summary]) -> Report:
    reports = [part.report for part in parts]
    first = reports[0]
    return replace(
        first,
        created=max(report.created or "" for report in reports) or None,
        options={n: value for n, value in first.options.items() if n != _OPTION},
        pair={**first.pair, "versions": _versions(reports)},
        splits={name: summary.statistics() for name, summary in summaries.items()},
        command=_without_shard(first.command),
        shard=None,
        draw=partial(draw, summaries),
    )


def _versions(reports: Sequence[Report]) -> dict[str, Any]:
    """Return the versions of packages; of one that was not the same everywhere, all of them."""
    found: dict[str, dict[str, None]] = {}
    for report in reports:
        for name, version in report.pair["versions"].items():
            found.setdefault(name, {})[version] = None
    return {
        name: next(iter(all_of)) if len(all_of) == 1 else ", ".join(map(str, all_of))
        for name, all_of in found.items()
    }


def _without_shard(command: str | None) -> str | None:
    """Return a command as it is for all rows."""
    words = shlex.split(command or "")
    kept = [
        word
        for before, word in zip(["", *words], words, strict=False)
        if before != f"--{_OPTION}" and word.partition("=")[0] != f"--{_OPTION}"
    ]
    return shlex.join(kept) if command else command


def _features(parts: Sequence[LabelledPart], split: str, config: LabelConfig) -> datasets.Features:
    """Return the types of the columns of a whole data set."""
    found = features_of(parts, split).items()
    return datasets.Features({name: kind for name, kind in found if name != prompt_column(config)})


def _tables(
    parts: Sequence[LabelledPart], split: str, summary: Summary, *, keeps: bool
) -> Iterator[pa.Table]:
    """Yield the rows as a single run writes them, and count them."""
    for part, table in tables_of(parts, split, int(parts[0].report.shard_rows or 0)):
        usable = _count(summary, part, table)
        rows = table.drop_columns([prompt_column(_config(part.report))])
        yield rows if keeps else rows.filter(pa.array(usable, pa.bool_()))


def _count(summary: Summary, part: LabelledPart, table: pa.Table) -> list[bool]:
    """Count rows; return which of them have what they were labelled for."""
    features = datasets.Features.from_arrow_schema(table.schema)
    prefix = str(part.report.annotation["prefix"])
    added = [
        name
        for name in part.report.columns
        if name.startswith(prefix) and not name.endswith("_token_logprobs")
    ]
    read = [name for name in part.layout.columns if name in table.column_names]
    values = table.select([*dict.fromkeys([*added, *read])]).to_pydict()
    labels = {name: values[name] for name in added}
    prompts = table.column(prompt_column(_config(part.report))).to_pylist()
    data = with_class_names({name: values[name] for name in read}, features)
    summary.add(data, labels, prompts)
    return [Status.parse(text).failure is None for text in values[f"{prefix}status"]]

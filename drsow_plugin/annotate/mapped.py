"""The report on rows that ``datasets.map`` labelled."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from drsow_plugin.annotate.items import read_rows
from drsow_plugin.annotate.kinds import make_labeller
from drsow_plugin.annotate.layout import PAIR, find_layout
from drsow_plugin.annotate.options import Kind, LabelConfig
from drsow_plugin.annotate.report import Report
from drsow_plugin.annotate.scorer import Scorer
from drsow_plugin.annotate.summary import Summary
from drsow_plugin.annotate.tables import splits_of, tables_of, with_class_names
from drsow_plugin.errors import DataError

_PAIR = ("prompt_column", "chosen_column", "rejected_column")


def report_on(scorer: Scorer, config: LabelConfig, data: Any) -> Report:
    """Return the report on labelled rows; see :meth:`drsow_plugin.Annotator.report_on`."""
    prefix = config.prefix
    summaries: dict[str, Summary] = {}
    for name, split in splits_of(data).items():
        columns = split.column_names
        marks: dict[str, Kind] = {"rewards": "candidates", "margin": "pairs", "reward": "single"}
        kind = next((k for mark, k in marks.items() if f"{prefix}{mark}" in columns), None)
        if kind is None:
            raise DataError(
                f"The rows have no columns that begin with {prefix!r}, as labelled rows have. "
                "Give what map(annotate, …) returned."
            )
        renamed: dict[str, Any] = {n: None for n in _PAIR if getattr(config, n) not in columns}
        in_place = replace(config, kind=kind, **renamed)
        layout = find_layout(columns, in_place, scorer.pair.routing)
        layout = replace(layout, prefixed=f"{prefix}{PAIR[0]}" in columns)
        summaries[name] = Summary(layout, in_place)
        for part in tables_of(split, 1000):
            values = with_class_names(part[:], part.features)
            labeller = make_labeller(layout, in_place, values)
            labels = {n: values[n] for n in labeller.schema() if n in values}
            rows = enumerate(read_rows(values, layout), summaries[name].rows)
            prompts = [item.prompt_key(number) for number, item in rows]
            summaries[name].add(values, labels, prompts)
    return Report.of(scorer, config, summaries, labeller, keep_unusable=True)

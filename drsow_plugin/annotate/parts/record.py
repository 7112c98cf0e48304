"""What the report on a shard that is labelled says of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from drsow_plugin.annotate.labeller import Labeller
from drsow_plugin.annotate.layout import Layout
from drsow_plugin.annotate.options import LabelConfig
from drsow_plugin.annotate.parts.part import Part
from drsow_plugin.annotate.parts.plan import Plan
from drsow_plugin.annotate.parts.together import FinishedPart, describe_part, read_part, unsaid
from drsow_plugin.annotate.place import Place
from drsow_plugin.annotate.report import Report
from drsow_plugin.errors import DataError

_SAME = ("kind", "fingerprint", "routing", "domains", "annotation", "columns", "shard_rows")
"""What the reports on the shards of one data set have in common, beside the data."""


@dataclass(frozen=True)
class LabelledPart(FinishedPart):
    """A shard that is labelled.

    Attributes:
        report: The report on it.
        layout: The columns that were read.
    """

    report: Report
    layout: Layout

    @property
    def data(self) -> tuple[object, ...]:
        """What says of which data it is a shard, and what was read of that."""
        return (*super().data, self.layout)

    @classmethod
    def load(cls, path: Path) -> LabelledPart:
        """Read what is known of a shard.

        Raises:
            DataError: It is no shard, is not whole, or was changed since it was written.
        """
        Place.of(path).check_whole()
        report = Report.load(path)
        said = read_part(path, report.shard, "annotate")
        try:
            layout = _layout((report.shard or {})["layout"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise unsaid(path, error) from error
        same = {name: getattr(report, name) for name in _SAME}
        return cls(**said, same=same, report=report, layout=layout)


def prompt_column(config: LabelConfig) -> str:
    """Return the name of the column that a shard has beside those of a whole data set."""
    return f"{config.prefix}prompt_key"


def check_columns(part: Part, labeller: Labeller, columns: Iterable[str]) -> None:
    """Check that a shard can hold what the summary goes by.

    Raises:
        DataError: A column that it reads is the prompt or a response, which labelling may rename
            or write anew, or the name of one that is added is taken.
    """
    layout, added = labeller.layout, prompt_column(labeller.config)
    if added in columns:
        raise DataError(
            f"shard={part}: the data has a column {added!r}, which shards are to have. Remove or "
            "rename it."
        )
    own = {layout.prompt, layout.input, *layout.responses}
    for name, column in (("group_column", layout.group), ("domain_column", layout.domain)):
        if column is not None and column in own:
            raise DataError(
                f"shard={part}: {name}={column} is the prompt or a response, which may be "
                "written otherwise. Add a copy of that column, and name it."
            )


def describe(plan: Plan, layout: Layout) -> dict[str, Any]:
    """Return what the report on a shard says of it."""
    return {
        **describe_part(plan),
        "tokens": plan.tokens[0],
        "all_tokens": plan.tokens[1],
        "counted_rows": plan.counted_rows,
        "layout": asdict(layout),
    }


def _layout(values: Mapping[str, Any]) -> Layout:
    known = {field.name for field in fields(Layout)}
    lists = {name: tuple(values[name]) for name in ("responses", "unread")}
    return Layout(**{**{n: v for n, v in values.items() if n in known}, **lists})

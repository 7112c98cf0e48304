"""What was done to a data set and what came out: for people, for the card, for a rerun."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property, partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import yaml

from drsow_plugin.annotate.options import OF_KINDS, LabelConfig
from drsow_plugin.annotate.outputs import open_output
from drsow_plugin.annotate.place import DRAWN, MANIFEST, OPTIONS, PAGE, PICTURES, REPORT, Place
from drsow_plugin.annotate.plots import draw
from drsow_plugin.annotate.statistics import Statistics
from drsow_plugin.config.options import given_options
from drsow_plugin.errors import DataError
from drsow_plugin.printable import printable
from drsow_plugin.records import SIDES
from drsow_plugin.redaction import without_tokens

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from drsow_plugin.annotate.labeller import Labeller
    from drsow_plugin.annotate.scorer import Scorer
    from drsow_plugin.annotate.summary import Summary

_UNKNOWN_INPUT = "of Python"
_FILES = {"draw", "page"}  # what is no value
Draw = Callable[[str], Mapping[str, bytes]]
"""Draws the PNG files by name, given the title above them."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """How a data set was labelled, and what came out.

    Attributes:
        kind: ``pairs``, ``candidates`` or ``single``.
        created: The day, as in ``2026-01-31``.
        fingerprint: Hash of all that decides a reward.
        options: The options in force, but for defaults.
        pair: The models and the policies, as :meth:`drsow_plugin.DrSoW.describe` gives them.
        routing: The router, where prompts were sent to domains.
        domains: The domains then.
        annotation: How the rows were labelled.
        columns: What the columns that were added mean, by name.
        splits: The statistics by name of the split.
        input: The data, and the command that labelled it, where that is known.
        command: See ``input``.
        shard_rows: Rows that were scored together, where :meth:`drsow_plugin.Annotator.run` did.
        shard: Which rows of the data these are, where they are a shard of it.
        draw: Draws the plots.
        page: The page on the rows and its pictures, by file name, where that was written.
    """

    kind: str
    created: str | None = None
    fingerprint: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    pair: Mapping[str, Any]
    routing: Mapping[str, Any] | None = None
    domains: Sequence[Mapping[str, Any]] | None = None
    annotation: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    splits: Mapping[str, Statistics] = field(default_factory=dict)
    input: str | None = None
    command: str | None = None
    shard_rows: int | None = None
    shard: Mapping[str, Any] | None = None
    draw: Draw = field(default=lambda title: {}, repr=False, compare=False)
    page: Mapping[str, bytes] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(
        cls,
        scorer: Scorer,
        config: LabelConfig,
        summaries: Mapping[str, Summary],
        labeller: Labeller,
        *,
        keep_unusable: bool,
        shard_rows: int | None = None,
        shard: Mapping[str, Any] | None = None,
    ) -> Report:
        """Return the report of a run, or of rows that ``map`` labelled.

        Args:
            scorer: What made the rewards.
            config: How the rows are labelled.
            summaries: What came out, by split.
            labeller: What labelled the rows of one of them.
            keep_unusable: Whether rows without a reward or a pair were kept.
            shard_rows: Rows that were scored together, if that is known.
            shard: Which rows of the data these are, where they are a shard of it.
        """
        kind = labeller.layout.kind
        annotation = {
            name: value
            for name, value in asdict(config).items()
            if value is not None and kind in OF_KINDS.get(name, (kind,))
        }
        pair = scorer.open().describe()
        routing = dict(pair.get("routing") or {})
        domains = routing.pop("domains", None)
        return cls(
            kind=kind,
            created=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
            fingerprint=scorer.fingerprint,
            options=scorer.options() | given_options(config),
            pair=pair,
            routing=routing or None,
            domains=domains,
            annotation={**annotation, "keep_unusable": keep_unusable},
            columns={n: c.meaning for n, c in labeller.schema().items() if n != "prompt"},
            splits={name: summary.statistics() for name, summary in summaries.items()},
            shard_rows=shard_rows,
            shard=shard,
            draw=partial(draw, summaries if shard is None else {}),  # of a part they say little
        )

    @classmethod
    def from_values(
        cls, values: Mapping[str, Any], pictures: Mapping[str, bytes] | None = None
    ) -> Report:
        """Return the report of :attr:`values` and plots; keys that are unknown are ignored.

        Raises:
            AttributeError, KeyError, TypeError: The values are of another form.
        """
        names = {f.name for f in fields(cls)} - _FILES
        arguments = {n: v for n, v in values.items() if n in names and v is not None}
        splits = {n: Statistics.from_values(split) for n, split in values["splits"].items()}
        return cls(**{**arguments, "splits": splits}, draw=lambda title: pictures or {})

    @property
    def keeps_unusable(self) -> bool:
        """Whether rows without a reward or a pair are among these; of a shard they always are."""
        return self.shard is not None or bool(self.annotation.get("keep_unusable", True))

    @property
    def values(self) -> dict[str, Any]:
        """All but the plots as plain values, as ``report.json`` has them."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _FILES}
        values["splits"] = {name: split.values() for name, split in self.splits.items()}
        optional = {"created", "fingerprint", "routing", "domains", "input", "shard_rows", "shard"}
        if self.input is None:
            optional.add("command")  # of a known input it is said that there was none
        return {n: value for n, value in values.items() if value is not None or n not in optional}

    @cached_property
    def pictures(self) -> Mapping[str, bytes]:
        """PNG files by name, drawn when first asked for.

        ``margins.png`` is there where there are pairs, ``lengths.png`` where there are rewards.
        """
        return self.draw(self.title)

    def json(self, **more: object) -> bytes:
        """Return the report as a file, without what is, or looks like, a token of the Hub.

        Args:
            **more: Values to add at the end.
        """
        text = json.dumps(_without_tokens(self.values | more), indent=2, ensure_ascii=False)
        return f"{text}\n".encode()

    def files(self) -> dict[str, bytes]:
        """Return the report, the options as YAML, the plots and the page, by file name.

        What is, or looks like, a token of the Hub is not in them.
        """
        options = _without_tokens(dict(self.options))
        text = yaml.safe_dump(options, sort_keys=False, allow_unicode=True)
        return {REPORT: self.json(), OPTIONS: text.encode(), **self.pictures, **self.page}

    def save(self, data: Dataset | DatasetDict, path: str | Path) -> Path:
        """Write the labelled rows and this report on disk, as ``drsow annotate`` does.

        What was written before by this is replaced; a call that was killed is completed by the
        same call. :func:`drsow_plugin.publish` takes what is there, :meth:`load` reads the
        report of it and ``datasets.load_dataset`` the rows.

        Args:
            data: What :meth:`drsow_plugin.Annotator.run` or ``map`` returned.
            path: A folder, or a ``.parquet`` or ``.jsonl`` file for a single split, with the
                report beside it.

        Returns:
            The folder or the file, as an absolute path.

        Raises:
            ConfigError: Something else is there, such as an output of the command line, or
                the rows do not fit into such a file. Nothing was written.
            DataError: The rows are no ``Dataset`` or ``DatasetDict``.
            StorageError: There is no room, or nothing can be written there.
        """
        output = open_output(path)
        output.check(data)
        prefix = str(self.options.get("prefix", "drsow_"))
        for split in data.values() if isinstance(data, Mapping) else (data,):
            if not any(name.startswith(prefix) for name in split.column_names):
                raise DataError(
                    f"The rows have no columns that begin with {prefix!r}, as labelled rows have. "
                    "Give what run() or map() returned."
                )
        with output.reserved(_UNKNOWN_INPUT) as folder:
            return Path(output.write(data, self, folder))

    @classmethod
    def load(cls, path: Path) -> Report:
        """Read the files of a report, as :meth:`files` gives them.

        Args:
            path: The folder that they are in, or the file of rows that they stand beside.

        Raises:
            DataError: They are not there, or cannot be read.
        """
        place = Place.of(path)
        pictures = {n: place.at(n).read_bytes() for n in PICTURES if place.at(n).is_file()}
        try:
            values = json.loads(place.at(REPORT).read_text(encoding="utf-8"))
            written = (values.get(MANIFEST) or {}).get("files") or {}
            named = [n for n in (PAGE, *DRAWN) if n in written]  # no page of other rows
            page = {n: place.at(n).read_bytes() for n in named}
            return replace(cls.from_values(values, pictures), page=page)
        except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
            raise DataError(
                f"There is no {place.at(REPORT)} that can be read ({error}). Give a folder or a "
                "file that 'drsow annotate' wrote."
            ) from error

    def __str__(self) -> str:
        """Return the statistics as text for a terminal."""
        lines: list[str] = []
        for name, split in self.splits.items():
            lines += [f"{name}:", *split.lines()]
            for kind, parts in (("domain", split.domains), ("group", split.groups)):
                for value, part in (parts or {}).items():
                    lines += [f"  {kind} {value}:", *(f"  {line}" for line in part.lines())]
        return "\n".join(map(printable, lines))

    @property
    def title(self) -> str:
        """What stands above the plots: the pair, and the data where it has a name.

        Of a path or a Hub id only the last component.
        """
        files = [PurePath(name).name for name in (self.input or "").split(", ")]
        data = files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
        return "\n".join(filter(None, (pair_title(self.pair), _short(data))))


def pair_title(pair: Mapping[str, Any]) -> str:
    """Return the names of both models; of a path or a Hub id only the last component."""
    sides = [pair[side] for side in SIDES]
    names = [PurePath(side["source"]).name for side in sides]
    if names[0] == names[1]:
        names = [f"{name} ({_apart(sides, at)})" for at, name in enumerate(names)]
    return " over ".join(map(_short, names))


def _without_tokens(values: dict[str, Any]) -> Any:
    from huggingface_hub import get_token

    return without_tokens(values, get_token())


def _apart(sides: Sequence[Mapping[str, Any]], at: int) -> str:
    """Return what sets one of two models of one name apart from the other."""
    keys = ("adapter", "template", "revision", "source", "dtype")
    key = next((key for key in keys if sides[0].get(key) != sides[1].get(key)), "source")
    value = sides[at].get(key)
    return f"{key} {PurePath(str(value)).name}" if value else f"no {key}"


def _short(name: str) -> str:
    return name if len(name) <= 60 else f"{name[:40]}…{name[-19:]}"

"""What was done to a data set and what came out: for people, for the card, for a rerun."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import yaml

from drsow_plugin.annotate.names import MANIFEST, OPTIONS, PICTURES, REPORT
from drsow_plugin.annotate.options import OF_KINDS, LabelConfig, label_options
from drsow_plugin.annotate.outputs import Place
from drsow_plugin.annotate.plots import Pictures
from drsow_plugin.errors import DataError
from drsow_plugin.printable import printable
from drsow_plugin.records import SIDES
from drsow_plugin.redaction import without_tokens

if TYPE_CHECKING:
    from drsow_plugin.annotate.labeller import Labeller
    from drsow_plugin.annotate.scorer import Scorer
    from drsow_plugin.annotate.summary import Summary


@dataclass(frozen=True)
class Report:
    """How a data set was labelled, and what came out.

    Attributes:
        values: All of it as plain values: ``kind``, ``created``, ``fingerprint``,
            ``options``, ``pair``, ``annotation``, ``columns``, ``splits`` and, from the
            command line, ``input`` and ``command``.
        pictures: PNG files by name.
    """

    values: dict[str, Any]
    pictures: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        scorer: Scorer,
        config: LabelConfig,
        summaries: Mapping[str, Summary],
        labeller: Labeller,
        *,
        keep_unusable: bool,
    ) -> Report:
        """Return the report of a run, or of rows that ``map`` labelled."""
        kind = labeller.layout.kind
        values = {
            "kind": kind,
            "created": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
            "fingerprint": scorer.fingerprint,
            "options": scorer.options() | label_options(config),
            "pair": scorer.open().describe(),
            **_routing(scorer),
            "annotation": {
                **{
                    name: value
                    for name, value in asdict(config).items()
                    if value is not None and kind in OF_KINDS.get(name, (kind,))
                },
                "keep_unusable": keep_unusable,
            },
            "columns": {n: c.meaning for n, c in labeller.schema().items() if n != "prompt"},
            "splits": {name: summary.describe() for name, summary in summaries.items()},
        }
        return cls(values, Pictures(summaries, title(values)))

    def with_values(self, **values: Any) -> Report:
        """Return the report with more values."""
        new = {**self.values, **values}
        if isinstance(self.pictures, Pictures):
            return replace(self, values=new, pictures=self.pictures.titled(title(new)))
        return replace(self, values=new)

    def files(self) -> dict[str, bytes]:
        """Return the report, the options as YAML, and the pictures, by file name.

        What is, or looks like, a token of the Hub is not in them.
        """
        from huggingface_hub import get_token

        values = without_tokens(self.values, get_token())
        text = json.dumps(values, indent=2, ensure_ascii=False)
        options = yaml.safe_dump(values.get("options", {}), sort_keys=False, allow_unicode=True)
        return {
            REPORT: f"{text}\n".encode(),
            OPTIONS: options.encode(),
            **self.pictures,
        }

    @classmethod
    def load(cls, path: Path) -> Report:
        """Read the files of a report, as :meth:`files` gives them.

        Args:
            path: The folder that they are in, or the file of rows that they stand beside.

        Raises:
            DataError: They are not there, or cannot be read.
        """
        place = Place.of(path)
        try:
            values = json.loads(place.at(REPORT).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(
                f"There is no {place.at(REPORT)} that can be read ({error}). Give a folder or a "
                "file that 'drsow annotate' wrote."
            ) from error
        values.pop(MANIFEST, None)
        found = {n: place.at(n).read_bytes() for n in PICTURES if place.at(n).is_file()}
        return cls(values, found)

    def __str__(self) -> str:
        """Return the figures as text for a terminal."""
        lines: list[str] = []
        for name, split in self.values["splits"].items():
            lines += [f"{name}:", *_lines(split)]
            for kind in ("domain", "group"):
                for group, figures in (split.get(f"{kind}s") or {}).items():
                    lines += [f"  {kind} {group}:", *(f"  {line}" for line in _lines(figures))]
        return "\n".join(map(printable, lines))


def title(values: Mapping[str, Any]) -> str:
    """Return what stands above the pictures: the pair, and the data where it has a name.

    Of a path or a Hub id only the last component.
    """
    sides = [values["pair"][side] for side in SIDES]
    names = [PurePath(side["source"]).name for side in sides]
    if names[0] == names[1]:
        names = [f"{name} ({_apart(sides, at)})" for at, name in enumerate(names)]
    files = [PurePath(name).name for name in (values.get("input") or "").split(", ")]
    data = files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
    return "\n".join(filter(None, (" over ".join(map(_short, names)), _short(data))))


def _apart(sides: Sequence[Mapping[str, Any]], at: int) -> str:
    """Return what sets one of two models of one name apart from the other."""
    keys = ("adapter", "template", "revision", "source", "dtype")
    key = next((key for key in keys if sides[0].get(key) != sides[1].get(key)), "source")
    value = sides[at].get(key)
    return f"{key} {PurePath(str(value)).name}" if value else f"no {key}"


def _short(name: str) -> str:
    return name if len(name) <= 60 else f"{name[:40]}…{name[-19:]}"


def _routing(scorer: Scorer) -> dict[str, Any]:
    """Return the router and the domains that were in force, if any."""
    routing = scorer.open().describe().get("routing")
    if routing is None:
        return {}
    domains = routing.pop("domains")
    return {"routing": routing, "domains": domains}


def _lines(figures: Mapping[str, Any]) -> list[str]:
    without = ", ".join(f"{number:,} {why}" for why, number in figures["dropped"].items())
    rows = [
        ("rows", f"{figures['rows']:,}, of which {figures['scored']:,} have a reward"),
        ("pairs", None if figures["pairs"] is None else f"{figures['pairs']:,}"),
        ("no reward or pair", without or None),
        ("swapped", f"{figures['swapped']:,}" if figures["swapped"] else None),
        ("accuracy", _share(figures["accuracy"], "against the labels that were there")),
        ("pick the longer", _share(figures["longer"], "against the same labels")),
        ("chosen is longer", _share(figures["chosen_longer"], "of the pairs")),
        ("margin", _quantiles(figures["margin_quantiles"])),
        ("reward and length", _correlation(figures["length_correlation"])),
        ("router agrees", _share(figures.get("agreement"), "with the domains that are named")),
    ]
    return [f"  {name:18}{value}" for name, value in rows if value is not None]


def _share(share: Mapping[str, Any] | None, of: str) -> str | None:
    if share is None:
        return None
    ties = f", {share['ties']:,} ties" if share["ties"] else ""
    spread = "" if share["stderr"] is None else f" +- {share['stderr']:.1%}"
    return f"{share['value']:.1%}{spread} {of} ({share['n']:,}{ties})"


def _quantiles(quantiles: Mapping[str, float] | None) -> str | None:
    if quantiles is None:
        return None
    return "  ".join(f"{float(q):.0%}: {value:.2f}" for q, value in quantiles.items()) + "  (nats)"


def _correlation(value: float | None) -> str | None:
    return None if value is None else f"correlation {value:+.2f}"

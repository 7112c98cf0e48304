"""The statistics of labelled rows: of a split, a group or a domain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from drsow_plugin.stats import Proportion


@dataclass(frozen=True)
class Statistics:
    """What came out for some rows; ``None`` where there is nothing to say.

    Attributes:
        rows: Number of rows.
        scored: Rows with a reward.
        pairs: Pairs that were made; ``None`` for data of single responses.
        dropped: Number of rows without a reward or a pair, by reason.
        swapped: Pairs whose chosen and rejected response changed places.
        accuracy: How often the response that the existing label prefers has the higher reward.
        longer: How often it is the longer one, on the same rows.
        chosen_longer: How often the chosen response of a pair is the longer one.
        margin_quantiles: Quantiles of the margin in nats, by their probability.
        length_correlation: Pearson's, of reward and length in tokens; for several responses to
            a prompt, of how they differ from their mean.
        groups: The same of each group; ``None`` without a column of groups.
        domains: The same of each domain; ``None`` without routing.
        agreement: How often the router chose the domain that the data names.
    """

    rows: int
    scored: int | None = None
    pairs: int | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)
    swapped: int | None = None
    accuracy: Proportion | None = None
    longer: Proportion | None = None
    chosen_longer: Proportion | None = None
    margin_quantiles: Mapping[str, float] | None = None
    length_correlation: float | None = None
    groups: Mapping[str, Statistics] | None = None
    domains: Mapping[str, Statistics] | None = None
    agreement: Proportion | None = None

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Statistics:
        """Return the statistics that :meth:`values` gave; keys that are unknown are ignored.

        Raises:
            TypeError: The values are of another form.
        """
        arguments = {f.name: values[f.name] for f in fields(cls) if values.get(f.name) is not None}
        for name in {"accuracy", "longer", "chosen_longer", "agreement"} & set(arguments):
            arguments[name] = Proportion(**arguments[name])
        for name in {"groups", "domains"} & set(arguments):
            parts = arguments[name].items()
            arguments[name] = {part: cls.from_values(inner) for part, inner in parts}
        return cls(**arguments)

    def values(self) -> dict[str, Any]:
        """Return plain values, as ``report.json`` has them."""
        return asdict(self, dict_factory=_plain)

    def lines(self) -> list[str]:
        """Return the statistics as lines for a terminal, without those of the parts."""
        dropped = ", ".join(f"{number:,} {why}" for why, number in self.dropped.items())
        quantiles = self.margin_quantiles
        margin = quantiles and "  ".join(f"{float(q):.0%}: {v:.2f}" for q, v in quantiles.items())
        correlation = self.length_correlation
        among = "" if self.pairs is None else ", among the responses to one prompt"
        rows = [
            ("rows", f"{self.rows:,}, of which {self.scored or 0:,} have a reward"),
            ("pairs", None if self.pairs is None else f"{self.pairs:,}"),
            ("no reward or pair", dropped),
            ("swapped", self.swapped and f"{self.swapped:,}"),
            ("accuracy", _percent(self.accuracy, "against the labels that were there")),
            ("pick the longer", _percent(self.longer, "against the same labels")),
            ("chosen is longer", _percent(self.chosen_longer, "of the pairs")),
            ("margin", margin and f"{margin}  (nats)"),
            (
                "reward and length",
                None if correlation is None else f"correlation {correlation:+.2f}{among}",
            ),
            ("router agrees", _percent(self.agreement, "with the domains that are named")),
        ]
        return [f"  {name:18}{value}" for name, value in rows if value]


def _plain(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """Leave out the parts that the rows are not divided into."""
    values = dict(items)
    if values.get("groups") is None:
        values.pop("groups", None)
    if values.get("domains") is None:
        values.pop("domains", None)
        values.pop("agreement", None)
    return values


def _percent(share: Proportion | None, of: str) -> str | None:
    if share is None:
        return None
    ties = f", {share.ties:,} ties" if share.ties else ""
    known = share.low is not None and share.high is not None
    spread = f" (95% interval {share.low:.1%} to {share.high:.1%})" if known else ""
    return f"{share.value:.1%}{spread} {of} ({share.n:,}{ties})"

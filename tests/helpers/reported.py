"""Labelled rows for pages: some that are ordinary, and some that would break a careless page."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets

from drsow_plugin import DrSoW
from drsow_plugin.engines.fake import FakeEngine
from drsow_plugin.quality.labelled import LabelledData
from drsow_plugin.records import TokenPair
from drsow_plugin.report.material import Material
from drsow_plugin.report.options import PageConfig
from drsow_plugin.report.write import material_of, write_page
from helpers import tiny
from helpers.labelled import pair

HOSTILE = (
    "<script>window.broken = 1</script>",
    "</script><script>window.broken = 2</script>",
    "<!--<script>",
    '"><img src=x onerror="window.broken = 3"><a href="javascript:window.broken = 4">',
    "{{ 7 * 7 }} ${7 * 7} &lt;b&gt; \u2028 \u202e \x07 \\u003c",
)


def rows(count: int, seed: int = 0, **columns: Sequence[Any]) -> list[dict[str, Any]]:
    """Return labelled pairs with texts, groups and domains."""
    chance = random.Random(seed)
    made = []
    for number in range(count):
        margin = round(chance.gauss(1, 4), 3)
        more = chance.randrange(-40, 40)
        row = pair((margin, 100 + more), (0.0, 100))
        row["drsow_domain"] = ("maths", "law", None)[number % 3]
        row["part"] = f"part {number % 4}"
        made.append(row | {name: values[number] for name, values in columns.items()})
    return made


def hostile_rows() -> list[dict[str, Any]]:
    """Return rows whose every text is one that a careless page would run."""
    made = rows(len(HOSTILE))
    for row, text in zip(made, HOSTILE, strict=True):
        row |= {"prompt": text, "chosen": f"yes {text}", "rejected": f"no {text}"}
        row |= {"part": text, "drsow_domain": text, "drsow_notes": text}
    return made


def material(listed: list[dict[str, Any]], config: PageConfig | None = None) -> Material:
    """Return labelled rows as what a page is made of, with ``part`` as their group."""
    from drsow_plugin.annotate.options import LabelConfig

    data = datasets.Dataset.from_list(listed)
    group = "part" if "part" in data.column_names else None
    opened = LabelledData.of(data, LabelConfig(group_column=group), name="rows <of> a test")
    return material_of(opened, config or PageConfig())


def saved(path: Path, listed: list[dict[str, Any]], **options: Any) -> Path:
    """Write the page of labelled rows."""
    config = PageConfig(**{n: v for n, v in options.items() if n != "drsow"})
    page = write_page(material(listed, config), config, options.get("drsow"))
    path.write_text(page.html, encoding="utf-8")
    return path


def pair_of_tokenizers(strong: str = "gpt2", weak: str = "sentencepiece") -> DrSoW:
    """Return a pair whose log-probs follow from the token ids, with two tokenizers."""

    def logprobs(factor: float) -> FakeEngine:
        return FakeEngine(
            logprobs=lambda row: _of_ids(row, factor),
            identity=f"by id, {factor}",
        )

    return DrSoW(
        logprobs(0.011),
        logprobs(0.017),
        strong_tokenizer=tiny.tokenizer(strong),
        weak_tokenizer=tiny.tokenizer(weak),
    )


def _of_ids(row: TokenPair, factor: float) -> list[float]:
    return [-0.1 - factor * (token % 97) for token in row.response_ids]

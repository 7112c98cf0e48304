"""How labelled rows are read, compared and held to bounds, as frozen and checked configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from drsow_plugin.annotate.options import LABEL_OPTIONS, LabelConfig
from drsow_plugin.config.options import options_of, parse_options
from drsow_plugin.config.parse import parse_probability, parse_whole
from drsow_plugin.errors import ConfigError, unknown_name
from drsow_plugin.option import Values, documented, option
from drsow_plugin.quality import READ_OPTIONS

NOISE: Mapping[str, float] = {
    "bfloat16": 1.0,
    "float16": 0.15,
    "float32": 1.2e-4,
    "float64": 0.0,
}
"""Error of a margin by the dtype of the models, nats, r.m.s.: as measured over 60 pairs of LLMBar
with the demo pair, against float64 (``benchmarks/README.md``, Precision)."""

_SHARE = Values(parse_probability, "0 to 1", "float")


@documented
@dataclass(frozen=True)
class RowsConfig:
    """How labelled rows are read, and how sure their figures are."""

    gold_column: str | None = option(
        None,
        "Column that says which labels are to be trusted: those of rows where it is true.",
        "Neither empty, nor 0, nor `false` or `no`.",
        unset="all rows whose better response the data names",
    )
    max_rows: int | None = option(
        None,
        "Rows that are read, drawn at random where there are more.",
        unset="20000; of drsow compare 1000000, of drsow check all",
    )
    resamples: int = option(1000, "Resamples of each interval: draws of prompts.")
    folds: int = option(
        5, "Parts of the prompts: what is fitted is tried on parts that it was not fitted on."
    )
    seed: int = option(
        0,
        "Changes the sample, the resamples and the parts.",
        values=Values(parse_whole, "whole number", "int"),
    )


@documented
@dataclass(frozen=True)
class CompareConfig:
    """How two runs are held against each other."""

    length_control: bool = option(
        False,
        "Whether the length-controlled rewards are compared.",
        "In both runs length is counted in characters; see [quality.md](quality.md#length).",
    )
    min_shared: float = option(
        0.5,
        "Share of the smaller run's rows that the other one has to have; with fewer it stops.",
        values=_SHARE,
    )


@documented
@dataclass(frozen=True)
class Thresholds:
    """What labelled rows are held to before training."""

    max_missing: float = option(0.05, "Share of the rows that may have no reward.", values=_SHARE)
    max_ties: float = option(
        0.05, "Share of the pairs whose two rewards may be the same.", values=_SHARE
    )
    max_contested: float = option(
        0.25,
        "Share of the pairs whose margin may be within the noise of the dtype.",
        values=_SHARE,
    )
    noise: float | None = option(
        None,
        "That noise, in nats.",
        "Margins of rows that `refine=` scored again have that of float32.",
        unset="by dtype: bfloat16 1, float16 0.15, float32 0.00012, as measured on the demo pair",
    )
    max_length_correlation: float = option(
        0.7,
        "How far reward and length may correlate among the responses to one prompt, up or down.",
        "Of single responses: over all of them.",
        values=_SHARE,
    )
    min_accuracy: float | None = option(
        None,
        "How often the better response has to have the higher reward, where that is known.",
        unset="0.5, where it is known",
        values=_SHARE,
    )
    max_duplicates: float = option(
        0.0,
        "Share of a split's rows that may be in an earlier split too, with the same responses.",
        values=_SHARE,
    )
    max_shared_prompts: float = option(
        1.0,
        "Share of a split's rows whose prompt may be in an earlier split.",
        values=_SHARE,
    )


ROWS_OPTIONS = options_of(RowsConfig)
COMPARE_OPTIONS = options_of(CompareConfig)
CHECK_OPTIONS = options_of(Thresholds)
READ = {name: LABEL_OPTIONS[name] for name in READ_OPTIONS}
"""Options of labelling that say where things are in labelled rows."""


@dataclass(frozen=True)
class QualityConfig:
    """All that a command was asked for.

    Attributes:
        columns: Where things are, where that is not as labelling writes it.
        rows: How the rows are read.
        compare: How runs are compared.
        bounds: What rows are held to.
        given: The names of the options that were given.
    """

    columns: LabelConfig
    rows: RowsConfig
    compare: CompareConfig
    bounds: Thresholds
    given: frozenset[str] = frozenset()


def parse_quality(options: Mapping[str, Any]) -> QualityConfig:
    """Return checked options of what looks at labelled rows.

    Raises:
        ConfigError: A name is unknown or a value invalid.
    """
    valid = {*READ, *ROWS_OPTIONS, *COMPARE_OPTIONS, *CHECK_OPTIONS}
    for name in options:
        if name not in valid:
            raise ConfigError(unknown_name("option", name, valid))
    given = {name: value for name, value in options.items() if value is not None}
    columns = {name: value for name, value in given.items() if name in READ}
    rows = RowsConfig(**parse_options(RowsConfig, given))
    if rows.folds < 2 or rows.resamples < 100:
        raise ConfigError(
            f"folds is at least 2 and resamples at least 100, got {rows.folds} and "
            f"{rows.resamples}."
        )
    return QualityConfig(
        columns=LabelConfig(**parse_options(LabelConfig, columns)),
        rows=rows,
        compare=CompareConfig(**parse_options(CompareConfig, given)),
        bounds=Thresholds(**parse_options(Thresholds, given)),
        given=frozenset(given),
    )

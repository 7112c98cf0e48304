"""What a page shows, as frozen and checked configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from drsow_plugin.config.options import options_of, parse_options
from drsow_plugin.config.parse import parse_whole
from drsow_plugin.errors import ConfigError, unknown_name
from drsow_plugin.option import Values, documented, option
from drsow_plugin.quality import MAX_ROWS

Rule = Literal["mixed", "contested", "right", "wrong", "random", "first"]


@documented
@dataclass(frozen=True)
class PageConfig:
    """What a page shows."""

    rows: int = option(2000, "Rows with their texts, at most.")
    rule: Rule = option(
        "mixed",
        "Which rows these are, where there are more: those with the rewards nearest to each other "
        "(`contested`), the largest margins that are `right` or `wrong`, `random` ones, the "
        "`first`, or as many of each but the last (`mixed`).",
    )
    seed: int = option(
        0,
        "Of what is chosen at random.",
        values=Values(parse_whole, "whole number", "int"),
    )
    sample: int = option(
        MAX_ROWS, "Rows that figures and pictures are taken of, at most; chosen at random."
    )
    tokens: bool = option(
        False,
        "Whether the log-prob of each token is computed for the rows that are shown, which takes "
        "the models.",
        "They are those that the rows were labelled with, unless others are given.",
    )


PAGE_OPTIONS = options_of(PageConfig)


def parse_page(options: Mapping[str, Any]) -> PageConfig:
    """Return what a page shows, checked.

    Raises:
        ConfigError: A name is unknown or a value invalid.
    """
    for name in options:
        if name not in PAGE_OPTIONS:
            raise ConfigError(unknown_name("option", name, PAGE_OPTIONS))
    return PageConfig(**parse_options(PageConfig, options))

"""How rows are read and labelled, as frozen and checked configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from drsow_plugin.config.options import given_options, options_of, parse_options
from drsow_plugin.config.pair import OPTIONS, PairConfig, parse_pair
from drsow_plugin.config.parse import parse_number, parse_temperature
from drsow_plugin.errors import ConfigError, unknown_name
from drsow_plugin.option import Values, documented, option
from drsow_plugin.records import OnError

Kind = Literal["pairs", "candidates", "single"]
Select = Literal["best_vs_random", "best_vs_worst", "best_vs_median"]
Relabel = Literal["keep", "swap"]

PREFIX = "drsow_"


def _whole(name: str, value: object) -> int:
    try:
        return int(str(value))
    except ValueError as error:
        raise ConfigError(f"{name} is a whole number, got {value!r}.") from error


_CANDIDATES, _PAIRS, _PREFERENCES = ("candidates",), ("pairs",), ("pairs", "candidates")


@documented
@dataclass(frozen=True)
class LabelConfig:
    """How rows are read and labelled. Nothing here changes a reward."""

    kind: Kind | None = option(
        None, "What the data is: `pairs`, `candidates` or `single`.", unset="seen from the columns"
    )
    prompt_column: str | None = option(
        None, "Where the prompt is.", unset="prompt or instruction; for pairs it may be missing"
    )
    chosen_column: str | None = option(
        None, "Where the chosen response of a pair is.", unset="chosen", kinds=_PAIRS
    )
    rejected_column: str | None = option(
        None, "Where the rejected response of a pair is.", unset="rejected", kinds=_PAIRS
    )
    responses_column: str | None = option(
        None,
        "A list of candidates.",
        unset="responses, completions or generations",
        kinds=_CANDIDATES,
    )
    response_column: str | None = option(
        None,
        "A single response, or a conversation that ends with it.",
        unset="response, completion, output, messages or conversations",
        kinds=("single",),
    )
    label_column: str | None = option(
        None,
        "Which of a pair's two responses is the better one, by its column's name or its last "
        "letter or number.",
        "The two columns are named by `chosen_column` and `rejected_column`, or are `response_a` "
        "and `response_b`, and the like.",
        unset="label, winner or preference, beside response_a and response_b",
        kinds=_PAIRS,
    )
    ratings_column: str | None = option(
        None,
        "Numbers for the candidates, to compare the rewards with.",
        unset="ratings",
        kinds=_CANDIDATES,
    )
    group_column: str | None = option(
        None, "The summary is also given for each value of this column."
    )
    select: Select = option(
        "best_vs_random",
        "How candidates make a pair: what is rejected is a random other one (`best_vs_random`), "
        "the worst (`best_vs_worst`) or the median (`best_vs_median`).",
        "What is chosen has the highest reward. Random is as in the paper's code. Identical texts "
        "and ties are never paired.",
        kinds=_CANDIDATES,
    )
    min_margin: float = option(
        0.0,
        "Minimum margin of a pair, in nats; others are left out.",
        "With 0 every pair of the data stays, whatever its margin.",
        kinds=_PREFERENCES,
    )
    seed: int = option(
        0,
        "Changes the random choice of `best_vs_random`.",
        "The choice depends on it and on the row's content alone.",
        values=Values(_whole, "whole number", "int"),
        kinds=_CANDIDATES,
    )
    relabel: Relabel = option(
        "keep",
        "Order of chosen and rejected: `keep`, or `swap` where the margin is negative.",
        "`drsow_swapped` says where. Columns beside them, such as `chosen_model`, are not "
        "exchanged.",
        kinds=_PAIRS,
    )
    messages: bool | None = option(
        None,
        "Whether prompt, chosen and rejected are written as messages.",
        "TRL applies the chat template to those.",
        unset="true for candidates and where a pair's columns are of two shapes",
        kinds=_PREFERENCES,
    )
    margin_temperature: float | None = option(
        None,
        "Temperature of margins, in nats: adds `drsow_probability`, how likely the chosen response "
        "is the better one.",
        "`drsow quality` fits it; see [quality.md](quality.md#calibration).",
        unset="no such column",
        values=Values(parse_temperature, "nats, more than 0", "float"),
        kinds=_PREFERENCES,
    )
    length_slope: float | None = option(
        None,
        "Nats a token: adds rewards, and a margin, without what goes along with length.",
        "They are `reward - length_slope * tokens`, and nothing is chosen by them. `drsow quality` "
        "fits it; see [quality.md](quality.md#length).",
        unset="no such columns",
        values=Values(parse_number, "number", "float"),
    )
    token_logprobs: bool = option(False, "Whether the log-prob of each token is written too.")
    on_error: OnError = option(
        "null",
        "`null` gives rows that cannot be scored no reward and a status; `raise` stops at the "
        "first.",
    )
    prefix: str = option(
        PREFIX,
        "What the names of added columns begin with.",
        "Another one lets a second pair of models label beside a first.",
    )
    keep_names: bool = option(
        False,
        "Whether the columns of a pair keep their names; else they become prompt, chosen and "
        "rejected.",
        kinds=_PAIRS,
    )


LABEL_OPTIONS = options_of(LabelConfig)
OF_KINDS = {name: o.kinds for name, o in LABEL_OPTIONS.items() if o.kinds}
"""Options that say something about some kinds of data only."""

KIND_WORDS: Mapping[str, str] = {
    "pairs": "pairs",
    "candidates": "candidates",
    "single": "single responses",
}


def parse_labelling(options: Mapping[str, Any]) -> tuple[PairConfig, LabelConfig]:
    """Turn the options of an annotator into checked configurations, of the pair and of the labels.

    Raises:
        ConfigError: A name is unknown or a value invalid.
    """
    for name in options:
        if name not in OPTIONS and name not in LABEL_OPTIONS:
            raise ConfigError(unknown_name("option", name, {*OPTIONS, *LABEL_OPTIONS}))
    values = {name: value for name, value in options.items() if value is not None}
    labels = LabelConfig(**parse_options(LabelConfig, values))
    return parse_pair({name: v for name, v in options.items() if name in OPTIONS}), labels


def check_kind(config: LabelConfig, kind: Kind) -> None:
    """Check that no option was given that says nothing about this kind of data.

    Raises:
        ConfigError: One was.
    """
    for name, value in given_options(config).items():
        kinds = OF_KINDS.get(name, (kind,))
        if kind not in kinds:
            raise ConfigError(
                f"{name}={value} has no effect on {KIND_WORDS[kind]}, only on "
                f"{' and '.join(KIND_WORDS[k] for k in kinds)}. Leave it out."
            )

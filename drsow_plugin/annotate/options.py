"""How rows are read and labelled, as frozen and checked configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, cast, get_args

from drsow_plugin.config.pair import OPTIONS, PairOptions
from drsow_plugin.config.parse import parse_choice, parse_flag
from drsow_plugin.errors import ConfigError, unknown_name
from drsow_plugin.scoring.rows import OnError

Kind = Literal["pairs", "candidates", "single"]
Select = Literal["best_vs_random", "best_vs_worst", "best_vs_median"]
Relabel = Literal["keep", "swap"]

PREFIX = "drsow_"

OF_KINDS: Mapping[str, tuple[Kind, ...]] = {
    "chosen_column": ("pairs",),
    "rejected_column": ("pairs",),
    "label_column": ("pairs",),
    "responses_column": ("candidates",),
    "response_column": ("single",),
    "ratings_column": ("candidates",),
    "select": ("candidates",),
    "seed": ("candidates",),
    "min_margin": ("pairs", "candidates"),
    "relabel": ("pairs",),
    "messages": ("pairs", "candidates"),
    "keep_names": ("pairs",),
}
"""Options that say something about some kinds of data only."""


@dataclass(frozen=True)
class LabelConfig:
    """How rows are read and labelled. Nothing here changes a reward.

    Attributes:
        kind: ``pairs``, ``candidates`` or ``single``; ``None`` finds it from the columns.
        prompt_column: Where the prompt is; ``None`` looks for ``prompt``, ``instruction``.
        chosen_column: Where the chosen response of a pair is.
        rejected_column: Where the rejected response of a pair is.
        responses_column: Where a list of candidates is; ``None`` looks for ``responses``,
            ``completions``, ``generations``.
        response_column: Where a single response is; ``None`` looks for ``response``,
            ``completion``, ``output``, and for whole conversations, whose last turn is the
            response, ``messages``, ``conversations``, ``conversation``.
        label_column: For pairs: says which of the two is the better one; the columns are then
            named by ``chosen_column`` and ``rejected_column``, or are ``response_a`` and
            ``response_b``, and the like. A number means the column that ends in it.
        ratings_column: Numbers for the candidates, to compare the rewards with.
        group_column: The summary is also given for each value of this column.
        select: How a pair is made of candidates. The chosen one has the highest reward; the
            rejected one is a random other (as in the paper's code), the worst, or the median
            of those that may be rejected.
        min_margin: Least margin of a pair, in nats; pairs below it are left out.
        seed: Changes the random choice, which depends on it and on the row's content alone.
        relabel: For pairs: ``keep`` leaves the order as it is; ``swap`` exchanges chosen and
            rejected where the margin is negative.
        messages: Whether prompt, chosen and rejected are written as messages, to which TRL
            applies the chat template. ``None`` does so for candidates and where a pair's
            columns are of two shapes.
        token_logprobs: Whether the log-probs of each token are written too.
        on_error: ``null`` gives rows that cannot be scored no reward and a reason; ``raise``
            stops at the first.
        prefix: What the names of added columns begin with. One that is given is put before the
            pair made of candidates too where the data has a pair already.
        keep_names: For pairs: whether columns of other names keep them. By default they come
            out as ``prompt``, ``chosen`` and ``rejected``, as TRL's trainers take them.
    """

    kind: Kind | None = None
    prompt_column: str | None = None
    chosen_column: str | None = None
    rejected_column: str | None = None
    responses_column: str | None = None
    response_column: str | None = None
    label_column: str | None = None
    ratings_column: str | None = None
    group_column: str | None = None
    select: Select = "best_vs_random"
    min_margin: float = 0.0
    seed: int = 0
    relabel: Relabel = "keep"
    messages: bool | None = None
    token_logprobs: bool = False
    on_error: OnError = "null"
    prefix: str = PREFIX
    keep_names: bool = False


class AnnotatorOptions(PairOptions, total=False):
    """The options of :class:`~drsow_plugin.Annotator`: those of the pair and of the labels."""

    kind: Kind | None
    prompt_column: str | None
    chosen_column: str | None
    rejected_column: str | None
    responses_column: str | None
    response_column: str | None
    label_column: str | None
    ratings_column: str | None
    group_column: str | None
    select: Select
    min_margin: float
    seed: int
    relabel: Relabel
    messages: bool | None
    token_logprobs: bool
    on_error: OnError
    prefix: str
    keep_names: bool


LABEL_OPTIONS = tuple(entry.name for entry in fields(LabelConfig))
_WORDS: Mapping[Kind, str] = {
    "pairs": "pairs",
    "candidates": "candidates",
    "single": "single responses",
}
_CHOICES = {
    "kind": get_args(Kind),
    "select": get_args(Select),
    "relabel": get_args(Relabel),
    "on_error": get_args(OnError),
}


def split_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], LabelConfig]:
    """Part the options of an annotator into those of the pair and the checked rest.

    Raises:
        ConfigError: A name is unknown or a value invalid.
    """
    for name in options:
        if name not in OPTIONS and name not in LABEL_OPTIONS:
            raise ConfigError(unknown_name("option", name, {*OPTIONS, *LABEL_OPTIONS}))
    given = {
        name: _parsed(name, options[name])
        for name in LABEL_OPTIONS
        if options.get(name) is not None
    }
    pair = {name: value for name, value in options.items() if name in OPTIONS}
    return pair, LabelConfig(**cast(Any, given))


def label_options(config: LabelConfig) -> dict[str, Any]:
    """Return the options that make this configuration; no defaults."""
    return {
        entry.name: getattr(config, entry.name)
        for entry in fields(LabelConfig)
        if getattr(config, entry.name) != entry.default
    }


def check_kind(config: LabelConfig, kind: Kind) -> None:
    """Check that no option was given that says nothing about this kind of data.

    Raises:
        ConfigError: One was.
    """
    for name, value in label_options(config).items():
        kinds = OF_KINDS.get(name, (kind,))
        if kind not in kinds:
            raise ConfigError(
                f"{name}={value} has no effect on {_WORDS[kind]}, only on "
                f"{' and '.join(_WORDS[k] for k in kinds)}. Leave it out."
            )


def _parsed(name: str, value: object) -> object:
    if name in _CHOICES:
        return parse_choice(name, value, _CHOICES[name])
    if name in ("messages", "token_logprobs", "keep_names"):
        return parse_flag(name, value)
    if name in ("min_margin", "seed"):
        return _number(name, value)
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{name} is a text, got {value!r}.")
    return value


def _number(name: str, value: object) -> float | int:
    try:
        number = int(str(value)) if name == "seed" else float(str(value))
    except ValueError:
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number) or (name != "seed" and number < 0):
        kind = "a whole number" if name == "seed" else "a number of at least 0"
        raise ConfigError(f"{name} is {kind}, got {value!r}.")
    return number

"""Which columns of a data set hold the prompt and the responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from drsow_plugin.annotate.options import PREFIX, Kind, LabelConfig, check_kind
from drsow_plugin.config.options import given_options
from drsow_plugin.config.routing import COLUMN, RoutingConfig
from drsow_plugin.errors import DataError, unknown_name

PROMPT = ("prompt", "instruction")  # the latter in UltraFeedback and distilabel
RESPONSES = ("responses", "completions", "generations")
RESPONSE = ("response", "completion", "output")  # the last in Alpaca
CONVERSATION = ("messages", "conversations", "conversation")  # the second in ShareGPT
INPUT = "input"  # what an Alpaca instruction is about
RATINGS = ("ratings",)
LABEL = ("label", "winner", "preference", "better_response_id", "preferred")
LABELLED = tuple(
    (f"{word}{mark}{first}", f"{word}{mark}{second}")
    for word in ("response", "completion", "answer", "output", "conversation")
    for mark in ("_", "")
    for first, second in ("ab", "AB", "01", "12")
)
UNREAD = ("image", "images", "video", "videos", "audio", "audios")
PAIR = ("chosen", "rejected", "chosen_score", "rejected_score")
"""What is written of a pair made of candidates, beside the prompt."""

_OFF = RoutingConfig()

_SHAPES = (
    "pairs (chosen, rejected, and prompt unless it is their common beginning), candidates "
    f"(prompt and a list: {', '.join(RESPONSES)}), single responses (prompt and "
    f"{' or '.join(RESPONSE)}) or conversations ({', '.join(CONVERSATION)})"
)


@dataclass(frozen=True)
class Layout:
    """The columns of a data set that are read.

    Attributes:
        kind: ``pairs``, ``candidates`` or ``single``.
        prompt: Column of the prompt; ``None`` where it is the common beginning of a pair, or
            the earlier turns of the conversation that a single response ends.
        responses: Columns of the responses: chosen and rejected, or a single one.
        input: Column of what the prompt is about, or ``None``.
        label: Column that says which of the two responses is chosen, or ``None``.
        ratings: Column of numbers for the candidates, or ``None``.
        group: Column whose values part the summary, or ``None``.
        domain: Column that names the domain of each prompt, or ``None``.
        routed: Whether prompts are sent to domains, so that those are written.
        compared: Whether the router is compared with that column.
        unread: Columns of images and the like, which no model is shown.
        prefixed: Whether the pair made of candidates gets the prefix too, because the data
            has columns of these names.
    """

    kind: Kind
    prompt: str | None
    responses: tuple[str, ...]
    input: str | None = None
    label: str | None = None
    ratings: str | None = None
    group: str | None = None
    domain: str | None = None
    routed: bool = False
    compared: bool = False
    unread: tuple[str, ...] = ()
    prefixed: bool = False

    @property
    def columns(self) -> list[str]:
        """Every column that is read."""
        names = [self.prompt, *self.responses, self.input, self.label, self.ratings]
        return list(dict.fromkeys(filter(None, [*names, self.group, self.domain])))


def find_layout(
    columns: Sequence[str], config: LabelConfig, routing: RoutingConfig = _OFF
) -> Layout:
    """Find out what a data set holds.

    Args:
        columns: The names of its columns.
        config: The names and the kind, where the user gave them.
        routing: Whether and how prompts are sent to domains.

    Raises:
        DataError: A column that was named is not there, or the columns are of no known
            kind, or of more than one.
    """
    for option, name in given_options(config).items():
        if option.endswith("_column") and name not in columns:
            raise DataError(f"{option}: {unknown_name('column', name, columns)}")
    readings = _readings(columns, config)
    kind = _kind(readings, config, columns)
    check_kind(config, kind)
    responses = readings[kind]
    prompt = _prompt(columns, config, kind, responses)
    ratings = config.ratings_column or _first(RATINGS, columns)
    with_input = prompt == PROMPT[1] and config.prompt_column is None and INPUT in columns
    return Layout(
        kind=kind,
        prompt=prompt,
        responses=responses,
        input=INPUT if with_input else None,
        label=_label(columns, config, responses) if kind == "pairs" else None,
        ratings=ratings if kind == "candidates" else None,
        group=config.group_column,
        domain=_domain(columns, routing),
        routed=routing.is_on,
        compared=routing.domain_column is not None and routing.router != COLUMN,
        unread=tuple(name for name in UNREAD if name in columns),
        prefixed=kind == "candidates" and config.prefix != PREFIX and bool({*PAIR} & {*columns}),
    )


def _readings(columns: Sequence[str], config: LabelConfig) -> dict[Kind, tuple[str, ...]]:
    """Return the kinds that the columns may be of, each with its columns of responses."""
    readings: dict[Kind, tuple[str, ...]] = {}
    pair = (config.chosen_column or "chosen", config.rejected_column or "rejected")
    candidates = config.responses_column or _first(RESPONSES, columns)
    single = config.response_column or _first((*RESPONSE, *CONVERSATION), columns)
    labelled = next((two for two in LABELLED if set(two) <= set(columns)), None)
    label = config.label_column or _first(LABEL, columns)
    if set(pair) <= set(columns):
        readings["pairs"] = pair
    elif labelled and label and not (config.chosen_column or config.rejected_column):
        readings["pairs"] = labelled
    if candidates:
        readings["candidates"] = (candidates,)
    if single:
        readings["single"] = (single,)
    return readings


def _label(columns: Sequence[str], config: LabelConfig, pair: tuple[str, ...]) -> str | None:
    """Return the column that says which of two responses is the better one."""
    return config.label_column or (_first(LABEL, columns) if pair in LABELLED else None)


def _prompt(
    columns: Sequence[str], config: LabelConfig, kind: Kind, responses: tuple[str, ...]
) -> str | None:
    prompt = config.prompt_column or _first(PROMPT, columns)
    if kind == "single" and responses[0] in CONVERSATION:
        return config.prompt_column  # what stands beside it is in it
    if prompt is None and kind != "pairs" and (kind != "single" or config.response_column is None):
        raise DataError(
            f"There is no column with the prompt; the columns are {_listed(columns)}. "
            "Name it with prompt_column=…."
        )
    return prompt


def _domain(columns: Sequence[str], routing: RoutingConfig) -> str | None:
    """Return the column with the domains that the data names, if it is read."""
    name = routing.known_column
    if name is not None and name not in columns:
        raise DataError(
            f"domain_column: {unknown_name('column', name, columns)} It is to say the domain of "
            "each prompt."
        )
    return name


def _kind(
    readings: Mapping[Kind, tuple[str, ...]], config: LabelConfig, columns: Sequence[str]
) -> Kind:
    """Choose among the kinds that the columns may be of."""
    options = {
        "pairs": config.chosen_column or config.rejected_column or config.label_column,
        "candidates": config.responses_column,
        "single": config.response_column,
    }
    by_option = [kind for kind in get_args(Kind) if options[kind]]
    kinds: list[Kind] = [config.kind] if config.kind else by_option or list(readings)
    if "single" in kinds and len(kinds) > 1 and not by_option:
        kinds.remove("single")  # beside pairs or candidates, the answer that was once given
    if len(kinds) > 1:
        raise DataError(
            f"The columns {_listed(columns)} can be read as {' or as '.join(kinds)}. Say which "
            f"with kind={kinds[0]} or kind={kinds[1]}."
        )
    if not kinds or kinds[0] not in readings:
        wanted = f"as {kinds[0]} " if kinds else ""
        raise DataError(
            f"The columns {_listed(columns)} cannot be read {wanted}as preference data. Needed: "
            f"{_SHAPES}. Other names can be given: prompt_column, chosen_column, rejected_column, "
            "responses_column, response_column."
        )
    return kinds[0]


def _first(names: Sequence[str], columns: Sequence[str]) -> str | None:
    return next((name for name in names if name in columns), None)


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(map(repr, columns))

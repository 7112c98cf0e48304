"""Pairs to train on: read from labelled rows, whole or left out and counted."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import datasets

from drsow_plugin.annotate.columns import Status
from drsow_plugin.config.model import date_of
from drsow_plugin.errors import DataError, OverflowLengthError
from drsow_plugin.hashing import text_sha256
from drsow_plugin.models.language_model import LanguageModel
from drsow_plugin.models.row import ModelRow
from drsow_plugin.prompts import Preference, as_preference
from drsow_plugin.records import TokenPair
from drsow_plugin.tokens.conversations import Conversation, Conversations
from drsow_plugin.tuning.options import TuneConfig

_TOGETHER = 256
_COLUMNS = ("prompt", "chosen", "rejected")
NO_PAIR, UNREADABLE, TOO_LONG, ALIKE = "no pair", "unreadable", "too long", "alike"

Ids = tuple[int, ...]
Tokenize = Callable[[Sequence[ModelRow]], Sequence[Ids | str]]
"""Given rows, returns the tokens of each, or why it is left out."""


@dataclass
class Pairs:
    """What is trained on.

    Attributes:
        rows: In TRL's conversational shape: ``prompt``, ``chosen`` and ``rejected``; for a reward
            model token ids, ``chosen_ids`` and ``rejected_ids``.
        left_out: How many were not taken, by reason.
        longer: Share of pairs whose chosen response is the longer one; ``None`` without pairs.
    """

    rows: datasets.Dataset
    left_out: dict[str, int] = field(default_factory=dict)
    longer: float | None = None


def pairs_sha256(data: datasets.Dataset) -> str:
    """Return the SHA-256 of what is read of labelled rows, in their order."""
    digest = hashlib.sha256()
    for row in data.select_columns(_names(data.column_names)).with_format(None):
        digest.update(json.dumps(row, default=str).encode() + b"\n")
    return digest.hexdigest()


def read_pairs(data: datasets.Dataset, model: LanguageModel, config: TuneConfig) -> Pairs:
    """Return the pairs of labelled rows that a model can be trained on.

    Args:
        data: Has ``chosen``, ``rejected`` and, unless the prompt is in them, ``prompt``.
        model: Tokenizes them.
        config: Says how long a row may be, and which response is the better one.

    Raises:
        ConfigError: The template cannot render a whole conversation.
        DataError: The columns are missing, or too few pairs are left.
    """
    missing = sorted({"chosen", "rejected"} - set(data.column_names))
    if missing:
        raise DataError(
            f"There is no column {missing[0]!r}, only {', '.join(data.column_names)}. Training "
            "takes pairs, as drsow annotate writes them."
        )
    left_out: Counter[str] = Counter()
    rows: list[dict[str, Any]] = []
    longer = 0
    is_reward = config.method == "reward"
    tokenize = (_as_reward if is_reward else _as_policy)(model, config.max_length)
    for pair, chosen, rejected in _fitting(data, tokenize, left_out):
        better, worse = _labelled(pair, config)
        longer += len(better) > len(worse)
        if is_reward:
            ids = (chosen, rejected) if better == pair.chosen else (rejected, chosen)
            rows.append(dict(zip(("chosen_ids", "rejected_ids"), ids, strict=True)))
        else:
            rows.append({"prompt": [*map(_turn, pair.prompt)], **_sides(better, worse)})
    if len(rows) < config.min_pairs:
        told = ", ".join(f"{count} {why}" for why, count in sorted(left_out.items()))
        raise DataError(
            f"{len(rows)} pairs can be trained on ({told or 'none was left out'}), fewer than "
            f"min_pairs={config.min_pairs}. Label more rows, or lower min_pairs."
        )
    return Pairs(datasets.Dataset.from_list(rows), dict(left_out), longer / len(rows))


def _as_policy(model: LanguageModel, max_length: int) -> Tokenize:
    """Return what makes tokens of a prompt and a response, as the policy reads them."""

    def read(pair: TokenPair | DataError) -> Ids | str:
        if isinstance(pair, DataError):
            return TOO_LONG if isinstance(pair, OverflowLengthError) else UNREADABLE
        is_long = pair.problem is not None or len(pair) > max_length
        return TOO_LONG if is_long else (*pair.prompt_ids, *pair.response_ids)

    return lambda rows: [read(pair) for pair in model.tokenize(rows)]


def _as_reward(model: LanguageModel, max_length: int) -> Tokenize:
    """Return what makes tokens of a finished conversation, as a trained reward model reads it."""
    identity = model.identity
    assert identity.template is not None  # checked before
    conversations = Conversations(
        model.tokenizer, identity.template, template_date=date_of(model.config.template_date)
    )
    limit = min(max_length, identity.max_length or max_length)

    def read(row: ModelRow) -> Ids | str:
        found = conversations.encode(row.messages, row.response, row.where)
        if not isinstance(found, Conversation) or max(found.ids) >= identity.vocab_size:
            return UNREADABLE
        return found.ids if len(found.ids) <= limit else TOO_LONG

    return lambda rows: [*map(read, rows)]


def _fitting(
    data: datasets.Dataset, tokenize: Tokenize, left_out: Counter[str]
) -> Iterator[tuple[Preference, Ids, Ids]]:
    """Yield each pair that is read whole, with the tokens of chosen and rejected."""
    status = _status_of(data.column_names)
    taken = data.select_columns(_names(data.column_names)).with_format(None)
    for part in taken.iter(batch_size=_TOGETHER):
        columns: Mapping[str, Any] = part
        read = [
            _read(dict(zip(columns, values, strict=True)), status, left_out)
            for values in zip(*columns.values(), strict=True)
        ]
        pairs = [pair for pair in read if pair is not None]
        texts = [text for pair in pairs for text in (pair.chosen, pair.rejected)]
        prompts = [pair.prompt for pair in pairs for _ in range(2)]
        tokens = tokenize(
            [ModelRow([*p], text, "a row") for p, text in zip(prompts, texts, strict=True)]
        )
        for pair, chosen, rejected in zip(pairs, tokens[::2], tokens[1::2], strict=True):
            if isinstance(chosen, str) or isinstance(rejected, str):
                left_out[UNREADABLE if UNREADABLE in (chosen, rejected) else TOO_LONG] += 1
            else:
                yield pair, chosen, rejected


def _names(columns: Sequence[str]) -> list[str]:
    """Return the columns that are read."""
    names = (*_COLUMNS, _status_of(columns))
    return [name for name in names if name is not None and name in columns]


def _status_of(columns: Sequence[str]) -> str | None:
    """Return the column in which labelling says of each row whether it has a reward or a pair."""
    marks = (name.removesuffix("status") for name in columns if name.endswith("_status"))
    return next((f"{prefix}status" for prefix in marks if f"{prefix}margin" in columns), None)


def _read(row: Mapping[str, Any], status: str | None, left_out: Counter[str]) -> Preference | None:
    said = row[status] if status is not None else None
    failed = said and Status.parse(said).failure
    if row["chosen"] is None or row["rejected"] is None or failed:
        left_out[NO_PAIR] += 1
        return None
    try:
        pair = as_preference(row, "a row")
    except DataError:
        left_out[UNREADABLE] += 1
        return None
    if not all(isinstance(message.get("content"), str) for message in pair.prompt):
        left_out[UNREADABLE] += 1  # calls of tools, which are no text
        return None
    if pair.chosen == pair.rejected:
        left_out[ALIKE] += 1
        return None
    return pair


def _labelled(pair: Preference, config: TuneConfig) -> tuple[str, str]:
    """Return the response that is taken for the better one, and the other."""
    swapped = pair.rejected, pair.chosen
    if config.labels == "random":
        # What is drawn does not depend on which response was given as the better one.
        first, second = sorted(swapped)
        number = text_sha256(f"{config.seed}\n{[*pair.prompt]}\n{first}\n{second}")
        return (first, second) if int(number[:8], 16) % 2 else (second, first)
    if config.labels == "longer" and len(pair.rejected) > len(pair.chosen):
        return swapped
    return pair.chosen, pair.rejected


def _turn(message: Mapping[str, Any]) -> dict[str, str]:
    return {"role": str(message["role"]), "content": str(message["content"])}


def _sides(better: str, worse: str) -> dict[str, list[dict[str, str]]]:
    return {
        "chosen": [{"role": "assistant", "content": better}],
        "rejected": [{"role": "assistant", "content": worse}],
    }

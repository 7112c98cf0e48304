"""Anthropic's helpful and harmless preferences (hh-rlhf), read as conversations."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import datasets

from drsow_plugin.errors import DataError
from drsow_plugin.harness.benchmarks.loading import (
    SOURCE,
    Splits,
    load_published,
    logger,
    normalised,
    require_columns,
)
from drsow_plugin.records import Message

METADATA = SOURCE

HUB_ID, SPLIT = "Anthropic/hh-rlhf", "test"
_DOMAINS = {"helpful-base": "chat", "harmless-base": "safety"}
"""By the folder on the Hub the domain of its prompts."""

_TURN = re.compile(r"(?:\A|\n\n)(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def load(folder: str, **metadata: Any) -> Splits:
    """Load one of the two sets.

    Args:
        folder: ``helpful-base`` or ``harmless-base``.
        **metadata: ``data`` names a local copy instead of the Hub's, with transcripts as there,
            or with a ``prompt`` beside ``chosen`` and ``rejected``.

    Returns:
        The pairs. Rows whose two transcripts do not differ in the last turn alone are left out,
        and the log says how many.

    Raises:
        DataError: The data is empty, lacks a column, or is no pair of transcripts.
    """
    loaded, name = load_published(HUB_ID, SPLIT, metadata, METADATA, data_dir=folder)
    require_columns(loaded, ("chosen", "rejected"), name, f"Give a copy of {HUB_ID}.")
    if "prompt" in loaded.column_names:
        return {"test": normalised(loaded, name, domain=_DOMAINS[folder])}
    rows = [_pair(row, f"{name}, row {index}") for index, row in enumerate(loaded)]
    pairs = [row for row in rows if row is not None]
    if not pairs:
        raise DataError(
            f"{name}: in no row chosen and rejected differ in the last turn alone. Give a copy of "
            f"{HUB_ID}."
        )
    if len(pairs) < len(rows):
        logger.warning(
            "%s: in %d of %d rows the transcripts do not differ in the last turn alone; they are "
            "left out.",
            name,
            len(rows) - len(pairs),
            len(rows),
        )
    data = datasets.Dataset.from_list(pairs)
    return {"test": normalised(data, name, domain=_DOMAINS[folder])}


def _pair(row: Mapping[str, Any], where: str) -> dict[str, Any] | None:
    chosen, rejected = (transcript(row[n], f"{where}, {n}") for n in ("chosen", "rejected"))
    same_prompt = chosen[:-1] == rejected[:-1]
    if not same_prompt or chosen[-1]["role"] != "assistant" or rejected[-1]["role"] != "assistant":
        return None
    return {
        "prompt": chosen[:-1],
        "chosen": chosen[-1]["content"],
        "rejected": rejected[-1]["content"],
    }


def transcript(text: object, where: str) -> list[Message]:
    r"""Return ``\n\nHuman: …\n\nAssistant: …`` as messages.

    The space after a name belongs to neither turn; nothing else is taken away.

    Raises:
        DataError: The text does not begin with a turn, or has fewer than two.
    """
    parts = _TURN.split(text) if isinstance(text, str) else []
    if len(parts) < 5 or parts[0]:
        raise DataError(
            f"{where}: a transcript is '\\n\\nHuman: …\\n\\nAssistant: …', got {text!r:.80}. Pairs "
            "of another shape are for --tasks preference."
        )
    return [
        {"role": _ROLES[name], "content": said.removeprefix(" ")}
        for name, said in zip(parts[1::2], parts[2::2], strict=True)
    ]

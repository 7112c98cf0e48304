"""What the added columns are called, what they hold, and how a row's status reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from drsow_plugin.annotate.items import Item
from drsow_plugin.prompts import is_prefill
from drsow_plugin.records import BAD_ROW, Message, Reward

OK, PARTIAL = "ok", "partial"

TEXT, NUMBER, COUNT, FLAG = pa.string(), pa.float64(), pa.int64(), pa.bool_()
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


@dataclass(frozen=True)
class Column:
    """A column that is added: its Arrow type and what it means."""

    type: pa.DataType
    meaning: str

    def of_each(self) -> Column:
        """Return the column that holds one such value for each candidate."""
        return Column(pa.list_(self.type), f"{self.meaning}; one for each response")


Schema = dict[str, Column]

STATUS: Schema = {
    "status": Column(TEXT, "ok, or why there is no reward or no pair"),
    "notes": Column(TEXT, "what was unusual in scoring the row; empty if nothing"),
}
DOMAIN: Schema = {
    "domain": Column(TEXT, "the domain that the prompt was sent to; null for none"),
    "domain_confidence": Column(NUMBER, "probability of that choice; null if the router has none"),
}
_RESPONSE: Schema = {
    "reward": Column(NUMBER, "reward, nats"),
    "strong_logprob": Column(NUMBER, "summed log-prob under the strong model, nats"),
    "weak_logprob": Column(NUMBER, "summed log-prob under the weak model, nats"),
    "strong_tokens": Column(COUNT, "tokens scored by the strong model"),
    "weak_tokens": Column(COUNT, "tokens scored by the weak model"),
}
_TOKENS: Schema = {
    "strong_token_logprobs": Column(pa.list_(NUMBER), "each token's log-prob, strong model, nats"),
    "weak_token_logprobs": Column(pa.list_(NUMBER), "each token's log-prob, weak model, nats"),
}


def response_columns(token_logprobs: bool) -> Schema:
    """Return what is written of a single response; the names are those of a ``Reward``."""
    return _RESPONSE | (_TOKENS if token_logprobs else {})


def status_values(
    item: Item, problem: str | None, rewards: Iterable[Reward | None]
) -> dict[str, Any]:
    """Return the columns that say how a row went.

    Args:
        item: The row.
        problem: What else than ``ok`` there is to say.
        rewards: Those of the row.
    """
    if item.problem:
        return {"status": f"{BAD_ROW}: {item.problem}", "notes": ""}
    notes: dict[str, None] = dict.fromkeys(item.notes)
    for reward in filter(None, rewards):
        notes |= dict.fromkeys(reward.notes)
        for side in ("strong", "weak"):
            if cut := getattr(reward, f"{side}_truncated"):
                notes[f"{side}: {cut} prompt tokens cut from the left"] = None
    return {"status": problem or OK, "notes": "; ".join(notes)}


def domain_values(rewards: Iterable[Reward | None]) -> dict[str, Any]:
    """Return the columns that say where a row's prompt was sent."""
    first = next((reward for reward in rewards if reward is not None), None)
    return {
        "domain": first and first.domain,
        "domain_confidence": first and first.domain_confidence,
    }


def missing_rewards(named: Mapping[str, Reward | None]) -> str | None:
    """Return why rewards are missing: the kind of the first, then each response's reason."""
    kind, details = "", []
    for name, reward in named.items():
        reason = f"{BAD_ROW}: missing" if reward is None else reward.reason
        if reason:
            first, _, detail = reason.partition(": ")
            kind = kind or first
            details.append(f"{name}: {detail}")
    return f"{kind}: {'; '.join(details)}" if details else None


def conversation(
    prompt: Sequence[Message], responses: Sequence[str | None]
) -> tuple[list[dict[str, Any]], list[list[dict[str, str]] | None]]:
    """Return a prompt and responses to it as messages.

    What a response continues, an assistant message at the end of the prompt, becomes part of
    the response: TRL knows no other way to write it.
    """
    begun = ""
    if is_prefill(list(prompt)):
        begun, prompt = str(prompt[-1].get("content") or ""), prompt[:-1]
    return (
        [{"role": message["role"], "content": message.get("content")} for message in prompt],
        [
            None if text is None else [{"role": "assistant", "content": begun + text}]
            for text in responses
        ],
    )

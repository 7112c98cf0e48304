"""What the added columns are called, what they hold, and how a row's status reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from drsow_plugin.annotate.items import Item
from drsow_plugin.prompts import is_prefill
from drsow_plugin.records import BAD_ROW, SIDES, Message, Problem, Reward

_OK, _PARTIAL = "ok", "partial: "

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


CONTROLLED = "controlled_reward"
_CONTROLLED: Schema = {
    CONTROLLED: Column(NUMBER, "length-controlled reward: reward - length_slope * strong_tokens")
}
PROBABILITY: Schema = {
    "probability": Column(NUMBER, "of chosen being better: 1 / (1 + exp(-margin / temperature))")
}
CONTROLLED_MARGIN: Schema = {
    "controlled_margin": Column(NUMBER, "length-controlled reward of chosen minus that of rejected")
}


def response_columns(token_logprobs: bool, controlled: bool = False) -> Schema:
    """Return what is written of a single response; the names are those of a ``Reward``.

    Args:
        token_logprobs: Whether the log-prob of each token is.
        controlled: Whether the length-controlled reward is, which a ``Reward`` does not have.
    """
    return _RESPONSE | (_TOKENS if token_logprobs else {}) | (_CONTROLLED if controlled else {})


def response_value(reward: Reward | None, name: str, slope: float | None) -> Any:
    """Return what is written of a response in a column.

    Args:
        reward: Its reward; ``None`` for a missing response.
        name: The column, as :func:`response_columns` has it.
        slope: Nats a token that a length-controlled reward is without.
    """
    if name != CONTROLLED:
        return getattr(reward, name, None)
    if reward is None or reward.reward is None or slope is None:
        return None
    return reward.reward - slope * reward.strong_tokens


@dataclass(frozen=True)
class Status:
    """How a row went; it reads ``ok``, or why there is no reward or no pair.

    Attributes:
        problem: What went wrong, or ``None``. Its kind is what rows are counted by.
        is_partial: Whether a pair was made nonetheless, of other candidates.
    """

    problem: Problem | None = None
    is_partial: bool = False

    @property
    def failure(self) -> Problem | None:
        """Why the row lacks what it was labelled for, a reward or a pair; ``None`` if it has it."""
        return None if self.is_partial else self.problem

    def __str__(self) -> str:
        if self.problem is None:
            return _OK
        return f"{_PARTIAL}{self.problem}" if self.is_partial else str(self.problem)

    @classmethod
    def parse(cls, text: str) -> Status:
        """Return the status that a column says."""
        if text == _OK:
            return cls()
        kind, _, detail = text.removeprefix(_PARTIAL).partition(": ")
        return cls(Problem(kind, detail), is_partial=text.startswith(_PARTIAL))


def row_notes(item: Item, rewards: Iterable[Reward | None]) -> list[str]:
    """Return what was unusual in scoring a row; nothing of a row that could not be read."""
    if item.problem is not None:
        return []
    notes = list(item.notes)
    for reward in filter(None, rewards):
        notes += reward.notes
        for side in SIDES:
            if cut := getattr(reward, f"{side}_truncated"):
                notes.append(f"{side}: {cut} prompt tokens cut from the left")
    return list(dict.fromkeys(notes))


def domain_values(rewards: Iterable[Reward | None]) -> dict[str, Any]:
    """Return the columns that say where a row's prompt was sent."""
    first = next((reward for reward in rewards if reward is not None), None)
    return {
        "domain": first and first.domain,
        "domain_confidence": first and first.domain_confidence,
    }


def one_problem(problems: Sequence[Problem]) -> Problem | None:
    """Return the problems of one response as one, of the kind of the first."""
    if not problems:
        return None
    kind = problems[0].kind
    return Problem(kind, "; ".join(map(str, problems)).removeprefix(f"{kind}: "))


def missing_rewards(rewards: Mapping[str, Reward | None]) -> Problem | None:
    """Return why rewards are missing, each after its name: of the kind of the first."""
    missing = Problem(BAD_ROW, "missing")
    problems = {
        name: missing if reward is None else one_problem(reward.problems)
        for name, reward in rewards.items()
    }
    reasons = [(name, problem) for name, problem in problems.items() if problem is not None]
    if not reasons:
        return None
    details = (f"{name}: {problem.detail}" for name, problem in reasons)
    return Problem(reasons[0][1].kind, "; ".join(details))


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

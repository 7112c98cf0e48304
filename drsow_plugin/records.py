"""The plain values that pass between the parts of the package."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from drsow_plugin.errors import DataError, OverflowLengthError
from drsow_plugin.option import documented, option

Reduction = Literal["sum", "mean"]
Overflow = Literal["error", "skip", "truncate_prompt"]
ControlPolicy = Literal["text", "parse", "error"]
SideName = Literal["strong", "weak"]
SIDES: tuple[SideName, SideName] = ("strong", "weak")
OnError = Literal["raise", "null"]
DomainParts = Literal["none", "instruction", "examples", "both"]
DomainSide = Literal["both", "strong"]

DEFAULT_DATE = datetime.date(2024, 7, 26)
"""What templates that ask for the date are told: what those of Llama 3 name without a clock."""

ProblemKind = Literal["too long", "bad row", "not finite", "out of memory", "refused"]
TOO_LONG: ProblemKind = "too long"
BAD_ROW: ProblemKind = "bad row"
NOT_FINITE: ProblemKind = "not finite"
OUT_OF_MEMORY: ProblemKind = "out of memory"
REFUSED: ProblemKind = "refused"


@dataclass(frozen=True)
class Problem:
    """Why a row has no log-prob, or no reward; it reads ``kind: model: detail``.

    Attributes:
        kind: One of a few, by which rows are counted and finished work is kept or not.
        detail: What exactly is wrong, and what to do.
        model: The model that it is a problem of, such as ``strong``, if it is one's alone.
    """

    kind: str
    detail: str
    model: str | None = None

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.kind, self.model, self.detail)))

    @classmethod
    def of(cls, error: DataError, where: str) -> Problem:
        """Return what an error says of a row, which it calls ``where``."""
        kind = TOO_LONG if isinstance(error, OverflowLengthError) else BAD_ROW
        return cls(kind, str(error).removeprefix(where).lstrip(":, "))

    @classmethod
    def parse(cls, text: str | None) -> tuple[Problem, ...]:
        """Return the problems that were written down as a text, joined by semicolons."""
        problems = []
        for part in _BETWEEN.split(text or ""):
            kind, _, detail = part.partition(": ")
            model, _, rest = detail.partition(": ")
            if part:
                problems.append(cls(kind, rest, model) if model in SIDES else cls(kind, detail))
        return tuple(problems)


_BETWEEN = re.compile(f"; (?=(?:{'|'.join(get_args(ProblemKind))}): )")

Message = Mapping[str, Any]
"""One turn: ``{"role": ..., "content": ...}`` and whatever else the template reads."""

Prompt = str | Sequence[Message]
"""A string (one user turn) or a list of messages."""


@documented
@dataclass(frozen=True)
class Scoring:
    """The policies that decide what exactly is scored; recorded with every result."""

    reduction: Reduction = option(
        "sum",
        "`sum` of the log-probs of the response tokens, or `mean`: each side's sum divided by its "
        "own token count.",
    )
    end_of_turn: bool = option(
        True,
        "Whether the template's end-of-turn token is scored too.",
        "The white space that a template writes after it never is.",
    )
    overflow: Overflow = option(
        "error",
        "Rows over `max_length`: `error`, `skip` (no reward and a reason) or `truncate_prompt` "
        "(from the left).",
        "A leading BOS is kept. The response is never cut.",
        unset="error; in labelling the row then has no reward and a status, unless on_error=raise",
    )
    max_length: int | None = option(
        None, "Maximum of tokens, prompt and response together.", unset="each model's own limit"
    )
    refine: float = option(
        0.0,
        "Responses to one prompt whose rewards are within so many nats are scored again in "
        "float32.",
        unset="0: never",
    )
    control_tokens: ControlPolicy = option(
        "text",
        "What a control token in prompts and responses is, such as `<|im_end|>`: ordinary `text`, "
        "the token itself (`parse`) or an `error`.",
        "As text it cannot close its turn and open another; `parse` gives lm-eval's and TRL's "
        "numbers on such rows. Notes say where it made a difference. The template's own always "
        "count.",
    )


@dataclass(frozen=True)
class Batching:
    """Maximum of tokens and of rows in a batch; ``None`` fits the device, or is no limit."""

    tokens: int | None = None
    rows: int | None = None


NO_DOMAIN = "(none)"
"""What prompts that were sent to no domain are counted under."""


@dataclass(frozen=True)
class Route:
    """Where a prompt was sent.

    Attributes:
        domain: Name of a domain, or ``None`` for none.
        confidence: Probability of the choice, between 0 and 1, where the router gives one.
        note: What was unusual about it, for the result; empty if nothing.
    """

    domain: str | None
    confidence: float | None = None
    note: str = ""


@dataclass(frozen=True)
class TokenPair:
    """A prompt and a response as token ids, cut once and for all in token space.

    Attributes:
        prompt_ids: What the model is conditioned on; never empty.
        response_ids: The tokens that are scored; may be empty.
        truncated: How many prompt tokens were cut from the left.
        problem: Why the row cannot be scored, or ``None``.
        notes: What was unusual about this row, for the result.
    """

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    truncated: int = 0
    problem: Problem | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.response_ids)


@dataclass(frozen=True)
class LogProb:
    """The log-prob of a response.

    Attributes:
        total: Sum over the response tokens of ln p, in nats, at most 0.
        num_tokens: How many tokens were scored.
        token_logprobs: ln p of each response token, in nats; ``None`` where there is no log-prob.
        problem: Why there is none (``total`` is NaN then), or ``None``.
    """

    total: float
    num_tokens: int
    token_logprobs: tuple[float, ...] | None = None
    problem: Problem | None = None


@dataclass(frozen=True)
class Reward:
    """The reward of one response, with what it was made from.

    Attributes:
        reward: Strong log-prob minus weak log-prob, in nats (with ``reduction="mean"`` in
            nats a token), any sign; ``None`` where the row could not be scored.
        strong_logprob: Summed log-prob under the strong model, in nats; ``None`` likewise.
        weak_logprob: Summed log-prob under the weak model, in nats; ``None`` likewise.
        strong_tokens: Tokens of the response for the strong model.
        weak_tokens: Tokens of the response for the weak model.
        strong_truncated: Prompt tokens cut from the left on the strong side.
        weak_truncated: Prompt tokens cut from the left on the weak side.
        problems: Why ``reward`` is ``None``; none where it is not.
        notes: What was unusual, such as a system message merged into the first user turn.
        scoring: The policies in force.
        strong_token_logprobs: ln p of each response token under the strong model, in nats,
            where that was asked for.
        weak_token_logprobs: The same under the weak model.
        domain: Name of the domain that the prompt was routed to, or ``None``.
        domain_confidence: Probability of that choice, where the router gives one.
    """

    reward: float | None
    strong_logprob: float | None
    weak_logprob: float | None
    strong_tokens: int
    weak_tokens: int
    strong_truncated: int = 0
    weak_truncated: int = 0
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    scoring: Scoring = field(default_factory=Scoring)
    strong_token_logprobs: tuple[float, ...] | None = None
    weak_token_logprobs: tuple[float, ...] | None = None
    domain: str | None = None
    domain_confidence: float | None = None

    @property
    def reason(self) -> str | None:
        """Why ``reward`` is ``None``, or ``None``.

        It begins with ``too long:``, ``bad row:``, ``not finite:``, ``out of memory:`` or
        ``refused:`` (by a server).
        """
        return "; ".join(map(str, self.problems)) or None

    def __repr__(self) -> str:
        always = ("reward", "strong_logprob", "weak_logprob", "strong_tokens", "weak_tokens")
        perhaps = ("strong_truncated", "weak_truncated", "reason", "notes", "domain")
        values = {name: getattr(self, name) for name in always}
        values |= {name: getattr(self, name) for name in perhaps if getattr(self, name)}
        rounded = (f"{v:.4f}" if isinstance(v, float) else repr(v) for v in values.values())
        return f"Reward({', '.join(f'{n}={v}' for n, v in zip(values, rounded, strict=True))})"

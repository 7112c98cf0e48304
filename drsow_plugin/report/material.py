"""What a page is made of, wherever the rows come from: figures of many, and texts of some."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from drsow_plugin.records import Message

if TYPE_CHECKING:
    from drsow_plugin.quality.rows import Pairs
    from drsow_plugin.report.tokens import TokenView


@dataclass(frozen=True)
class ShownResponse:
    """A response on the page.

    Attributes:
        role: ``chosen``, ``rejected`` or which of several it is.
        text: The response; ``None`` where there is none.
        reward: Nats, or ``None``.
        strong: Summed log-prob under the strong model, nats, where it is known.
        weak: The same under the weak model.
        length: Its length.
        rating: A number that the data has for it.
        view: Where its reward comes from, where that was computed.
    """

    role: str
    text: str | None
    reward: float | None = None
    strong: float | None = None
    weak: float | None = None
    length: float | None = None
    rating: float | None = None
    view: TokenView | None = None


@dataclass(frozen=True)
class ShownRow:
    """A row on the page.

    Attributes:
        id: Its name in links, such as ``train-12``.
        number: Its number among all rows.
        prompt: The messages.
        responses: The responses.
        chosen: Which one is chosen.
        rejected: Which one is not.
        margin: Reward of chosen minus reward of rejected, nats.
        right: 1 where that agrees with what the data says is better, 0 where it does not, 0.5 for
            a tie, ``None`` where the data says nothing.
        length: Length of chosen minus length of rejected; of a single response its length.
        domain: Where the prompt was sent.
        group: The part of the data that it is of.
        status: ``ok``, or why there is no reward or no pair.
        notes: What was unusual in scoring it.
        known_domain: What the data names as the prompt's domain.
    """

    id: str
    number: int
    prompt: Sequence[Message]
    responses: Sequence[ShownResponse]
    chosen: int | None = None
    rejected: int | None = None
    margin: float | None = None
    right: float | None = None
    length: float | None = None
    domain: str = ""
    group: str = ""
    status: str = "ok"
    notes: str = ""
    known_domain: str | None = None


@dataclass(frozen=True)
class Material:
    """All that a page says of some data.

    Attributes:
        name: What the data is called.
        kind: ``pairs``, ``candidates`` or ``single``.
        rows: Rows that the figures are taken over.
        of_rows: Rows that there are; more where the others were not drawn.
        numbers: The numbers of the rows that were read, in order.
        pairs: The pairs among them; lengths are in ``length_unit``.
        domain: Number of the domain of each pair, (pairs,).
        groups: What the numbers of groups stand for.
        domains: What the numbers of domains stand for.
        group_kind: What groups are called.
        rewards: Rewards of the responses, (responses,).
        lengths: Their lengths, (responses,).
        length_unit: What lengths are counted in.
        failures: Rows without a reward or a pair, by reason.
        left_out: Rows that were left out for these reasons, which are not among ``of_rows``.
        truncated: Rows with a prompt that was cut.
        pair: The models and policies, as :meth:`drsow_plugin.DrSoW.describe` gives them.
        fingerprint: Hash of all that decides a reward.
        facts: What else is known, by name.
        texts: Returns the rows of some numbers, with what a column names as their domain.
    """

    name: str
    kind: str
    rows: int
    of_rows: int
    numbers: np.ndarray
    pairs: Pairs
    domain: np.ndarray
    groups: Sequence[str]
    domains: Sequence[str]
    group_kind: str
    rewards: np.ndarray
    lengths: np.ndarray
    length_unit: str
    failures: Counter[str]
    left_out: int
    truncated: int
    texts: Callable[..., list[ShownRow]]
    pair: Mapping[str, Any] | None = None
    fingerprint: str | None = None
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def reduction(self) -> str:
        """How log-probs of tokens become the reward."""
        scoring = (self.pair or {}).get("scoring") or {}
        return str(scoring.get("reduction", "sum"))


def spelled(options: Mapping[str, Any]) -> str:
    """Return options as they are given on a command line, without those that are not given."""
    words = {True: "true", False: "false"}
    given = {n: words.get(v, v) if isinstance(v, bool) else v for n, v in options.items()}
    return ", ".join(f"{name}={value}" for name, value in given.items() if value is not None)

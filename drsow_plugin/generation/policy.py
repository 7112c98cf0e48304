"""What samples responses: asked for one response at a time, it answers many at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from drsow_plugin.hashing import text_sha256
from drsow_plugin.records import Message, Problem

Finish = Literal["stop", "length"]


@dataclass(frozen=True)
class Ask:
    """One response that is wanted.

    Attributes:
        messages: The prompt.
        seed: What it is drawn with.
        where: What the row is called in an error.
    """

    messages: list[Message]
    seed: int
    where: str


@dataclass(frozen=True)
class Sample:
    """A response.

    Attributes:
        text: The response.
        tokens: How many were generated, without those that end it; ``None`` where it is not told.
        finish: ``stop`` where the policy ended it, ``length`` where it was cut.
    """

    text: str
    tokens: int | None
    finish: Finish


class Policy(Protocol):
    """A model that responses are sampled from."""

    def describe(self) -> dict[str, Any]:
        """Return what identifies its responses, as plain values."""

    def samples(self, asks: Iterator[Ask]) -> Iterator[tuple[int, Sample | Problem]]:
        """Yield the position of each that is asked for, and what came, in any order.

        Raises:
            ConfigError: It cannot sample as asked for.
            EngineError: It failed, for all that is asked for.
        """

    def close(self) -> None:
        """Let go of memory and processes; it samples no more."""


def seed_of(seed: int, content: str, index: int) -> int:
    """Return the seed of a response, from 0 to 2**31 - 1.

    Args:
        seed: That of the run.
        content: The prompt.
        index: Which of the prompt's responses it is.
    """
    return int(text_sha256(f"{seed}\n{index}\n{content}")[:8], 16) & 0x7FFFFFFF

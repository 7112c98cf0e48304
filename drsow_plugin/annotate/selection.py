"""Which two of the candidates make a preference pair."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from drsow_plugin.annotate.items import Item
from drsow_plugin.annotate.options import LabelConfig

FEW = "fewer than two responses"
IDENTICAL = "identical responses"
TIE = "tie"
CLOSE = "margin below min_margin"


@dataclass(frozen=True)
class Choice:
    """The positions of a pair among the candidates, or the kind of problem that there is none."""

    chosen: int | None = None
    rejected: int | None = None
    problem: str | None = None


def select_pair(item: Item, rewards: Sequence[float | None], config: LabelConfig) -> Choice:
    """Make a pair of the candidates that have a reward.

    The chosen one has the highest reward (the first, among equals). What may be rejected has
    another text and a reward lower by at least ``min_margin``, and by more than nothing. Of
    these ``best_vs_worst`` takes the lowest, ``best_vs_median`` the middle one (the lower of
    two), ``best_vs_random`` any with the same chance, as in the research code of arXiv
    2411.02481. A text that occurs twice counts once.

    Args:
        item: The prompt and the candidates.
        rewards: In nats, one for each candidate; ``None`` for one without.
        config: How to choose.
    """
    first: dict[str, int] = {}
    for index, (text, reward) in enumerate(zip(item.responses, rewards, strict=True)):
        if text is not None and reward is not None:
            first.setdefault(text, index)
    nats = {index: reward for index in first.values() if (reward := rewards[index]) is not None}
    if len(nats) < 2:
        usable = sum(reward is not None for reward in rewards)
        return Choice(problem=IDENTICAL if usable > 1 else FEW)
    ranked = sorted(nats, key=lambda index: (-nats[index], index))
    best = ranked[0]
    lower = [index for index in ranked if nats[index] < nats[best]]
    if not lower:
        return Choice(problem=TIE)
    allowed = [index for index in lower if nats[best] - nats[index] >= config.min_margin]
    if not allowed:
        return Choice(problem=CLOSE)
    return Choice(best, allowed[_position(item, len(allowed), config)])


def _position(item: Item, count: int, config: LabelConfig) -> int:
    """Return which of ``count`` candidates, best first, is rejected."""
    if config.select == "best_vs_worst":
        return count - 1
    if config.select == "best_vs_median":
        return count // 2
    digest = hashlib.sha256(f"{config.seed}\n{item.content()}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % count

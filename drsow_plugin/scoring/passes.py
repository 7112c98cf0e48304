"""The rewards of rows that were read: both models score, what cannot be scored is said."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from drsow_plugin.errors import NonFiniteError
from drsow_plugin.records import SIDES, LogProb, Reward, Scoring, SideName, TokenPair
from drsow_plugin.scoring.reward import to_reward
from drsow_plugin.scoring.rows import Row

if TYPE_CHECKING:
    from drsow_plugin.models.language_model import Side


@dataclass(frozen=True)
class Work:
    """How rows are scored: by which models, who is told, and what is asked for."""

    sides: Mapping[SideName, Side]
    advance: Callable[[int], object]
    per_token: bool
    strict: bool


def scored(
    rows: Sequence[Row], indices: Sequence[int], scoring: Scoring, work: Work
) -> list[Reward]:
    """Return the rewards of all rows, of which only some are scored."""
    sides = work.sides
    if indices:
        for side in SIDES:  # what cannot be loaded shows before either scores
            sides[side].check_weights()
    found: dict[SideName, dict[int, LogProb]] = {}
    for side in sorted(SIDES, key=lambda side: not sides[side].is_resident):
        pairs = [getattr(rows[index], side) for index in indices]
        logprobs = _logprobs(side, pairs, indices, work)
        found[side] = dict(zip(indices, logprobs, strict=True))
    return [
        to_reward(row, found["strong"].get(i), found["weak"].get(i), scoring)
        for i, row in enumerate(rows)
    ]


def _logprobs(
    side: SideName, pairs: Sequence[TokenPair], indices: Sequence[int], work: Work
) -> list[LogProb]:
    if not pairs:
        return []
    engine = work.sides[side].engine
    try:
        return engine.logprobs(pairs, work.advance, per_token=work.per_token, strict=work.strict)
    except NonFiniteError as error:
        index = indices[error.index]
        raise NonFiniteError(
            f"row {index}: under the {side} model {error}. The weights or the dtype overflow; "
            f"try {side}_dtype=float32, and check the checkpoint.",
            index,
        ) from error

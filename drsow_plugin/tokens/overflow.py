"""What happens to a row that is longer than a model reads."""

from __future__ import annotations

from dataclasses import replace

from drsow_plugin.errors import OverflowLengthError
from drsow_plugin.records import TOO_LONG, Problem, Scoring, TokenPair


def fitted(
    pair: TokenPair, limit: int, scoring: Scoring, where: str, start: tuple[int, ...]
) -> TokenPair | OverflowLengthError:
    """Apply the overflow policy to a row longer than ``limit``; ``start`` (BOS) is never cut."""
    size = (
        f"{len(pair.prompt_ids)} prompt + {len(pair.response_ids)} response tokens are more "
        f"than max_length {limit}"
    )
    if scoring.overflow == "error":
        return OverflowLengthError(
            f"{where}: {size}. Set overflow=skip to leave such rows without a reward, or "
            "overflow=truncate_prompt to cut the prompt from the left."
        )
    if scoring.overflow == "skip":
        return replace(pair, problem=Problem(TOO_LONG, size))
    room = limit - len(pair.response_ids) - len(start)
    if room < 1:
        return replace(pair, problem=Problem(TOO_LONG, f"{size}, even without the prompt"))
    cut = len(pair.prompt_ids) - room - len(start)
    return replace(pair, prompt_ids=start + pair.prompt_ids[-room:], truncated=cut)

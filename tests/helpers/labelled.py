"""Labelled rows whose numbers are given, as 'drsow annotate' would write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np

from drsow_plugin.quality.rows import Pairs, Responses


def side(reward: float | None, tokens: int) -> dict[str, Any]:
    """Return the columns of one response, without a prefix."""
    strong = None if reward is None else -10.0 + reward
    weak = None if reward is None else -10.0
    values = {"reward": reward, "strong_logprob": strong, "weak_logprob": weak}
    return {**values, "strong_tokens": tokens, "weak_tokens": tokens}


def pair(
    chosen: tuple[float | None, int], rejected: tuple[float | None, int], **columns: Any
) -> dict[str, Any]:
    """Return a labelled pair of two rewards with their tokens."""
    sides = {"chosen": side(*chosen), "rejected": side(*rejected)}
    both = chosen[0] is not None and rejected[0] is not None
    number = next(_NUMBERS)
    return {
        "prompt": f"Question {number}?",
        "chosen": f"yes {number}",
        "rejected": f"no {number}",
        **{f"drsow_{s}_{name}": v for s, own in sides.items() for name, v in own.items()},
        "drsow_margin": chosen[0] - rejected[0] if both else None,  # type: ignore[operator]
        "drsow_status": "ok" if both else "bad row: chosen: missing",
        "drsow_notes": "",
        **columns,
    }


_NUMBERS = iter(range(10**9))


def pairs_of(
    margins: Sequence[float], lengths: Sequence[int] | None = None, **columns: Sequence[Any]
) -> datasets.Dataset:
    """Return labelled pairs of margins, and of tokens of chosen minus tokens of rejected."""
    rows = []
    for at, margin in enumerate(margins):
        more = 0 if lengths is None else int(lengths[at])
        own = {name: values[at] for name, values in columns.items()}
        rows.append(pair((float(margin), 100 + more), (0.0, 100), **own))
    return datasets.Dataset.from_list(rows)


def arrays_of(
    margins: Sequence[float] | np.ndarray,
    lengths: Sequence[int] | np.ndarray,
    prompts: Sequence[int] | np.ndarray | None = None,
) -> tuple[Pairs, Responses]:
    """Return the same as arrays: rewards are the margin and 0, tokens the length and 0."""
    n = len(margins)
    own = np.arange(n) if prompts is None else np.asarray(prompts)
    row, zeros = np.arange(n), np.zeros(n)
    reward = np.stack([margins, zeros], axis=1).ravel()
    tokens = np.stack([lengths, zeros], axis=1).ravel().astype(int)
    responses = Responses(
        row=np.repeat(row, 2),
        place=np.tile([0, 1], n),
        prompt=np.repeat(own, 2),
        reward=reward,
        strong_logprob=reward,
        weak_logprob=np.zeros(2 * n),
        strong_tokens=tokens,
        weak_tokens=tokens,
    )
    gold, group = np.ones(n, dtype=bool), np.zeros(n, dtype=int)
    values = (np.asarray(margins, dtype=float), np.asarray(lengths, dtype=int))
    return Pairs(row, own, *values, gold, group, 2 * row, 2 * row + 1), responses

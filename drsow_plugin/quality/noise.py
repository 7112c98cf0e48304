"""How far rounding alone may move a margin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from drsow_plugin.quality.labelled import Batch, LabelledData
from drsow_plugin.quality.options import NOISE, QualityConfig
from drsow_plugin.quality.rows import Pairs
from drsow_plugin.records import SIDES
from drsow_plugin.scoring.reward import NOT_REFINED, REFINED


def refined_pairs(data: LabelledData, batch: Batch, pairs: Pairs) -> np.ndarray:
    """Return which pairs were scored again in float32, (pairs,).

    The notes are those of a row. Of its candidates only those were scored again that are within
    ``refine`` of each other; pairs that are further apart are taken for what they were.
    """
    notes = batch.values.get("notes") or [""] * len(batch)
    first = dict(zip(data.splits, data.first_rows(), strict=True))[batch.split]
    rows = [
        first + number
        for number, text in zip(batch.numbers, notes, strict=True)
        if text and REFINED in text and NOT_REFINED not in text
    ]
    again: np.ndarray = np.isin(pairs.row, rows)
    scoring = (data.report.pair if data.report else {}).get("scoring") or {}
    if data.kind == "candidates" and scoring.get("refine"):
        again &= np.abs(pairs.margin) <= scoring["refine"]
    return again


def noise_of(data: LabelledData, config: QualityConfig) -> float | None:
    """Return the noise of a margin, nats: as given, or else that of the coarser model."""
    if config.bounds.noise is not None:
        return config.bounds.noise
    pair: Mapping[str, Any] = {} if data.report is None else data.report.pair
    if pair.get("scoring", {}).get("reduction") == "mean":
        return None
    noises = [NOISE.get(str(pair.get(side, {}).get("dtype"))) for side in SIDES]
    known = [noise for noise in noises if noise is not None]
    return max(known) if len(known) == len(noises) else None

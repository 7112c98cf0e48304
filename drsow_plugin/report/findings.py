"""What the page says of all rows: accuracy and the baseline, parts, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from drsow_plugin.bootstrap import Estimate, share, wins
from drsow_plugin.errors import DataError
from drsow_plugin.quality.calibration import Calibration, calibrate
from drsow_plugin.report.material import Material

MOST_PARTS = 40


@dataclass(frozen=True)
class Part:
    """A part of the data.

    Attributes:
        name: Its name.
        accuracy: The share of its pairs whose better response has the higher reward.
        longer: The share of them whose better response is the longer one.
    """

    name: str
    accuracy: Estimate
    longer: Estimate


@dataclass(frozen=True)
class Findings:
    """What the page says of all rows.

    Attributes:
        whole: Accuracy over all pairs that the data has a label for; ``None`` without any.
        ties: Pairs whose two rewards are the same.
        prompts: Different prompts among the pairs that have a label; where none has, among all.
        calibration: How far margins can be believed, where that can be told.
        domains: Accuracy by domain; empty where there are fewer than two.
        groups: The same by group.
        remarks: What is not shown of these, and why.
    """

    whole: Part | None
    ties: int
    prompts: int
    calibration: Calibration | None
    domains: Sequence[Part]
    groups: Sequence[Part]
    remarks: Sequence[str]

    @property
    def temperature(self) -> float | None:
        """What margins are divided by for a probability, nats; ``None`` where none fits."""
        found = self.calibration and self.calibration.temperature
        return found if found and np.isfinite(found) else None


def find(material: Material) -> Findings:
    """Work out what the page says of all rows."""
    pairs, gold = material.pairs, material.pairs.gold
    remarks: list[str] = []
    calibration = None
    if gold.any():
        try:
            calibration = calibrate(pairs.margin[gold], pairs.prompt[gold])
        except DataError as error:
            remarks.append(f"No calibration: {error}")
    named = {"domain": (material.domain, material.domains), "group": (pairs.group, material.groups)}
    found = {kind: _parts(material, *of, kind, remarks) for kind, of in named.items()}
    return Findings(
        whole=_part(material, "all pairs", gold),
        ties=int((pairs.margin == 0).sum()),
        prompts=len(np.unique(pairs.prompt[gold] if gold.any() else pairs.prompt)),
        calibration=calibration,
        domains=found["domain"],
        groups=found["group"],
        remarks=remarks,
    )


def _parts(
    material: Material, codes: np.ndarray, names: Sequence[str], kind: str, remarks: list[str]
) -> list[Part]:
    """Return the parts of the pairs that have a label; none where all are of one part."""
    gold = material.pairs.gold
    if len(np.unique(codes[gold])) < 2:
        return []
    found = (_part(material, name, gold & (codes == code)) for code, name in enumerate(names))
    listed = sorted(filter(None, found), key=lambda part: (-part.accuracy.n, part.name))
    if len(listed) > MOST_PARTS:
        remarks.append(f"Of {len(listed):,} {kind}s the {MOST_PARTS} largest are shown.")
    return listed[:MOST_PARTS]


def _part(material: Material, name: str, mask: np.ndarray) -> Part | None:
    if not mask.any():
        return None
    pairs = material.pairs.where(mask)
    longer = share(wins(pairs.length), pairs.prompt)
    return Part(name, share(pairs.wins(), pairs.prompt), longer)

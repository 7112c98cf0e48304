"""Which pictures there are to draw of some rows."""

from __future__ import annotations

from collections.abc import Mapping

from drsow_plugin.report import charts
from drsow_plugin.report.findings import Findings
from drsow_plugin.report.material import Material
from drsow_plugin.report.svg import Chart


def pictures(
    material: Material, findings: Findings, ids: Mapping[int, str] | None = None
) -> list[Chart]:
    """Draw what there is to draw.

    Args:
        material: The rows.
        findings: What was found of them.
        ids: The rows that are on the page, by number.
    """
    pairs, gold = material.pairs, material.pairs.gold
    drawn: list[Chart] = []
    known = ids or {}
    if len(pairs):
        known_better = bool(gold.any())
        chosen = gold if known_better else ~gold
        drawn.append(charts.margins(pairs.margin[chosen], gold=known_better))
        named = [known.get(int(row)) for row in pairs.row[chosen]]
        of = (pairs.length[chosen], pairs.margin[chosen], named)
        unit = material.length_unit
        drawn.append(charts.lengths(*of, unit=unit, single=False, gold=known_better))
    elif len(material.rewards):
        nobody = [None] * len(material.rewards)
        of_one = (material.lengths, material.rewards, nobody)
        drawn.append(charts.lengths(*of_one, unit=material.length_unit, single=True))
    if findings.calibration is not None and findings.calibration.bins:
        drawn.append(charts.calibration(findings.calibration))
    if findings.domains:
        drawn.append(charts.parts("by-domain", "domain", findings.domains))
    if findings.groups:
        drawn.append(charts.parts("by-group", material.group_kind, findings.groups))
    return drawn

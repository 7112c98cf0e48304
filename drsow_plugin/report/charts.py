"""The pictures of the page: margins, reward against length, calibration, parts of the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from drsow_plugin.bootstrap import Estimate
from drsow_plugin.report.svg import WIDTH, Axes, Chart, element, number, reach, table, words
from drsow_plugin.stats import pearson

if TYPE_CHECKING:
    from drsow_plugin.quality.calibration import Calibration
    from drsow_plugin.report.findings import Part

MOST_POINTS = 1500
RIGHT, WRONG = "the better response has the higher reward", "it has the lower reward"


def margins(found: np.ndarray, *, gold: bool) -> Chart:
    """Draw how many pairs have which distance between their rewards, right and wrong ones apart.

    Args:
        found: Reward of the better response minus reward of the other, nats, (pairs,).
        gold: Whether the data says which is better; else it is what the reward chose.
    """
    sizes = np.abs(found)
    low, high = 0.0, max(reach(sizes)[1], 1e-9)
    bars = int(np.clip(1.5 * len(sizes) ** 0.5, 8, 36))
    edges = np.linspace(low, high, bars + 1)
    series = [("good", found > 0, RIGHT), ("bad", found < 0, WRONG)]
    if not gold:
        series = [("plain", found >= 0, "pairs that the reward made")]
    counts = {m: np.histogram(np.clip(sizes[w], low, high), edges)[0] for m, w, _ in series}
    axes = Axes((low, high), (0, max(1, *(c.max() for c in counts.values())) * 1.08))
    for (mark, _, said), style in zip(series, ("filled", "hollow"), strict=False):
        for place, count in enumerate(counts[mark]):
            if count:
                ends = edges[place], edges[place + 1]
                tip = f"{count:,} pairs {_between(*ends)} nats apart: {said}"
                more = {"data_low": f"{ends[0]:.6g}", "data_high": f"{ends[1]:.6g}"}
                if place == bars - 1:
                    more["data_high"] = "1e999"
                axes.bar(*ends, count, f"{mark} {style}", tip, **more, data_mark=mark)
    ties = int((found == 0).sum())
    beyond = int((sizes > high).sum())
    caption = "Where larger margins are right more often, the margin says something. "
    caption = caption if gold else "The data does not say which response is better. "
    caption += f"{ties:,} ties are in neither. " if ties and gold else ""
    caption += f"{beyond:,} beyond the axis are in the last bar. " if beyond else ""
    columns, rows = table(
        {
            "nats apart": _between(edges[place], edges[place + 1]),
            **{said: f"{counts[mark][place]:,}" for mark, _, said in series},
        }
        for place in range(bars)
    )
    return Chart(
        name="margins",
        title="Margins, right and wrong" if gold else "Margins",
        caption=caption.strip(),
        body=axes.labelled("distance between the two rewards (nats)", "pairs", least=1),
        legend=[
            (f"{m} {s}", f"{w} ({int(mask.sum()):,})")
            for (m, mask, w), s in zip(series, ("filled", "hollow"), strict=False)
        ],
        columns=columns,
        rows=rows,
    )


def lengths(
    differences: np.ndarray,
    rewards: np.ndarray,
    ids: Sequence[str | None],
    *,
    unit: str,
    single: bool,
    gold: bool = True,
    seed: int = 0,
) -> Chart:
    """Draw rewards against lengths: of pairs the differences, of single responses themselves.

    Args:
        differences: Lengths, (points,).
        rewards: Rewards, nats, (points,).
        ids: Of each point the row on the page that it is of, or ``None``.
        unit: What lengths are counted in.
        single: Whether points are responses, not pairs.
        gold: Whether the data says which response of a pair is better; else it is not known.
        seed: Of the choice where there are too many points.
    """
    chosen = np.arange(len(rewards))
    if len(chosen) > MOST_POINTS:
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, MOST_POINTS, replace=False))
    axes = Axes(reach(differences), reach(rewards))
    if axes.y[0] < 0 < axes.y[1]:
        axes.line((axes.x[0], 0), (axes.x[1], 0), "guide")
    if axes.x[0] < 0 < axes.x[1] and not single:
        axes.line((0, axes.y[0]), (0, axes.y[1]), "guide")
    judged = None if single else gold
    for place in chosen.tolist():
        length, reward = float(differences[place]), float(rewards[place])
        mark = "plain" if not judged else "good" if reward > 0 else "bad" if reward < 0 else "plain"
        x, y = axes.at(length, reward)
        shape: dict[str, object] = {"cx": x, "cy": y, "r": 3}
        tag = "circle"
        if mark == "bad":
            tag, shape = "path", {"d": f"M{x - 3:.1f} {y - 3:.1f}l6 6m0 -6l-6 6"}
        row = ids[place]
        more = {} if row is None else {"data_row": row}
        axes.add(
            tag, **{"class": f"{mark} {'dot' if tag == 'circle' else 'cross'}"}, **shape, **more
        )
    correlation = _correlation(differences, rewards, single=single)
    caption = "" if correlation is None else f"{_CORRELATION[single]} {correlation:+.2f}. "
    if len(chosen) < len(rewards):
        caption += f"{len(chosen):,} of {len(rewards):,} points, chosen at random. "
    caption += _SHORTER[judged]
    if any(ids[place] is not None for place in chosen.tolist()):
        caption += "A point opens its row."
    columns, rows = _length_table(differences, rewards, unit)
    of = "length" if single else "length difference"
    return Chart(
        name="lengths",
        title=f"Reward against length{_DIFFERENCE[judged]}",
        caption=caption.strip().replace("-", "\N{MINUS SIGN}", 1),
        body=axes.labelled(f"{of} ({unit})", "reward (nats)" if single else "margin (nats)"),
        legend=[("good dot", RIGHT), ("bad cross", WRONG)] if judged else [],
        columns=columns,
        rows=rows,
    )


def _correlation(lengths: np.ndarray, rewards: np.ndarray, *, single: bool) -> float | None:
    """Return Pearson's; of pairs that of how both responses differ from their mean."""
    if single:
        return pearson(lengths, rewards)
    both = [np.concatenate([values, -values]) for values in (lengths, rewards)]
    return pearson(both[0], both[1])


_DIFFERENCE = {None: "", True: ", better minus other", False: ", chosen minus rejected"}
_SHORTER = {
    None: "",
    True: "Points at the top left are right although the better response is shorter. ",
    False: "At the left the chosen response is shorter; which is better is not known. ",
}
_CORRELATION = {
    True: "Pearson correlation",
    False: "Pearson correlation of reward and length within pairs",
}


def _length_table(
    differences: np.ndarray, rewards: np.ndarray, unit: str
) -> tuple[list[str], list[list[str]]]:
    """Return quintiles of lengths with the mean reward of each."""
    edges = np.unique(np.quantile(differences, np.linspace(0, 1, 6)))
    places = np.clip(np.searchsorted(edges, differences, side="right") - 1, 0, len(edges) - 2)
    found = []
    for place in range(max(len(edges) - 1, 1)):
        inside = rewards[places == place] if len(edges) > 1 else rewards
        ends = (edges[place], edges[place + 1]) if len(edges) > 1 else (edges[0], edges[0])
        if len(inside):
            found.append(
                {
                    unit: _between(*ends),
                    "points": f"{len(inside):,}",
                    "mean (nats)": number(round(float(inside.mean()), 2)),
                    "above 0": f"{100 * float((inside > 0).mean()):.0f} %",
                }
            )
    return table(found)


def calibration(found: Calibration) -> Chart:
    """Draw how often pairs are right whose margin says that they are so likely to be."""
    axes = Axes((0.5, 1.0), (0.0, 1.0))
    axes.line((0.5, 0.5), (1, 1), "guide")
    rows = []
    for part in found.bins:
        if part.accuracy is None or part.confidence is None:
            continue
        ends = f"{_percent(part.low)} to {_percent(part.high)}"
        said = estimate(part.accuracy)
        rows.append({"confidence": ends, "pairs": f"{part.n:,}", "right": said})
        x = part.confidence
        if part.accuracy.low is not None and part.accuracy.high is not None:
            axes.line((x, part.accuracy.low), (x, part.accuracy.high), "good stem")
        at = axes.at(x, part.accuracy.value)
        tip = f"{part.n:,} pairs of confidence {ends}: {said} right"
        axes.add("circle", tip, **{"class": "good ring"}, cx=at[0], cy=at[1], r=_radius(part.n))
    columns, cells = table(rows)
    return Chart(
        name="calibration",
        title="Calibration: confidence against what is right",
        caption=_calibration_caption(found),
        body=axes.labelled("confidence: 1 / (1 + exp(-|margin| / temperature))", "right", True),
        legend=[("good ring", "pairs of about that confidence, with a 95 % interval")],
        columns=columns,
        rows=cells,
    )


def _calibration_caption(found: Calibration) -> str:
    if found.temperature is None:
        return "Every pair is right, so that no temperature is too small."
    said = f"Temperature {found.temperature:.3g} nats. "
    if np.isinf(found.temperature):
        said = "Larger margins are not right more often: no temperature fits, all are coins. "
    if found.ece is not None and found.brier is not None:
        said += (
            f"On pairs that it was not fitted on: expected calibration error {100 * found.ece:.1f} "
            f"%, Brier score {found.brier:.3f} (a coin has 0.250). "
        )
    return f"{said}On the dashed line confidence and accuracy are the same."


def parts(name: str, kind: str, listed: Sequence[Part]) -> Chart:
    """Draw the accuracy of each part of the data beside what picking the longer one gets.

    Args:
        name: Of the file.
        kind: What the parts are called.
        listed: The parts.
    """
    left, right, step = 150, 24, 26
    height = 34 + step * len(listed) + 26

    def at(share: float) -> float:
        return left + share * (WIDTH - left - right)

    marks: list[Markup] = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        line = {"x1": at(share), "x2": at(share), "y1": 12, "y2": height - 30}
        marks.append(element("line", **{"class": "guide" if share == 0.5 else "grid"}, **line))
        anchor = {"x": at(share), "y": height - 12, "text_anchor": "middle"}
        marks.append(words(f"{100 * share:.0f} %", **anchor))
    for place, part in enumerate(listed):
        y = 28 + step * place
        short = part.name if len(part.name) <= 20 else f"{part.name[:19]}…"
        label = {"class": "name", "x": left - 10, "y": y + 4, "text_anchor": "end"}
        marks.append(words(short, **label))
        longer, accuracy = part.longer, part.accuracy
        shape = f"M{at(longer.value):.1f} {y - 6}l6 6l-6 6l-6 -6z"
        tip = f"{part.name}: picking the longer gets {estimate(longer)}"
        marks.append(element("path", tip, **{"class": "plain diamond"}, d=shape))
        if accuracy.low is not None and accuracy.high is not None:
            ends = {"x1": at(accuracy.low), "x2": at(accuracy.high), "y1": y, "y2": y}
            marks.append(element("line", **{"class": "good stem"}, **ends))
        tip = f"{part.name}: {estimate(accuracy)} of {accuracy.n:,} pairs"
        dot = {"class": "good", "cx": at(accuracy.value), "cy": y, "r": 4.5}
        marks.append(element("circle", tip, **dot))
    columns, rows = table(
        {
            kind: part.name,
            "pairs": f"{part.accuracy.n:,}",
            "accuracy": estimate(part.accuracy),
            "pick the longer": estimate(part.longer),
        }
        for part in listed
    )
    return Chart(
        name=name,
        title=f"Accuracy by {kind}",
        caption="With 95 % intervals from drawing prompts anew. Half is a coin.",
        body=Markup("").join(marks),
        legend=[("good round", "accuracy"), ("plain diamond", "picking the longer response")],
        columns=columns,
        rows=rows,
        height=height,
    )


def estimate(value: Estimate) -> str:
    """Return a share with its interval, in percent."""
    said = f"{100 * value.value:.1f} %"
    if value.low is None or value.high is None:
        return said
    return f"{said} [{100 * value.low:.1f}, {100 * value.high:.1f}]"


def _radius(n: int) -> float:
    return float(np.clip(2.5 + np.log10(n), 3, 7))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _between(low: float, high: float) -> str:
    return f"{low:.3g} to {high:.3g}".replace("-", "\N{MINUS SIGN}")

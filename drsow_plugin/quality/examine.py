"""What labelled rows are worth, in one report: calibration, length, agreement of reductions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from drsow_plugin.bootstrap import Estimate
from drsow_plugin.quality import MAX_ROWS
from drsow_plugin.quality.agreement import Agreement, agreement
from drsow_plugin.quality.calibration import Calibration, calibrate
from drsow_plugin.quality.labelled import LabelledData
from drsow_plugin.quality.length import LengthEffect, length_effect
from drsow_plugin.quality.options import RowsConfig
from drsow_plugin.quality.rows import read_labelled

_NO_LABELS = "of no pair, or of pairs of one prompt alone, it is known which response is better"


@dataclass(frozen=True)
class Quality:
    """What was found out of labelled rows.

    Attributes:
        data: What they are called.
        sample: Which rows were read, in words.
        calibration: How far margins can be believed; ``None`` without labels.
        length: How reward and length go together.
        agreement: How the sum and the mean of log-probs go together.
    """

    data: str
    sample: str
    calibration: Calibration | None
    length: LengthEffect
    agreement: Agreement

    def values(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "data": self.data,
            "rows": self.sample,
            "calibration": self.calibration and self.calibration.values(),
            "length": self.length.values(),
            "agreement": self.agreement.values(),
        }

    def __str__(self) -> str:
        """Return it as lines for a terminal."""
        lines = [f"{self.data}: {self.sample}", "", "calibration"]
        lines += _calibration(self.calibration)
        lines += ["", "length", *_length(self.length), "", "sum and mean", *_both(self.agreement)]
        if options := self._options():
            lines += ["", f"to write them beside the rewards: drsow annotate … {options}"]
        return "\n".join(lines)

    def _options(self) -> str:
        """Return the options of labelling that write what was fitted."""
        found = self.calibration and self.calibration.temperature
        options = [f"--margin-temperature {found:.4g}"] if found and math.isfinite(found) else []
        if self.length.slope is not None:
            options.append(f"--length-slope {self.length.slope.value:.4g}")
        return " ".join(options)


def examine(data: LabelledData, config: RowsConfig) -> Quality:
    """Read labelled rows and say what they are worth.

    Args:
        data: The rows.
        config: How many are read, and how intervals are drawn.
    """
    rows = read_labelled(data, config.max_rows or MAX_ROWS, config.seed)
    gold, drawn = rows.gold, {"resamples": config.resamples, "seed": config.seed}
    calibration = None
    if len(set(gold.prompt.tolist())) > 1:
        calibration = calibrate(gold.margin, gold.prompt, folds=config.folds, **drawn)
    return Quality(
        data=data.name,
        sample=rows.sampled,
        calibration=calibration,
        length=length_effect(rows, folds=config.folds, **drawn),
        agreement=agreement(rows, **drawn),
    )


def _calibration(found: Calibration | None) -> Iterator[str]:
    if found is None:
        yield f"  not known: {_NO_LABELS}"
        return
    yield _line("pairs", f"{found.pairs:,} of {found.prompts:,} prompts")
    if found.temperature is None:
        yield _line("temperature", "none: every pair is right, so no margin is too small")
    elif found.temperature == math.inf:
        yield _line("temperature", "infinite: a larger margin is no more likely to be right")
    else:
        yield _line(
            "temperature",
            f"{found.temperature:.4g} nats (between parts {_number(found.low)} to "
            f"{_number(found.high)})",
        )
    if found.ece is None or found.brier is None or found.log_loss is None:
        yield _line("errors", "not known: without some parts every pair is right")
        return
    yield _line("ECE", f"{found.ece:.3f}, of pairs that it was not fitted on")
    yield _line("Brier score", f"{found.brier:.3f} (a coin: 0.250)")
    yield _line("log-loss", f"{found.log_loss:.3f} (a coin: {math.log(2):.3f})")
    yield _line("confidence", "right")
    for part in found.bins:
        if part.accuracy is not None:
            yield _line(f"{part.low:.2f} to {part.high:.2f}", _share(part.accuracy, "pairs"))


def _length(found: LengthEffect) -> Iterator[str]:
    for name, pearson, spearman in (
        ("within prompts", found.within_pearson, found.within_spearman),
        ("across prompts", found.across_pearson, found.across_spearman),
    ):
        if pearson is not None and spearman is not None:
            yield _line(name, f"Pearson {_signed(pearson)}, Spearman {_signed(spearman)}")
        else:
            yield _line(name, "not known: there are not two rewards, or lengths, that differ")
    if found.slope is not None:
        slope = found.slope
        ends = "" if slope.low is None else f" ({slope.low:.3g} to {slope.high:.3g})"
        yield _line("slope", f"{slope.value:.3g}{ends} nats a token, within prompts")
    for name, share in (
        ("prefers the longer", found.picks_longer),
        ("accuracy", found.accuracy),
        ("pick the longer", found.longer),
        ("length-controlled", found.controlled),
    ):
        if share is not None:
            yield _line(name, _share(share, "pairs"))


def _both(found: Agreement) -> Iterator[str]:
    if found.same is not None:
        yield _line("prefer the same", _share(found.same, "pairs"))
    if found.spearman is not None:
        yield _line("Spearman", _signed(found.spearman))
    for name, share in (("sum", found.sum_accuracy), ("mean", found.mean_accuracy)):
        if share is not None:
            yield _line(f"accuracy of {name}", _share(share, "pairs"))
    if found.without_tokens:
        yield _line("without a token", f"{found.without_tokens:,} responses, left out")


def _line(name: str, value: str) -> str:
    return f"  {name:20}{value}"


def _share(found: Estimate, of: str) -> str:
    ends = "" if found.low is None else f" ({found.low:.1%} to {found.high:.1%})"
    return f"{found.value:.1%}{ends} of {found.n:,} {of}"


def _signed(found: Estimate) -> str:
    ends = "" if found.low is None else f" ({found.low:+.2f} to {found.high:+.2f})"
    return f"{found.value:+.2f}{ends}"


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:.4g}"

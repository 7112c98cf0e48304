"""What the page says first: how good the reward is, and what it was made with."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from drsow_plugin.bootstrap import Estimate, share_interval, wins
from drsow_plugin.printable import printable
from drsow_plugin.records import SIDES
from drsow_plugin.report.charts import estimate
from drsow_plugin.report.findings import Findings
from drsow_plugin.report.material import Material, spelled

_SHORT = 12


def verdict(material: Material) -> str | None:
    """Return in a sentence whether the reward is better than a coin, and than length alone.

    The rule of length is the better one of two: picking the longer response, or the shorter one.
    """
    pairs = material.pairs.where(material.pairs.gold)
    if not len(pairs):
        return None
    won, longer = pairs.wins(), wins(pairs.length)
    ends = share_interval(won, pairs.prompt)
    if ends is None:
        return "Too few prompts for an interval: nothing can be said of new rows."
    said = "It is right more often than a coin"
    if ends[0] <= 0.5:
        said = "A coin cannot be ruled out" if ends[1] >= 0.5 else "It is wrong more often than not"
    is_longer = longer.mean() >= 0.5
    rule = f"picking the {'longer' if is_longer else 'shorter'} response"
    apart = won - (longer if is_longer else 1 - longer)
    if not apart.any():
        return f"{said}. It decides as {rule} would."
    shares = share_interval((apart + 1) / 2, pairs.prompt)  # what is a share has an interval
    if shares is None:
        return f"{said}. How it compares with {rule} is too uniform to tell."
    low, high = (200 * share - 100 for share in shares)
    points = f"{100 * float(apart.mean()):+.1f} points [{low:+.1f}, {high:+.1f}]"
    points = points.replace("-", "\N{MINUS SIGN}")
    if low > 0:
        return f"{said}, and it beats {rule}: {points}."
    if high < 0:
        return f"{said}; {rule} does better: {points}."
    return f"{said}; it cannot be told apart from {rule}: {points}."


@dataclass(frozen=True)
class Tile:
    """A figure.

    Attributes:
        name: What it is of.
        figure: The figure.
        detail: What else is to be said of it.
    """

    name: str
    figure: str
    detail: str = ""


def tiles(material: Material, findings: Findings) -> Iterator[Tile]:
    """Yield the figures that matter most."""
    whole = findings.whole
    if whole is not None:
        count = f"{whole.accuracy.n:,} pairs of {findings.prompts:,} prompts"
        yield Tile("accuracy", _percent(whole.accuracy), f"{_ends(whole.accuracy)} · {count}")
        shorter = f"the shorter gets {100 - 100 * whole.longer.value:.1f} %"
        detail = f"{_ends(whole.longer)} · {shorter}"
        yield Tile("picking the longer", _percent(whole.longer), detail)
    elif material.kind != "single":
        yield Tile("accuracy", "not known", "the data does not say which response is better")
    if material.kind != "single":
        yield Tile("ties", f"{findings.ties:,}", f"of {len(material.pairs):,} pairs")
    reasons = ", ".join(f"{why}: {number:,}" for why, number in material.failures.most_common())
    what = "no reward" if material.kind == "single" else "no reward or pair"
    number = sum(material.failures.values())
    if material.left_out:
        reasons = f"{reasons} · left out of the data"
    yield Tile(f"rows with {what}", f"{number:,}", reasons)
    yield Tile("prompts cut", f"{material.truncated:,}", "from the left, to fit")
    calibration = findings.calibration
    if calibration is not None and calibration.ece is not None and findings.temperature:
        ece = f"expected calibration error {100 * calibration.ece:.1f} %"
        yield Tile("temperature", f"{findings.temperature:.3g} nats", ece)


def _percent(value: Estimate) -> str:
    return f"{100 * value.value:.1f} %"


def _ends(value: Estimate) -> str:
    return estimate(value).partition("% ")[2] or "no interval"


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, and all of a hash whose beginning that is."""

    text: str
    full: str = ""


def sides(pair: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return both models as a table: names of the columns, and rows of cells."""
    if not pair:
        return None
    names = ("source", "revision", "adapter", "adapter_revision", "dtype", "quantization")
    rows = [(name, [_cell(pair[side].get(name)) for side in SIDES]) for name in names]
    rows.append(("template", [_cell(pair[side].get("template")) for side in SIDES]))
    for name, said in (("template_sha256", "template SHA-256"), ("tokenizer_sha256", "tokenizer")):
        rows.append((said, [_cell(pair[side].get(name)) for side in SIDES]))
    files = [pair[side].get("sha256") for side in SIDES]
    rows.append(("files, SHA-256", [_files(of) for of in files]))
    kept = [(name, cells) for name, cells in rows if any(cell.text for cell in cells)]
    return {"names": list(SIDES), "rows": kept}


def _files(hashes: object) -> Cell:
    if not isinstance(hashes, Mapping) or not hashes:
        return Cell("")
    whole = "\n".join(f"{printable(str(n))}: {digest}" for n, digest in hashes.items())
    return Cell(", ".join(f"{str(digest)[:_SHORT]}…" for digest in hashes.values()), whole)


def _cell(value: object) -> Cell:
    text = "" if value is None else printable(str(value))
    if re.fullmatch(r"[0-9a-f]{32,}", text):
        return Cell(f"{text[:_SHORT]}…", text)
    return Cell(PurePath(text).name if text.startswith("/") else text)


def facts(material: Material) -> dict[str, str]:
    """Return what is known of how the rows were made, by name."""
    pair = material.pair or {}
    known: dict[str, str] = {}
    if scoring := pair.get("scoring"):
        known["policies"] = spelled(scoring)
    if material.fingerprint:
        known["fingerprint"] = material.fingerprint
    if versions := pair.get("versions"):
        known["versions"] = ", ".join(f"{name} {value}" for name, value in versions.items())
    if not pair:
        known["the pair"] = "not known: no report stands beside the rows"
    return known | dict(material.facts)

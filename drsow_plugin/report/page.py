"""The page: one HTML file that opens from disk, with its data in it, and asks for nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata, resources
from typing import Any

import jinja2
from markupsafe import Markup

from drsow_plugin.annotate.report import pair_title
from drsow_plugin.printable import finite, printable
from drsow_plugin.report.findings import Findings
from drsow_plugin.report.material import Material, ShownResponse, ShownRow
from drsow_plugin.report.svg import MARKS, Chart
from drsow_plugin.report.verdict import facts, sides, tiles, verdict
from drsow_plugin.scoring.reward import probability

NO_TOKENS = (
    "Tokens are not coloured: these rows hold sums of log-probs, not those of each token. 'drsow "
    "report … --tokens true' computes them, with the models."
)
GENERATOR = '<meta name="generator" content="drsow-plugin">'
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Page:
    """What stands on a page.

    Attributes:
        material: The rows that figures are of.
        findings: What was found of them.
        charts: The pictures.
        rows: Rows with their texts.
        rule: How these were chosen.
        remarks: What else has to be said.
    """

    material: Material
    findings: Findings
    charts: Sequence[Chart]
    rows: Sequence[ShownRow]
    rule: str
    remarks: Sequence[str] = ()

    @property
    def heading(self) -> str:
        """The pair of models, or the data where that is not known."""
        return pair_title(self.material.pair) if self.material.pair else self.material.name

    def html(self) -> str:
        """Return the page as one file."""
        style, script = _asset("page.css") + MARKS, _asset("page.js")
        material = self.material
        has_tokens = any(a.view and a.view.segments for row in self.rows for a in row.responses)
        return _template().render(
            generator=_trusted(GENERATOR),
            title=printable(f"{self.heading}: reward report"),
            heading=printable(self.heading),
            subtitle=printable(self._subtitle()),
            style=_trusted(style),
            script=_trusted(script),
            style_hash=_hash(style),
            script_hash=_hash(script),
            verdict=verdict(material),
            tiles=list(tiles(material, self.findings)),
            sides=sides(material.pair),
            facts=[(name, printable(value)) for name, value in facts(material).items()],
            remarks=[printable(text) for text in (*self.findings.remarks, *self.remarks)],
            charts=self.charts,
            rule=self.rule,
            tokens_note="" if has_tokens else NO_TOKENS,
            verdicts=_verdicts(material),
            domains=sorted({printable(row.domain) for row in self.rows if row.domain}),
            groups=sorted({printable(row.group) for row in self.rows if row.group}),
            group_kind=printable(material.group_kind),
            sorts=_sorts(material, self.findings),
            data=embedded(self._data()),
            footer=_footer(),
        )

    def _subtitle(self) -> str:
        material = self.material
        number = f"{material.rows:,} rows"
        if material.rows < material.of_rows:
            number = f"a random sample of {material.rows:,} of {material.of_rows:,} rows"
        return f"{material.name} · {number}"

    def _data(self) -> dict[str, Any]:
        material, temperature = self.material, self.findings.temperature
        return {
            "kind": material.kind,
            "reduction": self._reduction(),
            "unit": material.length_unit,
            "temperature": temperature,
            "why": NO_TOKENS,
            "group": printable(material.group_kind).capitalize(),
            "groups": any(row.group for row in self.rows),
            "domains": any(row.domain for row in self.rows),
            "rows": [_row(row, temperature) for row in self.rows],
        }

    def _reduction(self) -> str:
        """Return how log-probs of tokens become a reward: that of the tokens shown, if any are."""
        views = (answer.view for row in self.rows for answer in row.responses if answer.view)
        view = next(views, None)
        return self.material.reduction if view is None else view.reward.scoring.reduction


def embedded(value: object) -> Markup:
    """Return plain values as JSON that may stand in a script element of HTML."""
    text = json.dumps(finite(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return _trusted(_SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def _trusted(text: str) -> Markup:
    """Return a text of this package, or one without any sign of HTML, as HTML."""
    return Markup(text)  # noqa: S704


def _row(row: ShownRow, temperature: float | None) -> dict[str, Any]:
    surprise = None
    if temperature and row.margin is not None and row.right is not None:
        signed = row.margin if row.right >= 0.5 else -abs(row.margin)
        surprise = -math.log(max(float(probability(signed, temperature)), 1e-300))
    turns = [{"r": str(turn["role"]), "c": _text(turn.get("content"))} for turn in row.prompt]
    return {
        "id": row.id,
        "n": row.number,
        "q": turns,
        "a": [_response(response) for response in row.responses],
        "c": row.chosen,
        "j": row.rejected,
        "m": _number(row.margin),
        "o": row.right,
        "u": _number(surprise),
        "l": row.length,
        "d": printable(row.domain),
        "g": printable(row.group),
        "st": row.status,
        "no": row.notes,
    }


def _text(content: object) -> str:
    return content if isinstance(content, str) else "" if content is None else json.dumps(content)


def _response(response: ShownResponse) -> dict[str, Any]:
    values: dict[str, Any] = {
        "r": response.role,
        "v": _number(response.reward),
        "s": _number(response.strong),
        "w": _number(response.weak),
        "l": response.length,
        "g": response.rating,
    }
    view = response.view
    if view is not None and view.segments:
        parts = view.segments
        values["k"] = {
            "p": [view.text[part.start : part.end] for part in parts],
            "s": [_number(part.strong) for part in parts],
            "w": [_number(part.weak) for part in parts],
            "sn": [part.strong_tokens for part in parts],
            "wn": [part.weak_tokens for part in parts],
            "b": parts[0].end == 0 and bool(view.text),
        }
    else:
        values["t"] = response.text
    if view is not None and (said := _again(response)):
        values["x"] = said
    return values


def _again(response: ShownResponse) -> str | None:
    """Return what to say where the reward that was computed now is not the one in the data."""
    assert response.view is not None
    now, before = response.view.reward, response.reward
    if now.reward is None:
        return f"Its tokens could not be scored: {now.reason}"
    mean = now.scoring.reduction == "mean"
    close = 0.05 / max(now.strong_tokens, now.weak_tokens, 1) if mean else 0.05
    if before is None or math.isclose(now.reward, before, rel_tol=1e-3, abs_tol=close):
        return None
    told = f"{now.reward:.4f} nats a token" if mean else f"{now.reward:.2f} nats"
    return f"Its tokens add up to {told}, not to the reward in the data."


def _number(value: float | None) -> float | None:
    return None if value is None else round(float(value), 4)


def _verdicts(material: Material) -> list[tuple[str, str]]:
    if material.kind == "single":
        return [("", "all")]
    listed = [("right", "right"), ("wrong", "wrong"), ("tie", "ties"), ("none", "without a pair")]
    open_ones = [] if material.pairs.gold.all() else [("open", "not known")]
    return [("", "all"), *listed, *open_ones]


def _sorts(material: Material, findings: Findings) -> list[tuple[str, str]]:
    single = material.kind == "single"
    listed = [("n", "number"), ("margin", "reward" if single else "margin")]
    if not single:
        listed += [("closeness", "closeness"), ("verdict", "verdict")]
    if findings.temperature:
        listed.append(("surprise", "surprise"))
    listed += [("length", "length" if single else "length difference"), ("prompt", "prompt")]
    if material.domains:
        listed.append(("domain", "domain"))
    if any(material.groups):
        listed.append(("group", material.group_kind))
    return listed


def _footer() -> str:
    version = metadata.version("drsow-plugin")
    return (
        f"Written by drsow-plugin {version}. The reward of a response is its log-prob under the "
        "strong model minus that under the weak one, in nats. Accuracy is the share of pairs whose "
        "better response has the higher reward, a tie counting half; brackets hold 95 % intervals "
        "from drawing prompts anew. Nothing on this page is fetched from anywhere."
    )


@lru_cache(maxsize=1)
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.from_string(_asset("page.html"))


def _asset(name: str) -> str:
    return resources.files("drsow_plugin.report").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

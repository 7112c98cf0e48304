"""What the GPU benchmark found, as JSON and as Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from gpu_methods import WORKLOADS
from gpu_profile import KINDS, REST, Profile
from report import table, versions

from drsow_plugin.records import TokenPair

_GIB = 1 << 30


@dataclass
class Peaks:
    """Speeds of bfloat16 products, in FLOP/s.

    Attributes:
        best: For each shape of a product the fastest one that was seen.
        sustained: Of the big square, over some seconds; 0 where it was not measured.
    """

    best: dict[str, float] = field(default_factory=dict)
    sustained: float = 0.0

    @property
    def peak(self) -> float:
        """The fastest of all; 0 where none was measured."""
        return max(self.best.values(), default=0.0)

    def text(self) -> str:
        """Return all of them in TFLOP/s."""
        speeds = {**self.best, "square, sustained": self.sustained}
        return ", ".join(f"{name} {speed / 1e12:,.3g} TFLOP/s" for name, speed in speeds.items())


@dataclass(frozen=True)
class Work:
    """How much there is to do for one model.

    Attributes:
        pairs: The rows.
        backbone: Distinct prefixes: tokens that have to go through the backbone.
        head: Distinct prefixes at which a response token is predicted.
        flops: Multiplications and additions of these, each done once.
    """

    pairs: list[TokenPair]
    backbone: int
    head: int
    flops: float

    @property
    def response_tokens(self) -> int:
        """Number of tokens whose log-probs are asked for."""
        return sum(len(pair.response_ids) for pair in self.pairs)

    @property
    def row_by_row(self) -> int:
        """Tokens through the backbone where rows share nothing and are not padded."""
        return sum(len(pair) - 1 for pair in self.pairs)


@dataclass
class Result:
    """What one method took on one workload with one model.

    Attributes:
        notes: What it chose by itself.
        opening_s: What opening took, such as finding out how rows share.
        first_s: The first run, which compiles and warms up.
        seconds: Of each round.
        memory: Peak bytes above the weights, while the rounds ran.
        profile: Where the time of a round went.
        backbone: Positions through the backbone, padding included; 0 in another process.
        head: Positions through the vocabulary projection.
        values: The log-probs, in nats.
        problem: Why there is nothing; ``None`` if there is.
    """

    shape: str
    workload: str
    method: str
    notes: dict[str, Any] = field(default_factory=dict)
    opening_s: float = 0.0
    first_s: float = 0.0
    seconds: list[float] = field(default_factory=list)
    memory: int = 0
    profile: Profile | None = None
    backbone: int = 0
    head: int = 0
    values: list[float] = field(default_factory=list)
    problem: str | None = None

    def line(self) -> str:
        """Return what is told of it while the rest runs."""
        rounds = " ".join(f"{value:.3f}" for value in self.seconds) or "no rounds"
        told = self.problem or f"first {self.first_s:.2f} s, then {rounds}"
        return f"{self.shape}, {self.workload}, {self.method}: {told}"


Works = Mapping[tuple[str, str], Work]


def as_json(peaks: Peaks, works: Works, results: Sequence[Result]) -> str:
    """Return all that was found as one line of JSON."""
    lines = [_record(peaks, works, results, result) for result in results]
    products = {"best": peaks.best, "sustained": peaks.sustained}
    exact = json.dumps({"products_flops": products, "results": lines})
    return json.dumps(json.loads(exact, parse_float=lambda digits: float(f"{float(digits):.4g}")))


def _record(
    peaks: Peaks, works: Works, results: Sequence[Result], result: Result
) -> dict[str, Any]:
    """Return one result with what follows from it."""
    work, seconds = works[result.shape, result.workload], median(result.seconds or [0.0])
    record = {name: value for name, value in vars(result).items() if name != "values"}
    record["profile"] = vars(result.profile) if result.profile else None
    record |= {
        "unique_backbone": work.backbone,
        "unique_head": work.head,
        "row_by_row_over_unique": work.row_by_row / work.backbone,
        "flops": work.flops,
    }
    if seconds:
        speed = work.flops / seconds
        record |= {
            "median_s": seconds,
            "unique_tokens_per_s": work.backbone / seconds,
            "response_tokens_per_s": work.response_tokens / seconds,
            "flops_per_s": speed,
            "share_of_sustained": speed / peaks.sustained if peaks.sustained else None,
            "share_of_best": speed / peaks.peak if peaks.peak else None,
        }
    record |= _difference(results, result)
    return record


def _difference(results: Sequence[Result], result: Result) -> dict[str, float]:
    """Return in what log-probs differ from those of drsow-plugin."""
    same = (result.shape, result.workload)
    own = next(
        (r.values for r in results if (r.shape, r.workload) == same and r.method == "drsow"), []
    )
    if result.method == "drsow" or not own or len(own) != len(result.values):
        return {}
    off = [a - b for a, b in zip(result.values, own, strict=True)]
    return {
        "differs_most": max(map(abs, off)),
        "differs_rms": (sum(value**2 for value in off) / len(off)) ** 0.5,
        "differs_mean": sum(off) / len(off),
    }


def section(where: str, peaks: Peaks, works: Works, results: Sequence[Result]) -> str:
    """Return the Markdown."""
    records = [_record(peaks, works, results, result) for result in results]
    packages = versions("torch", "triton", "transformers", "lm-eval", "trl", "vllm")
    parts = [
        f"{where}, bfloat16, one model of random weights; {packages}. Products in the same run: "
        f"{peaks.text()}.",
        "\n".join(f"- {name}: {text}." for name, text in WORKLOADS.items()),
        _speeds(records),
    ]
    profiles = [record for record in records if record["profile"]]
    if profiles:
        parts.append(_profiles(profiles))
    return "\n\n".join(parts)


def _speeds(records: Sequence[Mapping[str, Any]]) -> str:
    head = (
        *("model", "workload", "method", "s", "rounds", "first s", "unique tokens/s"),
        *("response tokens/s", "TFLOP/s", "of sustained", "of best", "GiB above weights"),
        *("backbone / unique", "head / unique", "row by row / unique", "differs, r.m.s.", "chosen"),
    )
    return table(head, [_speed(record) for record in records])


def _speed(record: Mapping[str, Any]) -> list[str]:
    start = [record["shape"], record["workload"], record["method"]]
    if "median_s" not in record:
        return [*start, f"not measured: {record['problem'] or 'no time left'}", *[""] * 13]
    differs = record.get("differs_rms")
    return [
        *start,
        f"{record['median_s']:.3f}",
        " ".join(f"{value:.3f}" for value in record["seconds"]),
        f"{record['first_s']:.2f}",
        f"{record['unique_tokens_per_s']:,.0f}",
        f"{record['response_tokens_per_s']:,.0f}",
        f"{record['flops_per_s'] / 1e12:,.3g}",
        _percent(record["share_of_sustained"]),
        _percent(record["share_of_best"]),
        f"{record['memory'] / _GIB:.2f}" if record["memory"] else "",
        _ratio(record["backbone"], record["unique_backbone"]),
        _ratio(record["head"], record["unique_head"]),
        f"{record['row_by_row_over_unique']:.2f}",
        "" if differs is None else f"{differs:.1e}",
        ", ".join(f"{name} {value}" for name, value in record["notes"].items()),
    ]


def _profiles(records: Sequence[Mapping[str, Any]]) -> str:
    kinds = [*KINDS, REST]
    lines = [
        [
            *(record["shape"], record["workload"]),
            *(_percent(record["profile"]["shares"].get(kind)) for kind in kinds),
            _percent(record["profile"]["idle"]),
        ]
        for record in records
    ]
    return table(["model", "workload", *kinds, "idle"], lines)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _ratio(positions: int, count: int) -> str:
    """Return positions over the unique ones; empty where another process did the work."""
    return f"{positions / count:.2f}" if positions else ""

"""What a study found out, as frozen values, and as files of numbers."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drsow_plugin.bootstrap import Estimate
from drsow_plugin.printable import finite
from drsow_plugin.study.choice import Choice
from drsow_plugin.study.gaps import GapLaw


@dataclass(frozen=True)
class ModelResult:
    """One model alone.

    Attributes:
        name: What it is called.
        options: What was asked for, with its source; no defaults.
        identity: What identifies its log-probs, as plain values.
        memory: Bytes of its weights; ``None`` where that is not known.
        cost: What was said that a use of it costs.
        scores: Its benchmark scores.
        likelihood: How often the chosen response has the higher log-prob.
        loglikelihood: Log-prob of the chosen responses, in nats a byte of UTF-8.
        truncated: Responses whose prompt was cut from the left.
        scored: Responses that were computed by this run; others were kept from before.
    """

    name: str
    options: Mapping[str, Any]
    identity: Mapping[str, Any]
    memory: int | None
    cost: float | None
    scores: Mapping[str, float]
    likelihood: Estimate
    loglikelihood: float
    truncated: int
    scored: int


@dataclass(frozen=True)
class PairResult:
    """An ordered pair of models.

    Attributes:
        strong: The strong model.
        weak: The weak one.
        accuracy: How often the chosen response has the higher reward, a tie counting half.
        ties: Rows whose two responses have the same reward.
        longer: How often the longer response has the higher reward, a tie counting half, among
            rows with responses of different length in characters; ``None`` where there are none.
        margin: Mean of reward of chosen minus reward of rejected, in nats (with
            ``reduction=mean`` in nats a token).
        memory: Bytes of both models' weights, those that they share once; ``None`` where unknown.
        cost: Sum of both models' costs, where both were said.
        subsets: The accuracy on each subset of the data.
        sections: The accuracy on each section of the benchmark, by its own weights.
    """

    strong: str
    weak: str
    accuracy: Estimate
    ties: int
    longer: float | None
    margin: float
    memory: int | None
    cost: float | None
    subsets: Mapping[str, Estimate]
    sections: Mapping[str, Estimate]


@dataclass(frozen=True)
class Findings:
    """What a study found out.

    Attributes:
        data: What the data is called.
        data_sha256: Hash of the rows that could be read.
        date: When, as ``YYYY-MM-DD``.
        version: Of this package.
        rows: Rows that the accuracies are over.
        prompts: Different prompts among them.
        of_rows: Rows of the data.
        left_out: How many of those are not among the rows, by reason; a row may have several.
        failed: Why models are missing, by name.
        models: The models.
        length: How often the chosen response has more characters, a tie counting half.
        subsets: Rows of each subset.
        sections: Rows of each section.
        pairs: All ordered pairs.
        laws: Each gap held against the accuracies.
        choice: The best pair within memory and cost; ``None`` where there is none.
        unknown: Pairs that were no candidates because their memory or cost is not known.
        options: The options of the study, without defaults.
        scoring: The policies on what is scored.
        resamples: Of the bootstrap.
    """

    data: str
    data_sha256: str
    date: str
    version: str
    rows: int
    prompts: int
    of_rows: int
    left_out: Mapping[str, int]
    failed: Mapping[str, str]
    models: tuple[ModelResult, ...]
    length: Estimate
    subsets: Mapping[str, int]
    sections: Mapping[str, int]
    pairs: tuple[PairResult, ...]
    laws: tuple[GapLaw, ...]
    choice: Choice | None
    unknown: int
    options: Mapping[str, Any]
    scoring: Mapping[str, Any]
    resamples: int

    def pair(self, strong: str, weak: str) -> PairResult:
        """Return one pair.

        Raises:
            KeyError: It is none of the study's.
        """
        for pair in self.pairs:
            if (pair.strong, pair.weak) == (strong, weak):
                return pair
        raise KeyError((strong, weak))

    def ranked(self) -> list[PairResult]:
        """Return the pairs, the most accurate first."""
        return sorted(self.pairs, key=lambda pair: -pair.accuracy.value)

    def values(self) -> dict[str, Any]:
        """Return all of it as plain values, for JSON."""
        values: dict[str, Any] = json.loads(json.dumps(_plain(self)))
        return values


def _plain(value: Any) -> Any:
    """Return a value as what JSON has; NaN is null."""
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if hasattr(value, "tolist"):
        return finite(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return finite(value)


def tables(report: Findings) -> dict[str, str]:
    """Return the tables of a study by file name, as CSV."""
    return {
        "models.csv": _csv(_models(report)),
        "pairs.csv": _csv(_pairs(report)),
        "parts.csv": _csv(_parts(report)),
    }


def _models(report: Findings) -> Iterator[dict[str, Any]]:
    for model in report.models:
        yield {
            "model": model.name,
            "source": model.options["source"],
            "memory": model.memory,
            "cost": model.cost,
            **_cells("likelihood_accuracy", model.likelihood),
            "loglikelihood": model.loglikelihood,
            **{f"score {name}": value for name, value in model.scores.items()},
        }


def _pairs(report: Findings) -> Iterator[dict[str, Any]]:
    names = [model.name for model in report.models]
    for pair in report.pairs:
        place = names.index(pair.strong), names.index(pair.weak)
        yield {
            "strong": pair.strong,
            "weak": pair.weak,
            **_cells("accuracy", pair.accuracy),
            "rows": pair.accuracy.n,
            "ties": pair.ties,
            "prefers_longer": pair.longer,
            "margin": pair.margin,
            "memory": pair.memory,
            "cost": pair.cost,
            **{f"gap {law.score}": float(law.gaps[place]) for law in report.laws},
        }


def _parts(report: Findings) -> Iterator[dict[str, Any]]:
    for pair in report.pairs:
        for kind, parts in (("section", pair.sections), ("subset", pair.subsets)):
            for name, estimate in parts.items():
                about = {"strong": pair.strong, "weak": pair.weak, "part": kind, "name": name}
                yield {**about, **_cells("accuracy", estimate), "rows": estimate.n}


def _cells(name: str, estimate: Estimate) -> dict[str, float | None]:
    return {name: estimate.value, "low": estimate.low, "high": estimate.high}


def _csv(rows: Iterable[Mapping[str, Any]]) -> str:
    listed: Sequence[Mapping[str, Any]] = list(rows)
    file = io.StringIO()
    if listed:
        writer = csv.DictWriter(file, list(listed[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(listed)
    return file.getvalue()

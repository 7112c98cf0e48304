"""What was generated, and how: for people and for a rerun."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from drsow_plugin.annotate.place import OPTIONS, REPORT, Place
from drsow_plugin.errors import DataError
from drsow_plugin.generation.policy import Sample
from drsow_plugin.generation.store import Outcome
from drsow_plugin.printable import printable
from drsow_plugin.records import Problem
from drsow_plugin.redaction import without_tokens

KIND = "prompts"
"""What a report on responses says that it is of."""
OK, CUT, DUPLICATE = "ok", "cut", "duplicate"


def statuses(samples: Sequence[Sample]) -> list[str]:
    """Return what each response to a prompt is: ``ok``, ``cut``, or ``duplicate`` of one before."""
    texts = [sample.text for sample in samples]
    return [
        CUT if sample.finish == "length" else DUPLICATE if text in texts[:index] else OK
        for index, (sample, text) in enumerate(zip(samples, texts, strict=True))
    ]


@dataclass
class Counts:
    """What came of the prompts of a split."""

    prompts: int = 0
    responses: int = 0
    tokens: int = 0
    cut: int = 0
    duplicates: int = 0
    without: dict[str, int] = field(default_factory=dict)

    def add(self, outcome: Outcome) -> None:
        """Count what came of one prompt."""
        self.prompts += 1
        if isinstance(outcome, Problem):
            self.without[outcome.kind] = self.without.get(outcome.kind, 0) + 1
            return
        found = statuses(outcome)
        self.responses += len(outcome)
        self.tokens += sum(sample.tokens or 0 for sample in outcome)
        self.cut += found.count(CUT)
        self.duplicates += found.count(DUPLICATE)

    def __add__(self, other: Counts) -> Counts:
        """Return the counts of both."""
        kinds = {**self.without, **other.without}
        return Counts(
            self.prompts + other.prompts,
            self.responses + other.responses,
            self.tokens + other.tokens,
            self.cut + other.cut,
            self.duplicates + other.duplicates,
            {kind: self.without.get(kind, 0) + other.without.get(kind, 0) for kind in kinds},
        )

    def __str__(self) -> str:
        none = sum(self.without.values())
        reasons = ", ".join(f"{count} {kind}" for kind, count in sorted(self.without.items()))
        return (
            f"{self.responses:,} responses to {self.prompts - none:,} prompts, "
            f"{self.tokens:,} tokens; {self.cut:,} cut at max_tokens, "
            f"{self.duplicates:,} duplicates"
            + (f"; {none:,} prompts without responses ({reasons})" if none else "")
        )


@dataclass(frozen=True)
class GenerationReport:
    """How responses were sampled, and what came.

    Attributes:
        options: The options in force, but for defaults.
        policy: What identifies the policy.
        sampling: How responses were sampled.
        splits: What came of the prompts of each split.
        shard: Which rows of the data these are, where they are a shard of it.
    """

    options: dict[str, Any]
    policy: dict[str, Any]
    sampling: dict[str, Any]
    splits: Mapping[str, Counts]
    shard: Mapping[str, Any] | None = None

    @classmethod
    def load(cls, path: Path) -> GenerationReport:
        """Read the report on responses in a folder.

        Raises:
            DataError: There is none.
        """
        place = Place.of(path)
        try:
            said = json.loads(place.at(REPORT).read_text(encoding="utf-8"))
            if said["kind"] != KIND:
                raise ValueError(f"it is of {said['kind']}")
            splits = {name: Counts(**counts) for name, counts in said["splits"].items()}
            known = said["options"], said["policy"], said["sampling"]
            return cls(*known, splits, said.get("shard"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"There is no {place.at(REPORT)} of 'drsow generate' ({error}). Give a folder "
                "that it wrote."
            ) from error

    def __str__(self) -> str:
        lines = (f"{name}: {counts}" for name, counts in self.splits.items())
        return printable("\n".join(lines), lines=True)

    def json(self, **more: object) -> bytes:
        """Return the report as JSON."""
        whole = {
            "kind": KIND,
            "created": datetime.date.today().isoformat(),
            "options": self.options,
            "policy": self.policy,
            "sampling": self.sampling,
            "splits": {name: asdict(counts) for name, counts in self.splits.items()},
            **({} if self.shard is None else {"shard": self.shard}),
        }
        return json.dumps({**without_tokens(whole), **more}, indent=2).encode()

    def files(self) -> dict[str, bytes]:
        """Return the files that go beside the rows."""
        options = yaml.safe_dump(without_tokens(self.options), sort_keys=False)
        return {REPORT: self.json(), OPTIONS: options.encode()}

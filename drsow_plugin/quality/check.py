"""The gate before training: labelled rows are held to bounds, in one pass over all of them."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import get_args

import numpy as np

from drsow_plugin.annotate.items import Item
from drsow_plugin.errors import DataError
from drsow_plugin.hashing import text_key
from drsow_plugin.progress import RowProgress
from drsow_plugin.quality.labelled import Batch, LabelledData
from drsow_plugin.quality.noise import noise_of, refined_pairs
from drsow_plugin.quality.options import NOISE, QualityConfig
from drsow_plugin.quality.rows import Pairs, Responses, RowReader, batches_of, chosen_rows
from drsow_plugin.quality.verdict import Check, Verdict
from drsow_plugin.records import ProblemKind
from drsow_plugin.stats import Correlation, Proportion, Share

_EXAMPLES = 5
_STEP = 10_000  # rows
_MIN_ACCURACY = 0.5


def check(data: LabelledData | Sequence[LabelledData], config: QualityConfig) -> Verdict:
    """Hold labelled rows to bounds.

    All rows are read, in batches; held are about sixty bytes a row.

    Args:
        data: The rows. Several data sets are held to the bounds together, each as splits of its
            own, of which no rows are to be in another.
        config: The bounds, and how the rows are read.

    Raises:
        DataError: A bound was given for what the data does not have, or data sets are of different
            kinds.
    """
    parts = [data] if isinstance(data, LabelledData) else list(data)
    kinds = {part.kind for part in parts}
    if len(kinds) != 1:
        raise DataError(f"These are of different kinds: {', '.join(sorted(kinds))}. Check each.")
    gate = _Gate(config)
    with ExitStack() as stack:
        number = sum(map(len, parts))
        progress = RowProgress(number, "drsow: check") if number > _STEP else None
        if progress is not None:
            stack.callback(progress.close)
        seen: Counter[str] = Counter()
        for part in parts:
            seen[part.name] += 1  # each is a split of its own, also where two have one name
            again = f" ({seen[part.name]})" if seen[part.name] > 1 else ""
            gate.begin(part, f"{part.name}{again}: " if len(parts) > 1 else "")
            rows = chosen_rows(part, config.rows.max_rows, config.rows.seed)
            for start in range(0, len(rows), _STEP):
                for batch in batches_of(part, np.sort(rows[start : start + _STEP])):
                    gate.add(batch)
                    if progress is not None:
                        progress.finish(len(batch))
    return Verdict(
        data=", ".join(part.name for part in parts),
        kind=parts[0].kind,
        rows=gate.rows,
        of_rows=sum(map(len, parts)),
        failures=dict(gate.failures.most_common()),
        checks=gate.checks(),
    )


@dataclass
class _Split:
    """Hashes of the rows of a split, and of their prompts."""

    rows: array[int] = field(default_factory=lambda: array("Q"))
    prompts: array[int] = field(default_factory=lambda: array("Q"))
    numbers: array[int] = field(default_factory=lambda: array("Q"))


class _Gate:
    """Counts rows as they come."""

    _data: LabelledData
    _reader: RowReader
    _noise: float | None

    def __init__(self, config: QualityConfig) -> None:
        self._bounds, self._config = config.bounds, config
        self._splits: dict[str, _Split] = {}
        self._noises: list[float | None] = []
        self._gold, self._lengths = Share(), Correlation()
        self._pairs = self._ties = self._contested = self._responses = 0
        self._left = self._missing = self.rows = 0
        self._sampled = False
        self._examples: dict[str, list[str]] = {}
        self.failures: Counter[str] = Counter()

    def begin(self, data: LabelledData, named: str) -> None:
        """Go on with the rows of a data set.

        Args:
            data: The data set.
            named: What stands before the names of its splits.
        """
        self._data, self._named = data, named
        self._reader = RowReader(data)
        self._noise = noise_of(data, self._config)
        self._noises.append(self._noise)
        self._splits |= {named + name: _Split() for name in data.splits}
        self._sampled |= 0 < (self._config.rows.max_rows or 0) < len(data)
        self._left_out()

    def _left_out(self) -> None:
        """Count the rows that labelling left out, as the report beside them says.

        Where a sample of the others is read, the same share of them is counted.
        """
        report = self._data.report
        if report is None or report.keeps_unusable:
            return
        left = Counter[str]()
        most, number = self._config.rows.max_rows or len(self._data), len(self._data)
        share = min(1.0, most / number) if number else 1.0
        for name, split in report.splits.items():
            if name in self._data.splits:
                left.update({why: round(n * share) for why, n in split.dropped.items()})
        kinds = get_args(ProblemKind)
        self._left += sum(left.values())
        self._missing += sum(n for kind, n in left.items() if kind in kinds)
        self.failures.update(left)

    def add(self, batch: Batch) -> None:
        """Count a batch."""
        responses, pairs = self._reader.read(batch)
        self._count_missing(batch, responses)
        self._count_pairs(batch, pairs)
        self._count_lengths(responses)
        split, first = self._splits[self._named + batch.split], self.rows
        for at, (number, item) in enumerate(zip(batch.numbers, batch.items, strict=True)):
            split.rows.append(_row_key(item, first + at))
            split.prompts.append(item.prompt_key(first + at))
            split.numbers.append(number)
        self.rows += len(batch)

    def _count_missing(self, batch: Batch, responses: Responses) -> None:
        """Count rows of which a response that is there has no reward."""
        self.failures.update(filter(None, batch.failures()))
        first = self._reader.first_row(batch.split)
        scored = Counter((responses.row - first).tolist())
        for at, number in enumerate(batch.numbers):
            there = sum(text is not None for text in batch.items[at].responses)
            if scored[number] < max(there, 1):
                self._missing += 1
                self._example("missing", self._named + batch.split, number)

    def _count_pairs(self, batch: Batch, pairs: Pairs) -> None:
        first = self._reader.first_row(batch.split)
        numbers = pairs.row - first
        self._pairs += len(pairs)
        ties = pairs.margin == 0
        self._ties += int(ties.sum())
        self._note("ties", self._named + batch.split, numbers[ties])
        if self._noise is not None:
            own = np.where(refined_pairs(self._data, batch, pairs), NOISE["float32"], self._noise)
            contested = (np.abs(pairs.margin) <= own) & ~ties
            self._contested += int(contested.sum())
            self._note("contested", self._named + batch.split, numbers[contested])
        gold = pairs.gold
        for win, prompt in zip(pairs.margin[gold] > 0, pairs.prompt[gold], strict=True):
            self._gold.add(float(win), int(prompt))

    def _count_lengths(self, responses: Responses) -> None:
        tokens, reward = responses.strong_tokens.astype(float), responses.reward
        if self._data.kind != "single":
            _, codes, sizes = np.unique(responses.row, return_inverse=True, return_counts=True)
            several = sizes[codes] > 1
            tokens, reward = (
                (values - (np.bincount(codes, values) / sizes)[codes])[several]
                for values in (tokens, reward)
            )
        if len(tokens):
            self._lengths.add(tokens.tolist(), reward.tolist(), centred=False)
            self._responses += len(tokens)

    def _note(self, name: str, split: str, numbers: np.ndarray) -> None:
        for number in numbers[:_EXAMPLES].tolist():
            self._example(name, split, number)

    def _example(self, name: str, split: str, number: int) -> None:
        listed = self._examples.setdefault(name, [])
        example = f"{split}:{number}"
        if len(listed) < _EXAMPLES and example not in listed:
            listed.append(example)

    def checks(self) -> list[Check]:
        """Return what came out."""
        bounds = self._bounds
        return [
            self._at_most(
                "missing", self._missing, self._left + self.rows, bounds.max_missing, "rows"
            ),
            self._of_pairs("ties", self._ties, bounds.max_ties),
            self._contested_check(),
            self._length_check(),
            self._accuracy_check(),
            *self._duplicate_checks(),
        ]

    def _at_most(
        self, name: str, count: int, n: int, bound: float, of: str, said: str = ""
    ) -> Check:
        value = count / n if n else None
        if value is None:
            return Check(name, None, None, bound, of=of, said=f"there are no {of}")
        examples = tuple(self._examples.get(name, ()))
        return Check(name, value <= bound, value, bound, n=n, of=of, said=said, examples=examples)

    def _of_pairs(self, name: str, count: int, bound: float, said: str = "") -> Check:
        return self._at_most(name, count, self._pairs, bound, "pairs", said)

    def _contested_check(self) -> Check:
        bound = self._bounds.max_contested
        noises = {noise for noise in self._noises if noise is not None}
        if None in self._noises:
            why = "the dtype is not known; give noise"
            return Check("contested", None, None, bound, of="pairs", said=why)
        said = f"margins within {' or '.join(f'{n:g}' for n in sorted(noises))} nats"
        return self._of_pairs("contested", self._contested, bound, said)

    def _length_check(self) -> Check:
        bound, found = self._bounds.max_length_correlation, self._lengths.value()
        if found is None:
            why = "there are not two rewards, or lengths, that differ"
            return Check("length", None, None, bound, of="responses", said=why)
        n, said = self._responses, f"reward and tokens correlate by {found:+.2f}"
        passed = abs(found) <= bound
        return Check("length", passed, abs(found), bound, n=n, of="responses", said=said)

    def _accuracy_check(self) -> Check:
        given, found = self._bounds.min_accuracy, self._gold.proportion()
        bound = _MIN_ACCURACY if given is None else given
        if found is None and given is not None:
            raise DataError(
                f"{self._data.name}: min_accuracy={given} was given, and of no pair it is known "
                "which response is better. Give pairs, candidates with ratings, or no such bound."
            )
        if found is None:
            why = "of no pair it is known which response is better"
            return Check("accuracy", None, None, bound, at_least=True, of="pairs", said=why)
        return _accuracy(found, bound)

    def _duplicate_checks(self) -> Iterator[Check]:
        bounds = self._bounds
        for name, column, bound in (
            ("duplicates", "rows", bounds.max_duplicates),
            ("shared prompts", "prompts", bounds.max_shared_prompts),
        ):
            if len(self._splits) < 2:
                why = "there is one split"
                yield Check(name, None, None, bound, said=why)
                continue
            worst, where, count, size = -1.0, "", 0, 0
            earlier = np.array([], dtype=np.uint64)
            for split, hashes in self._splits.items():
                own = np.array(getattr(hashes, column), dtype=np.uint64)
                again = np.isin(own, earlier)
                share = float(again.mean()) if len(own) else 0.0
                if len(earlier) and share > worst:
                    worst, where, count, size = share, split, int(again.sum()), len(own)
                self._note(name, split, np.array(hashes.numbers)[again])
                earlier = np.union1d(earlier, own)
            said = f"{count:,} of split {where} are in an earlier one"
            if self._sampled:
                said += "; of a sample, which shows few of those that there are"
            found = self._at_most(name, count, size, bound, "rows", said)
            unsure = self._sampled and found.passed and bound < 1
            yield Check(name, None, None, bound, said=said) if unsure else found


def _accuracy(found: Proportion, bound: float) -> Check:
    return Check(
        *("accuracy", found.value >= bound, found.value, bound),
        at_least=True,
        n=found.n,
        of="pairs",
        low=found.low,
        high=found.high,
    )


def _row_key(item: Item, number: int) -> int:
    """Return a hash of a row's prompt and responses, in whatever order these stand."""
    texts = sorted(text or "" for text in item.responses)
    return text_key(f"{item.prompt_key(number)}\n" + "\n".join(f"{len(t)} {t}" for t in texts))

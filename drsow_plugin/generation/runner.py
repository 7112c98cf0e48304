"""Samples candidates for a whole data set: resume, progress, a report at the end."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from drsow_plugin.annotate.outputs import splits_of
from drsow_plugin.annotate.parts.part import parse_part
from drsow_plugin.annotate.parts.together import describe_part
from drsow_plugin.annotate.writing import write_rows
from drsow_plugin.cache import cache_folder
from drsow_plugin.config.sampling import Sampling
from drsow_plugin.data.prompts import AskedPrompt, check_prompts, read_prompts
from drsow_plugin.errors import ConfigError, DataError, Interrupted
from drsow_plugin.generation.opening import open_policy
from drsow_plugin.generation.options import Setup, parse_generation
from drsow_plugin.generation.parts import KEPT_TOGETHER, plan_prompts
from drsow_plugin.generation.policy import Ask, Policy, Sample, seed_of
from drsow_plugin.generation.report import Counts, GenerationReport, statuses
from drsow_plugin.generation.store import Outcome, SampleStore, open_store
from drsow_plugin.hashing import text_sha256
from drsow_plugin.progress import RowProgress
from drsow_plugin.records import Problem

RESPONSES, TOKENS, STATUS, PROBLEM = "responses", "response_tokens", "response_status", "problem"
COLUMNS = {
    RESPONSES: pa.list_(pa.string()),
    TOKENS: pa.list_(pa.int64()),
    STATUS: pa.list_(pa.string()),
    PROBLEM: pa.string(),
}
"""The columns that are added: what came of each prompt, or why nothing did."""

_FIRST = 16  # responses, all cut, after which a policy is taken for one that does not stop


def generate(
    data: Any,
    policy: object,
    *,
    shard: str | tuple[int, int] | None = None,
    cache_dir: str | None = None,
    rows_dir: str | None = None,
    **options: Any,
) -> tuple[Any, GenerationReport]:
    """Sample responses to each prompt of a data set, which ``annotate`` then labels.

    Args:
        data: A ``Dataset`` or ``DatasetDict`` with a column of prompts, each there once.
        policy: The model: a Hub id, a folder, a ``.gguf`` file, ``demo``; with ``server=`` what
            the server calls it.
        shard: Which prompts are answered: ``"3/16"``, or ``(3, 16)``, are those of the third of
            16 shards, contiguous and of about as many prompts each; ``drsow merge`` joins what
            ``drsow generate --shard`` wrote.
        cache_dir: Where finished work is kept; the same call goes on from there.
        rows_dir: Where the rows are written that the returned data set reads; by default there.
        **options: Those of a model without a prefix, ``candidates``, ``temperature``, ``top_k``,
            ``top_p``, ``max_tokens``, ``seed``, ``prompt_column``, ``max_cut``, ``batch_size``;
            see ``docs/options.md``.

    Returns:
        The rows with ``responses`` (a list of texts), ``response_tokens`` (generated, without
        those that end a response), ``response_status`` (``ok``, ``cut`` at ``max_tokens``, or
        ``duplicate`` of one before) and ``problem`` (why a prompt has no responses); and how they
        were made.

    Raises:
        ConfigError: An option is wrong, or the policy does not stop.
        DataError: There are no prompts, they repeat, or columns of that name are there already.
        EngineError: The policy failed; finished work is kept.
        StorageError: Finished work cannot be kept.
    """
    setup = parse_generation(policy, options)
    part = parse_part(shard)
    splits = splits_of(data)
    for name, split in splits.items():
        check_prompts(split, setup.generate.prompt_column, f"the split {name!r}")
        if taken := sorted(COLUMNS.keys() & set(split.column_names)):
            raise DataError(
                f"The split {name!r} has the column {taken[0]!r} already. Rename or remove it."
            )
    plan = None if part is None else plan_prompts(splits, part)
    root = cache_folder(cache_dir)
    rows = Path(rows_dir or root / "labelled")
    made, counts = {}, {}
    with closing(open_policy(setup)) as opened:
        described = {"policy": opened.describe(), "sampling": setup.sampling.describe()}
        key = text_sha256(json.dumps({**described, "version": 1}, sort_keys=True))
        with open_store(root / "responses" / key[:32]) as store:
            store.describe(setup.options())
            store.check_writable()
            for name, split in splits.items():
                own = range(len(split)) if plan is None else plan.rows[name]
                run = _Run(setup, opened, store, name, rows, own.start)
                made[name] = run.over(split if plan is None else split.select(own))
                counts[name] = run.counts
    said = None if plan is None else describe_part(plan)
    report = GenerationReport(options=setup.options(), **described, splits=counts, shard=said)
    whole = datasets.DatasetDict(made) if isinstance(data, datasets.DatasetDict) else made
    return whole if whole is not made else next(iter(made.values())), report


@dataclass
class _Chunk:
    """Prompts that are kept together, and what came of them so far."""

    prompts: list[AskedPrompt]
    samples: list[list[Sample | Problem | None]]
    missing: int
    kept: list[Outcome] | None = None

    @property
    def contents(self) -> list[str]:
        return [prompt.content for prompt in self.prompts]

    def outcomes(self) -> list[Outcome]:
        return (
            self.kept if self.kept is not None else [*map(self._outcome, range(len(self.prompts)))]
        )

    def _outcome(self, index: int) -> Outcome:
        if (problem := self.prompts[index].problem) is not None:
            return problem
        samples: list[Sample] = []
        for sample in self.samples[index]:
            if isinstance(sample, Problem):
                return sample
            assert sample is not None  # the chunk is whole
            samples.append(sample)
        return samples


@dataclass
class _Run:
    """A run over a split, or over some of its rows, of which the first has a number."""

    setup: Setup
    policy: Policy
    store: SampleStore
    name: str
    rows: Path
    first: int
    counts: Counts = field(default_factory=Counts)

    @property
    def sampling(self) -> Sampling:
        return self.setup.sampling

    def over(self, split: datasets.Dataset) -> datasets.Dataset:
        """Return the split with what came of its prompts."""
        progress = RowProgress(len(split), f"drsow: {self.name}")
        added = datasets.Features.from_arrow_schema(pa.schema(COLUMNS.items()))
        try:
            tables = self._tables(split, progress)
            features = datasets.Features({**split.features, **added})
            made = write_rows(tables, features, self.name, self.rows)
        except KeyboardInterrupt:
            raise Interrupted(
                f"the responses to {self.counts.prompts} prompts are kept; the same run goes on "
                "from there"
            ) from None
        finally:
            progress.close()
        return made

    def _tables(self, split: datasets.Dataset, progress: RowProgress) -> Iterator[pa.Table]:
        """Yield the rows with what came of their prompts."""
        begin = 0
        with closing(self._outcomes(split)) as chunks:
            for outcomes in chunks:
                for outcome in outcomes:
                    self.counts.add(outcome)
                    progress.finish(1, _tokens_of(outcome))
                self._check_cut(_FIRST)
                end = begin + len(outcomes)
                rows = split.select(range(begin, end)).with_format("arrow")[:]
                cells = [_cells(outcome) for outcome in outcomes]
                for name, kind in COLUMNS.items():
                    values = pa.array([cell[name] for cell in cells], kind)
                    rows = rows.append_column(name, values)
                yield rows
                begin = end
        self._check_cut(0)

    def _outcomes(self, split: datasets.Dataset) -> Generator[list[Outcome], None, None]:
        """Yield what came of chunk after chunk; each is kept as soon as it is whole."""
        chunks: deque[_Chunk] = deque()
        asked: dict[int, tuple[_Chunk, int, int]] = {}
        asks = self._asks(split, chunks, asked)
        for index, sample in self.policy.samples(asks):
            chunk, prompt, candidate = asked.pop(index)
            chunk.samples[prompt][candidate] = sample
            chunk.missing -= 1
            if not chunk.missing:
                self.store.save(chunk.contents, chunk.outcomes())
            yield from self._whole(chunks)
        yield from self._whole(chunks)

    def _whole(self, chunks: deque[_Chunk]) -> Iterator[list[Outcome]]:
        while chunks and not chunks[0].missing:
            yield chunks.popleft().outcomes()

    def _asks(
        self,
        split: datasets.Dataset,
        chunks: deque[_Chunk],
        asked: dict[int, tuple[_Chunk, int, int]],
    ) -> Iterator[Ask]:
        """Yield what is wanted, and note which prompt it is for."""
        prompts = read_prompts(split, self.setup.generate.prompt_column, self.first)
        count = self.sampling.candidates
        number = 0
        while part := list(islice(prompts, KEPT_TOGETHER)):
            readable = [i for i, prompt in enumerate(part) if prompt.problem is None]
            chunk = _Chunk(part, [[None] * count for _ in part], len(readable) * count)
            chunk.kept = self.store.load(chunk.contents, count)
            if chunk.kept is not None:
                chunk.missing = 0
            chunks.append(chunk)
            if chunk.missing:
                for i in readable:
                    for candidate in range(count):
                        asked[number] = (chunk, i, candidate)
                        number += 1
                        seed = seed_of(self.sampling.seed, part[i].content, candidate)
                        yield Ask(part[i].messages, seed, part[i].where)

    def _check_cut(self, at_least: int) -> None:
        """Check that the policy ends its responses.

        Raises:
            ConfigError: Too many were cut; those are kept.
        """
        counts, limit = self.counts, self.setup.generate.max_cut
        is_early = bool(at_least)
        share = counts.cut / counts.responses if counts.responses else 0.0
        if counts.responses >= max(at_least, 1) and share > (0.9999 if is_early else limit):
            if is_early and limit >= 1:
                return
            raise ConfigError(
                f"The policy does not stop: {counts.cut} of {counts.responses} responses reached "
                f"max_tokens={self.sampling.max_tokens}. Give more max_tokens, a policy that was "
                "tuned with its chat template, or allow it with max_cut=1."
            )


def _cells(outcome: Outcome) -> dict[str, Any]:
    """Return what goes into the columns of a row."""
    if isinstance(outcome, Problem):
        return {RESPONSES: [], TOKENS: [], STATUS: [], PROBLEM: str(outcome)}
    return {
        RESPONSES: [sample.text for sample in outcome],
        TOKENS: [sample.tokens for sample in outcome],
        STATUS: statuses(outcome),
        PROBLEM: None,
    }


def _tokens_of(outcome: Outcome) -> int:
    return 0 if isinstance(outcome, Problem) else sum(s.tokens or 0 for s in outcome)

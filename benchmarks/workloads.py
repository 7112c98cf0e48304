"""What the benchmarks score, and how little work it could take: nothing here needs torch.

The rows come from the shipped LLMBar pairs (``tasks/llmbar.jsonl``), drawn with a fixed seed:

- ``w1``: pairs, as they are;
- ``w2``: the same pairs behind one system message of a rubric with worked examples;
- ``w3``: a quarter of the prompts with eight candidates each, the same responses regrouped;
- ``bestofN``: four prompts with N candidates each.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drsow_plugin.engines import Engine
from drsow_plugin.engines.results import logprobs_of
from drsow_plugin.models.language_model import ModelRow
from drsow_plugin.records import TokenPair

Row = tuple[list[dict[str, str]], str]
"""The messages of a prompt, and one response."""

LLMBAR = Path(__file__).parents[1] / "tasks" / "llmbar.jsonl"
CANDIDATES = 8
BEST_OF = (2, 4, 8, 16)
BEST_OF_PROMPTS = 4

RUBRIC = """\
You answer requests for a wide range of people. Give the answer that the person asked for, \
in the form they asked for, and make it correct.

Follow these points:
1. Read the whole request first. If it limits the length, the format, the language or the \
number of items, keep to that limit exactly.
2. Prefer facts you are sure of. If something is uncertain, say so in a few words instead of \
inventing a name, a number or a source.
3. For a calculation, work through the steps, then state the result on its own line.
4. For code, give a complete piece that runs, with names that say what they hold.
5. Leave out greetings, praise for the question and remarks about yourself.
6. If the request can be read in two ways, choose the likelier one and mention it briefly.
7. Before you finish, compare the answer with the request once more, and mend what is missing.

Here are a few examples.

Request: Name three rivers in France, separated by commas.
Answer: Loire, Seine, Rhône

Request: Rewrite this sentence in the passive voice: The gardener waters the roses every evening.
Answer: The roses are watered by the gardener every evening.

Request: A train travels 150 kilometres in two and a half hours. What is its average speed?
Answer: Speed is distance divided by time: 150 km / 2.5 h = 60 km/h.
60 km/h

Request: Write a Python function that returns the largest even number of a list, or None.
Answer: def largest_even(numbers):
    return max((n for n in numbers if n % 2 == 0), default=None)

Request: Explain in one sentence why the sky looks blue.
Answer: Air scatters the short blue waves of sunlight far more than the long red ones, so blue \
light reaches the eye from every direction."""


def workload(name: str, pairs: int, seed: int = 0) -> list[Row]:
    """Return the rows of a workload, the same ones each time.

    Args:
        name: ``w1``, ``w2``, ``w3`` or ``bestofN``.
        pairs: How many pairs are drawn for the first three; of ``w3`` a multiple of four is
            used. A larger draw begins with the smaller one of the same seed.
        seed: Of the draw.
    """
    drawn = [json.loads(line) for line in LLMBAR.read_text(encoding="utf-8").splitlines()]
    random.Random(seed).shuffle(drawn)
    if name == "w3":
        if pairs < 4:
            raise ValueError(f"w3 regroups four pairs at a time and needs as many, got {pairs}.")
        return _regrouped(drawn[: pairs // 4 * 4], pairs // 4, CANDIDATES)
    if name.startswith("bestof"):
        return _regrouped(drawn, BEST_OF_PROMPTS, int(name.removeprefix("bestof")))
    system = [{"role": "system", "content": RUBRIC}] if name == "w2" else []
    if name not in ("w1", "w2"):
        raise ValueError(f"no such workload: {name!r}. Valid: w1, w2, w3, bestofN.")
    return [
        ([*system, _user(row)], row[side])
        for row in drawn[:pairs]
        for side in ("chosen", "rejected")
    ]


def _regrouped(drawn: list[dict[str, str]], prompts: int, candidates: int) -> list[Row]:
    """Give the first prompts their own two responses and the next of the others' responses.

    Fewer candidates are a part of more: what is scored only grows with their number.
    """
    others = [row[side] for row in drawn[prompts:] for side in ("chosen", "rejected")]
    rows: list[Row] = []
    for number, row in enumerate(drawn[:prompts]):
        extra = others[number::prompts][: candidates - 2]
        rows += [([_user(row)], text) for text in (row["chosen"], row["rejected"], *extra)]
    return rows


def _user(row: dict[str, str]) -> dict[str, str]:
    return {"role": "user", "content": row["prompt"]}


Tokenize = Callable[[list[ModelRow]], list[Any]]


def tokenised(rows: Iterable[Row], tokenize: Tokenize) -> list[TokenPair]:
    """Return rows as token ids, by :meth:`LanguageModel.tokenize` of one side of a pair."""
    pairs = tokenize(
        [ModelRow(messages, text, f"row {n}") for n, (messages, text) in enumerate(rows)]
    )
    for pair in pairs:
        if isinstance(pair, Exception):
            raise pair
    return pairs


def totals(engine: Engine, pairs: list[TokenPair]) -> list[float]:
    """Return the log-prob of each pair, in nats, in order."""
    found = dict(logprobs_of(engine, pairs))
    return [found[index].total for index in range(len(pairs))]


@dataclass(frozen=True)
class Unique:
    """How many different things there are to compute.

    Attributes:
        backbone: Prefixes that a hidden state is needed of: each is one token through the backbone.
        head: Prefixes at which a response token is predicted: each is one set of logits.
        context: Over the prefixes of ``backbone``, the sum of their lengths: how many keys all
            the queries look at together.
    """

    backbone: int
    head: int
    context: int

    def __add__(self, other: Unique) -> Unique:
        return Unique(
            self.backbone + other.backbone, self.head + other.head, self.context + other.context
        )


def unique(pairs: Iterable[TokenPair]) -> Unique:
    """Count what no causal model can do without, by writing every prefix down.

    Slow and simple on purpose: it shares no code with what it is held against.
    """
    backbone: set[tuple[int, ...]] = set()
    head: set[tuple[int, ...]] = set()
    for pair in pairs:
        if not pair.response_ids:
            continue
        read = pair.prompt_ids + pair.response_ids[:-1]
        for length in range(1, len(read) + 1):
            prefix = read[:length]
            backbone.add(prefix)
            if length >= len(pair.prompt_ids):
                head.add(prefix)
    return Unique(len(backbone), len(head), sum(map(len, backbone)))


def auto_batch_positions(pairs: Iterable[TokenPair], rows: int = 64) -> int:
    """Return the positions lm-eval's ``batch_size=auto`` computes if ``rows`` rows fit.

    It finds its batch size with five forward passes of that many rows as long as the longest,
    then runs the rows, longest first, padded to the longest of each batch.
    """
    lengths = sorted({pair.prompt_ids + pair.response_ids for pair in pairs}, key=len)
    reads = [len(ids) - 1 for ids in reversed(lengths)]
    batches = [reads[start : start + rows] for start in range(0, len(reads), rows)]
    return 5 * rows * reads[0] + sum(len(batch) * batch[0] for batch in batches)

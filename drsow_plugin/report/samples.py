"""What lm-eval logged of our tasks (``--log_samples``) as what a page is made of."""

from __future__ import annotations

import json
import math
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from drsow_plugin.bootstrap import wins
from drsow_plugin.errors import DataError
from drsow_plugin.harness.documents import comparisons, lead
from drsow_plugin.hashing import text_key
from drsow_plugin.quality.logged import Sample, date_of, logged_lines, read_sample, task_of
from drsow_plugin.quality.rows import Pairs
from drsow_plugin.records import NO_DOMAIN
from drsow_plugin.redaction import without_local_paths, without_tokens
from drsow_plugin.report.material import Material, ShownResponse, ShownRow, spelled

NO_REWARD = "no reward"
_UNIT = "characters"


@dataclass
class _Figures:
    """Numbers of the rows that were read so far, one entry a pair unless it is said otherwise."""

    row: array[int] = field(default_factory=lambda: array("q"))
    prompt: array[int] = field(default_factory=lambda: array("Q"))
    margin: array[float] = field(default_factory=lambda: array("d"))
    length: array[int] = field(default_factory=lambda: array("q"))
    group: array[int] = field(default_factory=lambda: array("q"))
    domain: array[int] = field(default_factory=lambda: array("q"))
    better: array[int] = field(default_factory=lambda: array("q"))
    other: array[int] = field(default_factory=lambda: array("q"))
    rewards: array[float] = field(default_factory=lambda: array("d"))  # one a response
    lengths: array[int] = field(default_factory=lambda: array("q"))  # one a response
    groups: dict[str, int] = field(default_factory=dict)
    domains: dict[str, int] = field(default_factory=dict)
    missing: int = 0


def of_samples(files: Sequence[Path], max_rows: int | None, seed: int) -> Material:
    """Read logged samples.

    Args:
        files: Those of one run, one for each task.
        max_rows: Rows that figures are taken of at most, drawn at random; ``None`` for all.
        seed: Of that draw.

    Raises:
        DataError: One cannot be read, or is of a task with other documents.
    """
    total = sum(1 for _ in logged_lines(files))
    if not total:
        raise DataError(f"{files[0]} holds no sample. Run lm-eval with --log_samples.")
    numbers = np.arange(total)
    if max_rows is not None and max_rows < total:
        numbers = np.sort(np.random.default_rng(seed).choice(total, max_rows, replace=False))
    figures, kind = _read(files, set(numbers.tolist())), "pairs"
    first = _shown(files, numbers[:1].tolist())[0]
    if len(first.responses) != 2 or first.responses[0].role != "chosen":
        kind = "candidates"
    pair, facts = _run(files[0])
    arrays = {n: np.array(getattr(figures, n)) for n in Pairs.__dataclass_fields__ if n != "gold"}
    tasks = [_task(file) for file in files]
    return Material(
        name=", ".join(tasks) if len(tasks) < 4 else f"{len(tasks)} tasks",
        kind=kind,
        rows=len(numbers),
        of_rows=total,
        numbers=numbers,
        pairs=Pairs(**arrays, gold=np.ones(len(figures.row), dtype=bool)),
        domain=np.array(figures.domain),
        groups=list(figures.groups),
        domains=[name or NO_DOMAIN for name in figures.domains] if any(figures.domains) else [],
        group_kind="subset" if len(files) == 1 else "task",
        rewards=np.array(figures.rewards),
        lengths=np.array(figures.lengths),
        length_unit=_UNIT,
        failures=Counter({NO_REWARD: figures.missing} if figures.missing else {}),
        left_out=0,
        truncated=int((pair or {}).get("responses_with_truncated_prompt") or 0),
        texts=partial(_shown, files),
        pair=pair,
        fingerprint=(pair or {}).get("fingerprint"),
        facts=facts,
    )


def _samples(files: Sequence[Path], numbers: set[int]) -> Iterator[tuple[int, Path, Sample]]:
    """Yield the rows of some numbers, counted over all files, each with its file."""
    for number, (file, line, text) in enumerate(logged_lines(files)):
        if number in numbers:
            yield number, file, _checked(read_sample(file, line, text), f"{file.name}, line {line}")


def _checked(sample: Sample, where: str) -> Sample:
    if any(map(math.isinf, sample.rewards)):
        raise DataError(f"{where}: a reward is infinite. Run the evaluation again.")
    if not comparisons(sample.doc):
        raise DataError(f"{where}: all responses are as good, so that none is the better one.")
    return sample


def _read(files: Sequence[Path], numbers: set[int]) -> _Figures:
    figures = _Figures()
    for number, file, sample in _samples(files, numbers):
        _add(figures, number, sample, _task(file) if len(files) > 1 else "")
    return figures


def _add(figures: _Figures, number: int, sample: Sample, task: str) -> None:
    doc, rewards = sample.doc, sample.rewards
    lengths = [len(text) for text in sample.responses]
    prompt = text_key(json.dumps(list(sample.prompt), sort_keys=True, default=str))
    part = task or ", ".join(sample.subsets)
    group = figures.groups.setdefault(part, len(figures.groups))
    domain = figures.domains.setdefault(str(doc.get("domain") or ""), len(figures.domains))
    places = {}
    for place, (reward, length) in enumerate(zip(rewards, lengths, strict=True)):
        if not math.isnan(reward):
            places[place] = len(figures.rewards)
            figures.rewards.append(reward)
            figures.lengths.append(length)
    figures.missing += len(places) < len(rewards)
    for better, other in comparisons(doc):
        if better in places and other in places:
            figures.row.append(number)
            figures.prompt.append(prompt)
            figures.margin.append(rewards[better] - rewards[other])
            figures.length.append(lengths[better] - lengths[other])
            figures.group.append(group)
            figures.domain.append(domain)
            figures.better.append(places[better])
            figures.other.append(places[other])


def _shown(
    files: Sequence[Path], numbers: Sequence[int], known: str | None = None
) -> list[ShownRow]:
    """Return rows with their texts, by their numbers."""
    return [
        _row(number, sample, _task(file), known, alone=len(files) == 1)
        for number, file, sample in _samples(files, set(map(int, numbers)))
    ]


def _row(number: int, sample: Sample, task: str, known: str | None, *, alone: bool) -> ShownRow:
    doc, rewards, texts, best = sample.doc, sample.rewards, sample.responses, sample.best
    others = [place for place in range(len(texts)) if place not in best]
    margin = lead(rewards, best) if others else math.nan
    is_scored = not math.isnan(margin)
    chosen, rejected = best[0], others[0] if others else None
    if is_scored:
        chosen = max(best, key=lambda place: rewards[place])
        rejected = max(others, key=lambda place: rewards[place])
    roles = ["chosen", "rejected"] if "chosen" in doc else []
    ratings = doc.get("ratings") or [None] * len(texts)
    if not roles:
        roles = [f"response {at + 1}{', correct' * (at in best)}" for at in range(len(texts))]
    length = len(texts[chosen]) - len(texts[rejected]) if rejected is not None else None
    return ShownRow(
        id=f"{task}-{number if sample.number is None else sample.number}",
        number=number,
        prompt=sample.prompt,
        responses=[
            ShownResponse(
                role,
                text,
                reward=None if math.isnan(reward) else reward,
                length=len(text),
                rating=rating,
            )
            for role, text, reward, rating in zip(roles, texts, rewards, ratings, strict=True)
        ],
        chosen=chosen,
        rejected=rejected,
        margin=margin if is_scored else None,
        right=float(wins(np.array(margin))) if is_scored else None,
        length=length,
        domain=str(doc.get("domain") or ""),
        group=", ".join(sample.subsets) if alone else task,
        status="ok" if not any(map(math.isnan, rewards)) else NO_REWARD,
        known_domain=doc.get(known) if known else None,
    )


def _task(file: Path) -> str:
    return task_of(file) or file.stem


def _run(file: Path) -> tuple[Mapping[str, Any] | None, dict[str, str]]:
    """Return the pair of models and what else lm-eval wrote of a run, beside its samples."""
    date = date_of(file) or ""
    results = file.with_name(f"results_{date}.json")
    try:
        loaded = json.loads(results.read_text(encoding="utf-8"))
        config = dict(loaded["config"])
    except (OSError, ValueError, KeyError, TypeError):
        return None, {"the run": f"not known: there is no {results.name} beside the samples"}
    config = without_local_paths(without_tokens(config))
    facts = {"run": date, "model": str(config.get("model") or "")}
    arguments = config.get("model_args")
    facts["model arguments"] = spelled(arguments) if isinstance(arguments, dict) else ""
    facts["lm-eval"] = str(loaded.get("lm_eval_version") or "")
    if config.get("limit"):
        facts["limit"] = f"{config['limit']:g}"
    pair = config.get("drsow")
    is_pair = isinstance(pair, dict) and all(isinstance(pair.get(s), dict) for s in _SIDES)
    return (pair if is_pair else None), {name: said for name, said in facts.items() if said}


_SIDES = ("strong", "weak")

"""The passes: each model over the rows once, whatever number of pairs it is part of."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from drsow_plugin.errors import DataError, DrSoWError, Interrupted, StorageError
from drsow_plugin.models.language_model import LanguageModel
from drsow_plugin.models.row import ModelRow
from drsow_plugin.progress import RowProgress, told
from drsow_plugin.records import BAD_ROW, Problem, Reduction
from drsow_plugin.study.opening import Opened, open_all, tell_failed, too_few
from drsow_plugin.study.options import Setup, StudyModel
from drsow_plugin.study.rows import StudyData, StudyRow
from drsow_plugin.study.store import LogProbStore, Scored, open_store

SHARD_ROWS = 128
"""Rows that are scored, and kept, together."""
SLOW_ROWS = 16
"""The same on a CPU, where they take as long."""


@dataclass(frozen=True)
class Passed:
    """A model whose log-probs are all there.

    Attributes:
        asked: What was asked for.
        key: What its log-probs are kept under.
        described: What identifies it, as plain values.
        weights: The number of its weights: models of one number share them.
        memory: Bytes of its weights; ``None`` where that is not known.
        scored: Responses that were scored now; others were kept from before.
        truncated: Responses whose prompt was cut from the left.
    """

    asked: StudyModel
    key: str
    described: Mapping[str, Any]
    weights: int
    memory: int | None
    scored: int
    truncated: int


@dataclass(frozen=True)
class Measured:
    """The log-probs of all models over the rows that all of them can score.

    Attributes:
        models: The models.
        rows: The rows.
        logprobs: In nats, (models, rows, 2): of the chosen and of the rejected response.
        tokens: How many tokens each is the sum over, of the same shape.
        left_out: How many rows are not among these, by the reason; a row may have several.
        failed: Why models are missing, by their names.
    """

    models: tuple[Passed, ...]
    rows: tuple[StudyRow, ...]
    logprobs: np.ndarray
    tokens: np.ndarray
    left_out: Mapping[str, int]
    failed: Mapping[str, str]


def measure(setup: Setup, data: StudyData, cache: Path) -> Measured:
    """Return the log-probs of each model of a study, computed where they are not kept.

    Args:
        setup: What was asked for.
        data: The rows.
        cache: The cache folder.

    Raises:
        ConfigError: Two models are the same, or fewer than two can be used.
        DataError: The models have too few rows in common.
        Interrupted: Ctrl-C; what is finished is kept.
    """
    failed: dict[str, str] = {}
    opened = open_all(setup, failed)
    common, left_out = _common_rows(opened, data, setup.study.min_common, cache)
    numbers = {weights: n for n, weights in enumerate(dict.fromkeys(o.weights for o in opened))}
    passed: dict[str, tuple[Passed, dict[str, Scored]]] = {}
    order = [one.asked.name for one in opened]
    opened.sort(key=lambda one: numbers[one.weights])  # those that share weights are neighbours
    while opened:
        one = opened.pop(0)
        name = one.asked.name
        try:
            found, scored = _pass(one, common, cache)
        except StorageError:
            raise  # no model is to blame, and the next one has no more room
        except DrSoWError as error:
            tell_failed(failed, name, error)
        except KeyboardInterrupt:
            raise Interrupted(
                f"{len(passed)} of {len(order)} models are finished, and what {name} has scored is "
                "kept; the same study goes on from there"
            ) from None
        else:
            cut = sum(value.truncated > 0 for value in found.values())
            about = (one.key, one.described, numbers[one.weights], one.memory, scored, cut)
            passed[name] = Passed(one.asked, *about), found
        del one
        gc.collect()  # weights that no later model shares go before others come
    if len(passed) < 2:
        raise too_few(failed)
    kept = [passed[name] for name in order if name in passed]
    return _measured(kept, common, left_out, failed, setup.scoring.reduction)


def _common_rows(
    opened: Sequence[Opened], data: StudyData, minimum: float, cache: Path
) -> tuple[list[StudyRow], Counter[str]]:
    """Return the rows that every model can read, and how many others there are, by reason.

    Raises:
        DataError: They are too few.
    """
    left_out = Counter(problem.kind for problem in data.bad)
    out: set[int] = set()
    for one in opened:
        with open_store(_folder(cache, one.key)) as store:
            known = {key: value.problem for key, value in store.found.items()}
        for start in range(0, len(data.rows), SHARD_ROWS):
            shard = data.rows[start : start + SHARD_ROWS]
            with told(f"{one.asked.name} reads row {start:,} and those after it"):
                known |= _problems(one.model, _texts(shard, known))
            for index, row in enumerate(shard, start):
                kinds = {problem.kind for key in row.keys if (problem := known[key])}
                left_out.update(f"{one.asked.name}: {kind}" for kind in kinds)
                out |= {index} if kinds else set()
    common = [row for index, row in enumerate(data.rows) if index not in out]
    _check_enough(common, data, left_out, minimum)
    return common, left_out


def _problems(
    model: LanguageModel, texts: Mapping[str, ModelRow]
) -> Iterator[tuple[str, Problem | None]]:
    """Yield by its key why a response cannot be scored, or ``None``."""
    for key, pair in zip(texts, model.tokenize(list(texts.values())), strict=True):
        if isinstance(pair, DataError):
            yield key, Problem.of(pair, texts[key].where)
        else:
            yield key, pair.problem


def _check_enough(
    common: Sequence[StudyRow], data: StudyData, left_out: Mapping[str, int], minimum: float
) -> None:
    if len(common) >= max(2, minimum * len(data.rows)):
        return
    reasons = ", ".join(f"{reason} {count}" for reason, count in left_out.items())
    raise DataError(
        f"Only {len(common)} of {len(data.rows)} rows of {data.name} can be scored by every model "
        f"({reasons or 'at least 2 are needed'}). Leave a model out, give more rows, set "
        "overflow=truncate_prompt, or a lower min_common."
    )


def _pass(one: Opened, rows: Sequence[StudyRow], cache: Path) -> tuple[dict[str, Scored], int]:
    """Return the log-probs of a model, and how many of them had to be computed."""
    with open_store(_folder(cache, one.key)) as store:
        store.describe(one.asked.options)
        wanted = {key for row in rows for key in row.keys}
        missing = [row for row in rows if not store.found.keys() >= set(row.keys)]
        scored = 0
        if missing:
            store.check_writable()
            size = SLOW_ROWS if one.model.device == "cpu" else SHARD_ROWS
            progress = RowProgress(len(missing), f"drsow: {one.asked.name}")
            try:
                for start in range(0, len(missing), size):
                    shard = missing[start : start + size]
                    scored += _score(one.model, _texts(shard, store.found), store, progress)
                    progress.finish(len(shard))
            finally:
                progress.close()
        return {key: store.found[key] for key in wanted}, scored


def _score(
    model: LanguageModel, texts: Mapping[str, ModelRow], store: LogProbStore, progress: RowProgress
) -> int:
    """Score some responses and keep what comes of it; return how many."""
    keys, scored = list(texts), {}
    pairs = dict(zip(keys, model.tokenize(list(texts.values())), strict=True))
    fine = []
    for key, pair in pairs.items():
        if isinstance(pair, DataError):
            scored[key] = Scored(None, 0, 0, Problem.of(pair, texts[key].where))
        elif pair.problem is not None:
            scored[key] = Scored(None, len(pair.response_ids), pair.truncated, pair.problem)
        else:
            fine.append((key, pair))
    advance = progress.within(len(texts) // 2)
    total = sum(len(pair) for _, pair in fine)
    with closing(model.iter_logprobs([pair for _, pair in fine])) as logprobs:
        for number, logprob in logprobs:
            key, pair = fine[number]
            value = None if logprob.problem else logprob.total
            scored[key] = Scored(value, logprob.num_tokens, pair.truncated, logprob.problem)
            advance(len(pair), total)
    model.check_files()
    store.save(scored)
    return len(fine)


def _texts(rows: Iterable[StudyRow], known: Mapping[str, object]) -> dict[str, ModelRow]:
    """Return the responses of rows of which nothing is known yet, each once, by their keys."""
    return {
        key: ModelRow([*row.prompt], text, "this row")
        for row in rows
        for key, text in zip(row.keys, row.responses, strict=True)
        if key not in known
    }


def _folder(cache: Path, key: str) -> Path:
    return cache / "logprobs" / key[:32]


def _measured(
    passed: Sequence[tuple[Passed, Mapping[str, Scored]]],
    rows: Sequence[StudyRow],
    left_out: Counter[str],
    failed: Mapping[str, str],
    reduction: Reduction,
) -> Measured:
    """Return the log-probs as arrays, without the rows that a model failed at while it scored."""
    kept = []
    for row in rows:
        reasons = {
            f"{model.asked.name}: {kind}"
            for model, found in passed
            for key in row.keys
            if (kind := _why_not(found[key], reduction))
        }
        left_out.update(reasons)
        if not reasons:
            kept.append(row)
    if len(kept) < 2:
        raise DataError(f"Fewer than two rows could be scored by every model: {dict(left_out)}.")
    cells = [[[found[key] for key in row.keys] for row in kept] for _, found in passed]
    return Measured(
        models=tuple(model for model, _ in passed),
        rows=tuple(kept),
        logprobs=np.array([[[c.logprob for c in row] for row in of] for of in cells], dtype=float),
        tokens=np.array([[[c.tokens for c in row] for row in of] for of in cells], dtype=float),
        left_out=dict(left_out),
        failed=failed,
    )


def _why_not(scored: Scored, reduction: Reduction) -> str | None:
    """Return the kind of problem by which a response has no log-prob, or no mean of one."""
    if scored.problem is not None:
        return scored.problem.kind
    return BAD_ROW if reduction == "mean" and not scored.tokens else None

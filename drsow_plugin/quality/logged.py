"""Samples that lm-eval logged (``--log_samples``) of preference tasks, with any model."""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drsow_plugin.data.broken import open_text, suffix_of
from drsow_plugin.errors import DataError
from drsow_plugin.harness.documents import best_of, responses_of
from drsow_plugin.prompts import as_messages
from drsow_plugin.records import Message

_NAME = re.compile(r"samples_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT[^/]*)\.jsonl")


@dataclass(frozen=True)
class Sample:
    """What was logged of one document.

    Attributes:
        doc: The document; see :mod:`drsow_plugin.harness.documents`.
        number: Its number in its task, where that was logged.
        prompt: The messages.
        responses: The texts.
        rewards: Log-likelihood, or reward, of each, nats; NaN where there is none.
        best: Which of them are the best.
        subsets: The parts of the data that it is of; else its task.
    """

    doc: Mapping[str, Any]
    number: object
    prompt: Sequence[Message]
    responses: Sequence[str]
    rewards: Sequence[float]
    best: Sequence[int]
    subsets: Sequence[str]


def task_of(file: Path) -> str | None:
    """Return the task that a file of samples is of, by its name."""
    match = _NAME.fullmatch(file.name)
    return match["task"] if match else None


def date_of(file: Path) -> str | None:
    """Return when a file of samples was written, by its name."""
    match = _NAME.fullmatch(file.name)
    return match["date"] if match else None


def logged_files(path: Path) -> list[Path]:
    """Return the samples that a path names: a file, or of a folder the newest of each task.

    Raises:
        DataError: Those are of several models, or there are results alone.
    """
    if path.is_file():
        return [path] if _is_logged(path) else []
    found: dict[str, tuple[str, Path]] = {}
    for file in sorted(path.rglob("samples_*.jsonl")) if path.is_dir() else ():
        if match := _NAME.fullmatch(file.name):
            own = match["date"], file
            found[match["task"]] = max(own, found.get(match["task"], own))
    files = [file for _, file in found.values()]
    if not files and _has_results_alone(path):
        raise DataError(
            f"{path} has results of lm-eval and no samples. Run it again with --log_samples."
        )
    models = {model: file for file in files if (model := _model_of(file))}
    if len(models) > 1:
        named = " and ".join(sorted(f"{file.parent} ({file.name})" for file in models.values()))
        raise DataError(
            f"{path}: the newest samples of its tasks are of different models, or of one with "
            f"different arguments: {named}. Name the folder of one, or a file."
        )
    return files


def _has_results_alone(path: Path) -> bool:
    """Return whether a folder has files, each with the results of a run of lm-eval."""
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else []
    return bool(files) and all(file.match("results_*.json") for file in files)


def _model_of(file: Path) -> str | None:
    """Return the model and its arguments of a run, where its results are beside its samples."""
    try:
        results = file.with_name(f"results_{date_of(file)}.json")
        config = json.loads(results.read_text(encoding="utf-8"))["config"]
        return json.dumps([config["model"], config.get("model_args")], sort_keys=True)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def logged_lines(files: Sequence[Path]) -> Iterator[tuple[Path, int, bytes]]:
    """Yield the lines of files that are not blank, each with its file and its number there.

    Raises:
        DataError: A file cannot be read.
    """
    for file in files:
        try:
            with open_text(file) as lines:
                for line, text in enumerate(lines, 1):
                    if text.strip():
                        yield file, line, text
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{file} cannot be read: {' '.join(str(error).split())}") from error


def read_sample(file: Path, line: int, text: bytes) -> Sample:
    """Return what lm-eval logged of a document of a preference task.

    Raises:
        DataError: It is no such thing.
    """
    where = f"{file}, line {line}"
    try:
        sample = json.loads(text)
        doc = sample["doc"]
        responses = responses_of(doc)
        answers = sample.get("filtered_resps") or sample["resps"]
        rewards = [_value(answer) for answer in answers]
        best = best_of(doc)
        prompt = as_messages(doc["prompt"], where)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise DataError(
            f"{where}: no sample of a preference task of lm-eval ({type(error).__name__}: "
            f"{error}). Give labelled rows, or what 'drsow eval … --log_samples' wrote."
        ) from error
    if len(rewards) != len(responses):
        raise DataError(f"{where}: {len(responses)} responses and {len(rewards)} answers.")
    subset = doc.get("subset")
    named = [subset] if isinstance(subset, str) else [str(name) for name in subset or []]
    task = task_of(file)
    own = named or ([task] if task else [])
    return Sample(doc, sample.get("doc_id"), prompt, responses, rewards, best, own)


def _value(answer: Any) -> float:
    """Return the log-likelihood, or reward, of an answer: the first of a list, nested or not."""
    while isinstance(answer, list):
        answer = answer[0]
    return math.nan if answer is None else float(answer)


def _is_logged(path: Path) -> bool:
    """Tell whether a file holds samples of lm-eval, by its name or its first line."""
    if _NAME.fullmatch(path.name):
        return True
    if suffix_of(path) != ".jsonl":
        return False
    try:
        with open_text(path) as file:
            first = next((line for line in file if line.strip()), b"")
        row = json.loads(first)
    except (OSError, EOFError, zlib.error, ValueError):
        return False
    return isinstance(row, Mapping) and {"doc", "filtered_resps"} <= set(row)

"""What is exported of a run of lm-eval, and what it is called where others see it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal

from drsow_plugin.errors import ConfigError
from drsow_plugin.harness.results import Metric, Run, TaskResult

Relationship = Literal["first_party", "third_party", "collaborative", "other"]

_MODEL_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


@dataclass(frozen=True)
class Evaluator:
    """Who ran an evaluation, of what.

    Attributes:
        model_id: What the model, or the pair, is called in the store: ``organization/name``.
        organization: Who ran it.
        relationship: What they are to those who made the model.
    """

    model_id: str
    organization: str
    relationship: Relationship


@dataclass(frozen=True)
class Benchmark:
    """What a run says of one benchmark: a group with its tasks, or a task of no group.

    Attributes:
        name: The group or the task.
        results: The group first, then its tasks; of a task itself alone.
    """

    name: str
    results: tuple[TaskResult, ...]

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What ``--metadata`` said of the data, and the hash of the rows of the first task."""
        configs = (task.config.get("metadata") for task in self.results)
        return next(filter(None, configs), {})

    @property
    def score(self) -> Metric | None:
        """The number that it is known by; ``None`` where rows are missing for that."""
        whole = self.results[0]
        names = {metric.name: metric for metric in whole.metrics}
        name = "score" if "score" in (*names, *whole.without) else "acc"
        return names.get(name)


def benchmarks_of(run: Run) -> list[Benchmark]:
    """Return the benchmarks of a run; a task that is in a group is told with that."""
    inside = {task for tasks in run.groups.values() for task in tasks}
    names = [name for name in run.tasks if name not in inside]
    return [
        Benchmark(name, tuple(run.tasks[n] for n in _members(run, name) if n in run.tasks))
        for name in names
    ]


def _members(run: Run, name: str) -> Iterator[str]:
    yield name
    for task in run.groups.get(name, ()):
        yield from _members(run, task)


def model_name(run: Run) -> str:
    """Return what a run's model is called by itself: a Hub id, a folder, or two of them."""
    sides = [run.described.get(side) for side in ("strong", "weak")]
    if all(isinstance(side, Mapping) for side in sides):
        return " over ".join(public_name(side) for side in sides if side)
    own = run.described.get("source") or run.model_args.get("pretrained") or run.model
    return public_name({**run.described, "source": own})


def public_name(model: Mapping[str, Any]) -> str:
    """Return the name of a model without the folders that it is in on somebody's machine."""
    source = str(model.get("source"))
    is_local = "sha256" in model or not _MODEL_ID.fullmatch(source) or Path(source).exists()
    return PurePath(source).name if is_local else source


def model_details(run: Run) -> dict[str, str]:
    """Return what decides the numbers of a run, as texts; no paths, no addresses, no keys."""
    described, details = run.described, {"lm_eval_model": run.model}
    for side in ("strong", "weak"):
        if isinstance(of := described.get(side), Mapping):
            details |= {f"{side}_{name}": text for name, text in _facts(of)}
    if "source" in described:
        details |= dict(_facts(described))
    for name in ("fingerprint", "scoring", "versions", "routing"):
        if described.get(name):
            details[name] = _text(described[name])
    for name in ("responses_without_reward", "responses_with_truncated_prompt"):
        if described.get(name):
            details[name] = _text(described[name])
    if not described and (dtype := run.model_args.get("dtype")):
        details["dtype"] = str(dtype)
    return details


_FACTS = (
    *("revision", "architecture", "dtype", "max_length", "template_sha256", "tokenizer_sha256"),
    *("quantization", "adapter_revision", "add_special_tokens", "overflow"),
)


def _facts(model: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "model", public_name(model)
    for name in _FACTS:
        if model.get(name) is not None:
            yield name, _text(model[name])
    hashes = model.get("sha256") or {}
    weights = {name: of for name, of in hashes.items() if PurePath(name).suffix != ".json"}
    if weights:
        yield "files_sha256", _text(weights)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def evaluator_of(
    run: Run, model_id: str | None, organization: str, relationship: Relationship
) -> Evaluator:
    """Return who ran an evaluation of what.

    Raises:
        ConfigError: The model has no name that others could know, or the name is none.
    """
    if model_id is None and not isinstance(run.described.get("strong"), Mapping):
        named = model_name(run)
        model_id = named if _MODEL_ID.fullmatch(named) else None
    if model_id is None:
        raise ConfigError(
            f"{run.path}: {model_name(run)} has no name that others know it by. Give one with "
            "--model-id ORGANIZATION/NAME."
        )
    if not _MODEL_ID.fullmatch(model_id):
        raise ConfigError(f"--model-id is ORGANIZATION/NAME, got {model_id!r}.")
    if not organization.strip():
        raise ConfigError("--organization says who ran the evaluation, got nothing.")
    return Evaluator(model_id, organization.strip(), relationship)


def left_out(benchmark: str, names: Sequence[str]) -> str:
    """Return in words what of a benchmark has no value."""
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"{benchmark}: {shown} (of rows that are not all there, or not a number)"

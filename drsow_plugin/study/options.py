"""The models of a study and how it is made, as frozen and checked configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from drsow_plugin.annotate.options import LABEL_OPTIONS, LabelConfig
from drsow_plugin.config.model import SIDE_OPTIONS, ModelConfig, check_servers, parse_model
from drsow_plugin.config.options import given_options, options_of, parse_options
from drsow_plugin.config.pair import PairConfig, check_rendered
from drsow_plugin.config.parse import parse_number, parse_probability, parse_whole
from drsow_plugin.errors import ConfigError, unknown_name
from drsow_plugin.option import Values, documented, option
from drsow_plugin.printable import printable
from drsow_plugin.records import Batching, Scoring
from drsow_plugin.study.values import parse_size, read_scores

_NAME = re.compile(r"[^\s=,:|][^=,|]{0,79}")
COLUMNS = ("prompt_column", "chosen_column", "rejected_column", "label_column", "group_column")
"""The options of labelling that say where a study's rows are."""


@documented
@dataclass(frozen=True)
class StudyConfig:
    """How models are compared; nothing here changes a log-prob."""

    scores: str | None = option(
        None,
        "A CSV file with a column `model` and one of numbers for each benchmark; more is better.",
        "Each such column is a gap that is held against accuracy. In a file of models and in "
        "Python a model has `scores` of its own, by name.",
    )
    memory: int | None = option(
        None,
        "Memory that a pair's weights may take, such as `24GB`, to be recommended.",
        unset="no limit",
        values=Values(parse_size, "size", "int | str"),
    )
    max_cost: float | None = option(
        None,
        "What a pair may cost to be recommended: the sum of its models' `cost`, in their unit.",
        unset="no limit",
        values=Values(parse_number, "number", "float"),
    )
    resamples: int = option(1000, "Resamples of the bootstrap, of prompts and of models.")
    folds: int = option(10, "Parts of the prompts for cross-validation.")
    min_common: float = option(
        0.5,
        "Share of the readable rows that all models have to score; with fewer the study stops.",
        values=Values(parse_probability, "0 to 1", "float"),
    )
    seed: int = option(
        0,
        "Changes the resamples and the parts.",
        values=Values(parse_whole, "whole number", "int"),
    )


STUDY_OPTIONS = options_of(StudyConfig)
_SCORING = tuple(name for name in options_of(Scoring) if name != "refine")
_BATCHES = ("batch_tokens", "batch_size")
OF_STUDY = frozenset((*SIDE_OPTIONS, *_SCORING, *_BATCHES, *COLUMNS, *STUDY_OPTIONS))
"""The options of a study beside its models; those of models hold for each that has no other."""

_OF_MODEL = frozenset(("source", "scores", "memory", "cost", *SIDE_OPTIONS))


@dataclass(frozen=True)
class StudyModel:
    """One model of a study.

    Attributes:
        name: What it is called in results.
        config: The model.
        scores: Benchmark scores by name, higher is better.
        memory: Bytes of its weights, where that was said.
        cost: What a use of it costs, in any unit, where that was said.
    """

    name: str
    config: ModelConfig
    scores: Mapping[str, float] = field(default_factory=dict)
    memory: int | None = None
    cost: float | None = None

    @property
    def options(self) -> dict[str, Any]:
        """What was asked for it, with its source; no defaults."""
        return {"source": self.config.source, **given_options(self.config)}

    @property
    def key(self) -> str:
        """The name, as the parts of a network may be called."""
        return self.name.replace(".", "_")


@dataclass(frozen=True)
class Setup:
    """All that was asked for.

    Attributes:
        models: The models, in order.
        study: How they are compared.
        scoring: The policies on what is scored.
        batching: How the work is batched.
        columns: Where the rows are.
    """

    models: tuple[StudyModel, ...]
    study: StudyConfig
    scoring: Scoring
    batching: Batching
    columns: LabelConfig


def parse_study(models: Mapping[str, Any], options: Mapping[str, Any]) -> Setup:
    """Return the checked configuration of a study.

    Args:
        models: By name a source, or a mapping with ``source``, options of a model, ``scores``,
            ``memory`` and ``cost``.
        options: Those in ``OF_STUDY``; values may be strings.

    Raises:
        ConfigError: A name is unknown, a value is wrong, there are fewer than two models, or a
            score has no value for one of them.
    """
    for name in options:
        if name not in OF_STUDY:
            raise ConfigError(unknown_name("option", name, OF_STUDY))
    if not isinstance(models, Mapping) or len(models) < 2:
        raise ConfigError(
            "A study compares at least two models, by name, such as: --model dpo=org/model-dpo "
            "--model sft=org/model-sft."
        )
    own = {name: value for name, value in options.items() if value is not None}
    study = StudyConfig(**parse_options(StudyConfig, own))
    if study.folds < 2 or study.resamples < 100:
        raise ConfigError(
            f"folds is at least 2 and resamples at least 100, got {study.folds} and "
            f"{study.resamples}."
        )
    scoring = Scoring(**parse_options(Scoring, own))
    batches = parse_options(PairConfig, {n: own[n] for n in _BATCHES if n in own})
    shared = {name: own[name] for name in SIDE_OPTIONS if name in own}
    table = {} if study.scores is None else read_scores(study.scores)
    parsed = [_model(name, model, shared, table) for name, model in models.items()]
    _check_scores(parsed)
    _check_apart(parsed)
    check_servers(own, [model.config for model in parsed])
    for model in parsed:
        check_rendered(model.config, scoring)
    return Setup(
        models=tuple(parsed),
        study=study,
        scoring=scoring,
        batching=Batching(batches.get("batch_tokens"), batches.get("batch_size")),
        columns=LabelConfig(
            kind="pairs",
            **parse_options(LabelConfig, {n: own[n] for n in COLUMNS if n in own}),
        ),
    )


assert set(COLUMNS) <= set(LABEL_OPTIONS)


def _model(
    name: object,
    model: Any,
    shared: Mapping[str, Any],
    table: Mapping[str, Mapping[str, float]],
) -> StudyModel:
    if not isinstance(name, str) or not _NAME.fullmatch(name) or printable(name) != name:
        raise ConfigError(
            f"The name of a model is a text of at most 80 characters without '=', ',' and '|', "
            f"got {name!r:.100}."
        )
    given = dict(model) if isinstance(model, Mapping) else {"source": model}
    for key in given:
        if key not in _OF_MODEL:
            raise ConfigError(f"model {name}: {unknown_name('option', str(key), _OF_MODEL)}")
    named = {f"{name}_{key}": given[key] for key in SIDE_OPTIONS if key in given}
    scores = given.get("scores") or {}
    if not isinstance(scores, Mapping):
        raise ConfigError(f"model {name}: scores is a mapping of names to numbers, got {scores!r}.")
    cost = given.get("cost")
    return StudyModel(
        name=name,
        config=parse_model(name, given.get("source"), {**shared, **named}),
        scores={
            **table.get(name, {}),
            **{str(k): parse_number(f"model {name}, score {k}", v) for k, v in scores.items()},
        },
        memory=parse_size(f"model {name}, memory", given.get("memory")),
        cost=None if cost is None else parse_number(f"model {name}, cost", cost),
    )


def _check_apart(models: Sequence[StudyModel]) -> None:
    """Check that no two models are one: here by what was asked for, later by what was found."""
    keys: dict[str, str] = {}
    configs: dict[ModelConfig, str] = {}
    for model in models:
        for other in (keys.get(model.key), configs.get(model.config)):
            if other is not None:
                raise same_twice(other, model.name)
        keys[model.key] = configs[model.config] = model.name


def same_twice(name: str, other: str) -> ConfigError:
    """Return what says that two models of a study are one."""
    return ConfigError(
        f"{name} and {other} are the same model with the same options (or the same name but for a "
        "dot), so every reward of theirs would be 0. Leave one of them out."
    )


def _check_scores(models: Sequence[StudyModel]) -> None:
    """Check that each score has a value for each model."""
    columns = dict.fromkeys(name for model in models for name in model.scores)
    for model in models:
        missing = [name for name in columns if name not in model.scores]
        if missing:
            raise ConfigError(
                f"The score {missing[0]!r} has no value for the model {model.name!r}. Give one for "
                "each model of the study, or leave that score out."
            )

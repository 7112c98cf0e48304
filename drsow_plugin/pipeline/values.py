"""A recipe: what is sampled, labelled, trained and measured, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LABELS = ("given", "random", "longer")
OF_DATA = ("data_split", "data_name", "data_revision")
OF_PAIRS = ("pairs", "limit", *OF_DATA)
"""Of the section ``evaluate``: which pairs are read; the other options are about answers."""

HUMAN = "human"
"""The arm that is trained on pairs of a file, with their own labels."""


@dataclass(frozen=True)
class Recipe:
    """A checked recipe; sections hold options as their commands spell them.

    Attributes:
        name: Of the file.
        policy: The options of the model that is tuned, its source as ``policy``.
        prompts: ``data``, ``held_out`` and how they are read.
        generate: Of ``drsow generate``.
        annotate: Of ``drsow annotate``.
        check: Of ``drsow check``; ``None`` for no check.
        publish: Of ``drsow publish``; ``None`` where nothing is published.
        tune: Of ``drsow tune``; ``None`` with ``grpo``.
        grpo: Of ``drsow grpo``; ``None`` with ``tune``.
        labels: The arms: which labels are trained on.
        human: A file of pairs whose own labels are trained on, too; ``None`` for none.
        seeds: Each arm is trained once with each.
        rounds: With 2, the tuned model over its start labels what the tuned model samples.
        judge: Of ``drsow tune --method reward`` and its ``pairs``, or a ``model``; ``None`` for
            no judge.
        evaluate: ``pairs`` with labels of people, and how held-out prompts are answered; ``None``
            for no evaluation.
    """

    name: str
    policy: Mapping[str, Any]
    prompts: Mapping[str, Any]
    generate: Mapping[str, Any] = field(default_factory=dict)
    annotate: Mapping[str, Any] = field(default_factory=dict)
    check: Mapping[str, Any] | None = None
    publish: Mapping[str, Any] | None = None
    tune: Mapping[str, Any] | None = None
    grpo: Mapping[str, Any] | None = None
    labels: tuple[str, ...] = LABELS[:1]
    human: Mapping[str, Any] | None = None
    seeds: tuple[int, ...] = (0,)
    rounds: int = 1
    judge: Mapping[str, Any] | None = None
    evaluate: Mapping[str, Any] | None = None

    @property
    def arms(self) -> tuple[str, ...]:
        """What the policy is trained on, one after the other."""
        return (*self.labels, HUMAN) if self.human is not None else self.labels

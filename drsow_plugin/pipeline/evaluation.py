"""What a policy is measured with and by: options, and figures answer by answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from drsow_plugin.config.model import SIDE_OPTIONS, ModelConfig, parse_model
from drsow_plugin.config.pair import OPTIONS as PAIR_OPTIONS
from drsow_plugin.config.pair import PairConfig, check_rendered, parse_pair
from drsow_plugin.config.reward_model import NAMES, parse_reward_model
from drsow_plugin.errors import ConfigError, DataError, unknown_name
from drsow_plugin.printable import printable
from drsow_plugin.records import Scoring
from drsow_plugin.redaction import without_tokens

POLICY, BEGUN, JUDGE = "policy", "start", "judge"
MODELS = (POLICY, BEGUN)
JUDGE_OPTIONS = NAMES - {"pretrained", "model"}  # the judge is named by its own option
OF_EVALUATION = frozenset(
    (
        *(*PAIR_OPTIONS, *MODELS, JUDGE, "prompt_column"),
        *(f"{model}_{name}" for model in MODELS for name in SIDE_OPTIONS),
        *(f"{JUDGE}_{name}" for name in JUDGE_OPTIONS),
    )
)
"""The options of an evaluation: of the pair, of the policy and its start, and of the judge."""


@dataclass(frozen=True)
class Setup:
    """What answers are measured with; ``None`` where that is left out.

    Attributes:
        pair: The pair whose reward the policy was trained for.
        tuned: The policy, and the model that it began as.
        judge: The options of a trained reward model.
        prompt_column: The column with the prompts.
    """

    pair: PairConfig | None
    tuned: tuple[ModelConfig, ModelConfig] | None
    judge: Mapping[str, Any] | None
    prompt_column: str = "prompt"


@dataclass(frozen=True)
class Answer:
    """What one answer is worth; ``None`` where that was not asked for, or cannot be had.

    Attributes:
        prompt: A hash of the prompt.
        number: Which of the prompt's answers it is, from 0.
        judge: The judge's reward.
        reward: The pair's reward, in nats.
        divergence: log p_policy - log p_start of its text, in nats, the end of the turn where the
            policy ended it. Its mean over answers that the policy sampled at temperature 1
            estimates the Kullback-Leibler divergence of the policy from its start.
        tokens: How many it has; ``None`` where a server did not say.
        characters: Likewise.
        cut: Whether it was cut at ``max_tokens``.
    """

    prompt: str
    number: int
    judge: float | None
    reward: float | None
    divergence: float | None
    tokens: int | None
    characters: int
    cut: bool


@dataclass(frozen=True)
class Preferred:
    """A pair with a label of people, and what the policy's implicit reward says of it.

    Attributes:
        prompt: A hash of the prompt.
        margin: (log p_policy - log p_start)(chosen) - the same of rejected, in nats: DPO's
            implicit reward, but for its factor beta (arXiv 2305.18290, equation 5); ``None`` where
            no policy was named.
        judge: The judge's reward of chosen less that of rejected, where no policy was named.
        longer: Characters of chosen less those of rejected.
    """

    prompt: str
    margin: float | None
    judge: float | None
    longer: int


@dataclass(frozen=True)
class Evaluation:
    """What a policy's answers are worth.

    Attributes:
        options: The options in force, but for defaults.
        answers: One for each response.
        pairs: One for each labelled pair.
        left_out: How many prompts, answers and pairs could not be measured, by reason.
    """

    options: Mapping[str, Any]
    answers: tuple[Answer, ...]
    pairs: tuple[Preferred, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        left = ", ".join(f"{count:,} {why}" for why, count in self.left_out.items())
        text = f"{len(self.answers):,} answers, {len(self.pairs):,} pairs"
        return printable(text + (f"; left out: {left}" if left else ""), lines=True)

    def json(self) -> str:
        """Return all of it as JSON."""
        whole = {"kind": "evaluation", **asdict(self), "options": without_tokens(self.options)}
        return json.dumps(whole, indent=1, allow_nan=False, default=str)  # YAML has dates

    @classmethod
    def read(cls, file: Path) -> Evaluation:
        """Read what :meth:`json` gave.

        Raises:
            DataError: It is something else.
        """
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            if found.pop("kind") != "evaluation":
                raise ValueError("it is of another kind")
            answers = tuple(Answer(**answer) for answer in found.pop("answers"))
            pairs = tuple(Preferred(**pair) for pair in found.pop("pairs"))
            return cls(answers=answers, pairs=pairs, **found)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{file} is not what drsow evaluate wrote: {error}. Make it anew."
            ) from error


def parse_evaluation(options: Mapping[str, Any]) -> Setup:
    """Turn options into a checked configuration.

    Args:
        options: ``strong``, ``weak`` and all others of the pair; ``policy`` and ``start``, each
            with the options of a model behind its name (``policy_adapter``); ``judge`` with those
            of a reward model (``judge_dtype``). Each of the three may be left out.

    Raises:
        ConfigError: A name is unknown, a value is wrong, one of two models is missing, or all are.
    """
    for name in options:
        if name not in OF_EVALUATION:
            raise ConfigError(unknown_name("option", name, OF_EVALUATION))
    given = {name: value for name, value in options.items() if value is not None}
    pair = {name: value for name, value in given.items() if name in PAIR_OPTIONS}
    setup = Setup(
        pair=parse_pair(pair) if pair else None,
        tuned=_tuned(given),
        judge=_of_judge(given),
        prompt_column=str(given.get("prompt_column", "prompt")),
    )
    if setup.pair is None and setup.tuned is None and setup.judge is None:
        raise ConfigError("There is nothing to measure with: name a judge, a pair, or a policy.")
    return setup


def _tuned(given: Mapping[str, Any]) -> tuple[ModelConfig, ModelConfig] | None:
    """Return the policy and its start; what holds for both sides of the pair is not theirs."""
    of_models = (*MODELS, *(f"{model}_{name}" for model in MODELS for name in SIDE_OPTIONS))
    if not given.keys() & set(of_models):
        return None
    if not set(MODELS) <= given.keys():
        raise ConfigError(
            "policy and start go together: the tuned model, and the one that it began as."
        )
    policy, start = (parse_model(model, given[model], given, shared=()) for model in MODELS)
    if policy == start:
        raise ConfigError(
            f"policy and start are the same model in every option ({policy.source!r}), so there is "
            "nothing to measure. Give the tuned model, or its adapter with policy_adapter=…."
        )
    for model in (policy, start):
        check_rendered(model, Scoring())
    return policy, start


def _of_judge(given: Mapping[str, Any]) -> dict[str, Any] | None:
    start = f"{JUDGE}_"
    options = {n.removeprefix(start): v for n, v in given.items() if n.startswith(start)}
    if JUDGE not in given:
        if options:
            raise ConfigError(f"judge_{next(iter(options))} has no effect without judge.")
        return None
    whole = {"pretrained": given[JUDGE], "overflow": "skip", **options}
    parse_reward_model(whole)
    return whole

"""A reward as trainers call it: prompts and completions in, numbers or ``None`` out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from drsow_plugin.errors import DataError
from drsow_plugin.progress import tell
from drsow_plugin.prompts import response_text
from drsow_plugin.records import BAD_ROW, Message, Problem, Prompt, Reward

Score = Callable[[Sequence[Prompt], Sequence[str]], Sequence[Reward]]
Completion = str | Sequence[Message]

_METRICS = ("strong_logprob", "weak_logprob", "strong_tokens")


class RewardFunction:
    """What TRL's ``GRPOTrainer`` and ``RLOOTrainer`` take among their ``reward_funcs``.

    Plainly::

        [reward.reward for reward in drsow.score(prompts, completions, on_error="null")]

    ``trl`` 1.16 calls it with ``prompts``, ``completions``, the columns of the data, and
    ``log_metric``, by which it is told the means of the log-probs and of the tokens, and the share
    of completions without a reward.
    """

    def __init__(self, score: Score, name: str = "drsow_reward") -> None:
        """Remember what scores.

        Args:
            score: Given prompts and responses, returns a reward for each; those that cannot be
                scored have a problem.
            name: What the trainer logs it by.
        """
        self.__name__ = name
        self._score = score
        self._told: set[str] = set()

    def __call__(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[Completion],
        *,
        log_metric: Callable[[str, float], object] | None = None,
        **_columns: object,
    ) -> list[float | None]:
        """Return the reward of each completion in nats, or ``None`` where there is none.

        Args:
            prompts: Texts, each one user turn, or messages.
            completions: Texts, or lists of one assistant message.
            log_metric: Told the name and the value of each metric.
            **_columns: Whatever else the trainer passes, such as the columns of the data; ignored.

        Raises:
            DataError: There is not one prompt for each completion.
            EngineError: A model failed.
        """
        texts: dict[int, str] = {}
        problems: list[Problem] = []
        for index, completion in enumerate(completions):
            try:
                texts[index] = _text(completion, f"completion {index}")
            except DataError as error:
                problems.append(Problem(BAD_ROW, str(error)))
        if len(prompts) != len(completions):
            raise DataError(f"Got {len(prompts)} prompts and {len(completions)} completions.")
        scored = self._score([prompts[index] for index in texts], [*texts.values()])
        found = dict(zip(texts, scored, strict=True))
        problems += [reward.problems[0] for reward in scored if reward.problems]
        self._tell(problems, len(completions))
        if log_metric is not None and completions:
            for name, value in _metrics(self.__name__, scored, len(completions)).items():
                log_metric(name, value)
        return [
            found[index].reward if index in found else None for index in range(len(completions))
        ]

    def _tell(self, problems: Sequence[Problem], count: int) -> None:
        """Say on stderr that completions have no reward; once for each kind of problem."""
        kinds = Counter(problem.kind for problem in problems)
        if not kinds.keys() <= self._told:
            self._told |= kinds.keys()
            said = ", ".join(f"{kind}: {number}" for kind, number in kinds.items())
            tell(f"{len(problems)} of {count} completions have no reward ({said})")


def _text(completion: Any, where: str) -> str:
    if isinstance(completion, str):
        return completion
    if not isinstance(completion, Sequence) or isinstance(completion, bytes):
        raise DataError(f"{where}: a text or a list of messages, got {type(completion).__name__}.")
    return response_text([*completion], where)


def _metrics(name: str, rewards: Sequence[Reward], count: int) -> Mapping[str, float]:
    """Return what is logged, by name."""
    whole = [reward for reward in rewards if reward.reward is not None]
    means = {
        f"{name}/{metric}": fmean(getattr(reward, metric) for reward in whole)
        for metric in _METRICS
        if whole
    }
    return {**means, f"{name}/unscored": 1 - len(whole) / count}

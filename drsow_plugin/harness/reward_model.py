"""A trained reward model as a model of lm-eval: the baseline that a pair has to beat."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import lm_eval.models  # noqa: F401  (else registering a model hides lm-eval's own)
from lm_eval.api.registry import register_model

from drsow_plugin.errors import ConfigError
from drsow_plugin.harness.requests import row_limit
from drsow_plugin.harness.rewarding import RewardingLM
from drsow_plugin.models.reward_model import RewardModel
from drsow_plugin.records import Problem

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance


@register_model("reward")
class RewardModelLM(RewardingLM):
    """A sequence classifier as an lm-eval model: ``--model reward --model_args pretrained=…``."""

    KIND = "trained reward model"

    def __init__(
        self,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
        **options: Any,
    ) -> None:
        """Open a reward model.

        Args:
            batch_size: Maximum of rows in a batch. ``auto``, and 1, which is lm-eval's default,
                leave batching to the token budget (``batch_tokens``); rewards do not depend
                on it.
            max_batch_size: Maximum of rows in a batch with ``auto``.
            device: Where the model goes, as lm-eval gives it: ``cuda…`` gives way to the CPU
                where torch sees no GPU, and to a process's own GPU in a data-parallel launch.
            **options: ``pretrained``, and those of a reward model in ``docs/options.md``.

        Raises:
            ConfigError: An option or the model is wrong.
        """
        super().__init__()
        options.setdefault("batch_size", row_limit(batch_size, max_batch_size))
        options["device"] = self._place(device)
        self.model = RewardModel(**options)
        self._counts: Counter[str] = Counter(responses_scored=0, responses_without_reward=0)

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Return ``(reward, False)`` for each (prompt, response), on the model's own scale.

        A response without a reward gives NaN to the preference tasks, which count it, and is an
        error for any other task.

        Raises:
            ConfigError: A reward is, or may be, missing in a task that cannot take that.
            DataError: A row cannot be scored.
        """
        prompts, responses = self._rows(requests, self.model.config.overflow)
        scored = [
            (None, str(reward)) if isinstance(reward, Problem) else (reward, None)
            for reward in self.model.score(prompts, responses)
        ]
        self._counts["responses_scored"] += len(scored)
        self._counts["responses_without_reward"] += sum(reward is None for reward, _ in scored)
        return self._answers(requests, scored)

    def chat_template(self, chat_template: bool | str = False) -> str:
        """Return the model's template, for lm-eval's records.

        Raises:
            ConfigError: A template was named here.
        """
        if isinstance(chat_template, str):
            raise ConfigError(
                f"--apply_chat_template {chat_template}: give another template with "
                "template=FILE in --model_args."
            )
        return self.model.template

    @property
    def tokenizer_name(self) -> str:
        """A name that changes with anything that changes a reward, for request caches."""
        return f"reward-{self.fingerprint[:16]}"

    @property
    def fingerprint(self) -> str:
        """A hash of everything that changes a reward."""
        return self.model.fingerprint

    def get_model_info(self) -> dict[str, Any]:
        """Return what lm-eval writes into ``results.json``: the model, policies, versions."""
        described = {
            **self.model.describe(),
            "fingerprint": self.fingerprint,
            **self._counts,
            "notes": dict(self.model.notes),
        }
        return {"reward_model": described}

    def _gather_counts(self) -> None:
        mine = Counter(self._counts), Counter(self.model.notes)
        self._counts.clear()
        self.model.notes.clear()
        for counts, notes in self.gather_object(mine) or ():
            self._counts.update(counts)
            self.model.notes.update(notes)

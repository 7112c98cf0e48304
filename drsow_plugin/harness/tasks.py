"""Preference tasks for lm-eval, which ask which of two responses the model prefers.

Any model of lm-eval that gives log-likelihoods can run them: for ``--model drsow`` what is
compared is the reward, for ``--model hf`` the model's own likelihood of the response.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.metrics import mean, mean_stderr
from lm_eval.api.task import ConfigurableTask

from drsow_plugin.harness.context import ChatContext, PreferenceInstance, context_text
from drsow_plugin.harness.metrics import mean_margin, preference_metrics
from drsow_plugin.hashing import text_sha256
from drsow_plugin.prompts import Messages, as_messages, is_prefill, join_system


def metric(
    name: str, aggregation: str | Callable[..., object], *, higher_is_better: bool = True
) -> dict[str, Any]:
    """Return an entry of ``metric_list`` for a value that ``process_results`` gives."""
    return {"metric": name, "aggregation": aggregation, "higher_is_better": higher_is_better}


PREFERENCE_METRICS = [
    metric("acc", "mean"),
    metric("acc_tie_half", "mean"),
    metric("acc_longer", "mean"),
    metric("margin", mean_margin),
    metric("ties", sum, higher_is_better=False),
    metric("overflow", sum, higher_is_better=False),
]


class PreferenceTask(ConfigurableTask):
    """Pairs of a chosen and a rejected response to one prompt."""

    def __init__(self, config: dict[str, Any]) -> None:
        """Complete a task file, which names the task and its data.

        Args:
            config: The task file; ``custom_dataset`` gives rows of ``prompt`` (messages),
                ``chosen`` and ``rejected`` (texts) as the split ``test``.
        """
        config = dict(config)
        config.pop("class", None)
        super().__init__(
            config={
                "test_split": "test",
                "output_type": "loglikelihood",
                "doc_to_text": lambda doc: context_text(doc["prompt"]),
                "doc_to_target": lambda doc: doc["chosen"],
                "process_results": preference_metrics,
                "metric_list": PREFERENCE_METRICS,
                "num_fewshot": 0,
                **config,
            }
        )

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **_kwargs: Any) -> None:
        """Load the data that the task file names, with what the user said by ``--metadata``."""
        metadata = dict(self.config.metadata or {})
        self.dataset = self.config.custom_dataset(**{**metadata, **(dataset_kwargs or {})})
        rows = "\n".join(json.dumps(row) for row in self.dataset["test"])
        self.config.metadata = {**metadata, "data_sha256": text_sha256(rows)}

    def fewshot_context(
        self,
        doc: dict[str, Any],
        num_fewshot: int,
        system_instruction: str | None = None,
        apply_chat_template: bool = False,
        fewshot_as_multiturn: bool = False,
        chat_template: Callable[..., str] | None = None,
        gen_prefix: str | None = None,
    ) -> str:
        """Return the prompt: rendered by the model's template, or as plain text."""
        checked = as_messages(doc["prompt"], "this row")
        messages = Messages(join_system(checked, system_instruction))
        if apply_chat_template and chat_template is not None:
            return chat_template(messages, add_generation_prompt=not is_prefill(messages))
        return ChatContext(context_text(messages), messages)

    def aggregate(self, bootstrap_iters: int | None = None) -> tuple[dict[str, Any], int]:
        """Return the metrics over all pairs, as lm-eval after 0.4.13 asks for them.

        It would draw resamples for the standard error of all but means, which takes minutes for
        RewardBench's many metrics. As in 0.4.13, only means have one.
        """
        metrics, number = super().aggregate(bootstrap_iters=0)
        for scorer in self.scorers if bootstrap_iters else ():
            for name in (m.name for m in scorer.metrics if m.aggregation is mean):
                values = [doc[name] for doc in scorer.reduced_docs.values() if name in doc]
                if len(values) > 1:
                    metrics[f"{name}_stderr,{scorer.name}"] = mean_stderr(values)
        return metrics, number

    def construct_requests(self, doc: dict[str, Any], ctx: str, **kwargs: Any) -> list[Instance]:
        """Return the two requests of a pair, the chosen response first."""
        kwargs.pop("apply_chat_template", None)
        kwargs.pop("chat_template", None)
        if "metadata" not in kwargs:  # lm-eval after 0.4.13 gives doc_id alone
            kwargs["task_name"] = self.config.task
        return [
            PreferenceInstance(
                request_type="loglikelihood",
                doc=doc,
                arguments=(ctx, doc[name]),
                idx=index,
                **kwargs,
            )
            for index, name in enumerate(("chosen", "rejected"))
        ]

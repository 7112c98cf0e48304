"""Preference tasks for lm-eval, which ask which of two or more responses the model prefers.

Any model of lm-eval that gives log-likelihoods can run them: for ``--model drsow`` what is
compared is the reward, for ``--model hf`` the model's own likelihood of the response.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.metrics import mean, mean_stderr
from lm_eval.api.task import ConfigurableTask

from drsow_plugin.harness.context import ChatContext, PreferenceInstance, context_text
from drsow_plugin.harness.documents import Document, best_of, responses_of
from drsow_plugin.harness.intervals import SHARES, interval_name, prompt_key, share_ends
from drsow_plugin.harness.metrics import Metrics, mean_margin, preference_metrics
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
    """Two or more responses to one prompt, of which some are better."""

    def __init__(self, config: dict[str, Any]) -> None:
        """Complete a task file, which names the task and its data.

        Args:
            config: The task file; ``custom_dataset`` gives rows of ``prompt`` (messages) and
                responses, as :mod:`~drsow_plugin.harness.documents` has them, as the split
                ``test``.
        """
        config = dict(config)
        config.pop("class", None)
        metrics = config.pop("metric_list", PREFERENCE_METRICS)
        self._shares = [entry["metric"] for entry in metrics if entry["metric"] in SHARES]
        shares = [metric(interval_name(name), share_ends) for name in self._shares]
        super().__init__(
            config={
                "test_split": "test",
                "output_type": "loglikelihood",
                "doc_to_text": lambda doc: context_text(doc["prompt"]),
                "doc_to_target": lambda doc: responses_of(doc)[best_of(doc)[0]],
                "process_results": preference_metrics,
                "metric_list": [*metrics, *shares],
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

    def process_results(self, doc: Document, results: Sequence[tuple[float, bool]]) -> Metrics:
        """Return what one document counts, for each metric and for the intervals of shares."""
        metrics = self.count(doc, results)
        key = prompt_key(doc)
        shares = [name for name in self._shares if name in metrics]
        return {**metrics, **{interval_name(n): (key, metrics[n]) for n in shares}}

    def count(self, doc: Document, results: Sequence[tuple[float, bool]]) -> Metrics:
        """Return what one document counts for each metric; the task file may name the function."""
        metrics: Metrics = super().process_results(doc, results)
        return metrics

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
        """Return a request for each response, of a pair the chosen one first."""
        kwargs.pop("apply_chat_template", None)
        kwargs.pop("chat_template", None)
        if "metadata" not in kwargs:  # lm-eval after 0.4.13 gives doc_id alone
            kwargs["task_name"] = self.config.task
        return [
            PreferenceInstance(
                request_type="loglikelihood",
                doc=doc,
                arguments=(ctx, response),
                idx=index,
                **kwargs,
            )
            for index, response in enumerate(responses_of(doc))
        ]

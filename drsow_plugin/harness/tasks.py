"""Preference tasks for lm-eval, which ask which of two responses the model prefers.

Any model of lm-eval that gives log-likelihoods can run them: for ``--model drsow`` what is
compared is the reward, for ``--model hf`` the model's own likelihood of the response.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask

from drsow_plugin.harness.benchmarks.rewardbench import (
    NO_ROWS,
    WEIGHTS,
    Partial,
    is_complete,
    section_score,
)
from drsow_plugin.harness.context import ChatContext, PreferenceInstance, context_text
from drsow_plugin.harness.metrics import Metrics, mean_margin, preference_metrics
from drsow_plugin.hashing import text_sha256
from drsow_plugin.prompts import as_messages, is_prefill, join_system

logger = logging.getLogger(__name__)


def _metric(
    name: str, aggregation: str | Callable[..., object], *, higher_is_better: bool = True
) -> dict[str, Any]:
    return {
        "metric": name,
        "aggregation": aggregation,
        "higher_is_better": higher_is_better,
    }


PREFERENCE_METRICS = [
    _metric("acc", "mean"),
    _metric("acc_tie_half", "mean"),
    _metric("acc_longer", "mean"),
    _metric("margin", mean_margin),
    _metric("ties", sum, higher_is_better=False),
    _metric("overflow", sum, higher_is_better=False),
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
        messages = join_system(as_messages(doc["prompt"], "this row"), system_instruction)
        if apply_chat_template and chat_template is not None:
            return chat_template(messages, add_generation_prompt=not is_prefill(messages))
        return ChatContext(context_text(messages), messages)

    def construct_requests(self, doc: dict[str, Any], ctx: str, **kwargs: Any) -> list[Instance]:
        """Return the two requests of a pair, the chosen response first."""
        kwargs.pop("apply_chat_template", None)
        kwargs.pop("chat_template", None)
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


class RewardBenchTask(PreferenceTask):
    """One section of RewardBench."""

    def __init__(self, config: dict[str, Any]) -> None:
        """Add the section's score and its subsets' accuracies to the metrics of the pairs.

        Args:
            config: The task file; ``dataset_kwargs`` names the ``section``.
        """
        self._section: str = config["dataset_kwargs"]["section"]
        subsets = WEIGHTS[self._section]
        of_subsets = [
            _metric(f"{subset}/{acc}", mean_where_given)
            for subset in subsets
            for acc in ("acc", "acc_tie_half", "acc_longer")
        ]
        of_section = [
            _metric(name, partial(section_score, self._section))
            for name in ("score", "score_tie_half", "score_longer")
        ]
        counts = [
            _metric(
                "subsets_missing",
                partial(count_missing, frozenset(subsets)),
                higher_is_better=False,
            )
        ]
        config = {
            **config,
            "metric_list": [*PREFERENCE_METRICS, *of_section, *counts, *of_subsets],
            "process_results": partial(rewardbench_metrics, tuple(subsets)),
        }
        super().__init__(config)
        present = [subset for subset in self.eval_docs["subset"] if subset != NO_ROWS]
        self._subsets_here = frozenset(present)
        if not is_complete(self._section, present):
            logger.warning(
                "RewardBench section %s is partial (%d rows; without %s): its score is not "
                "given, its subsets' accuracies are.",
                self._section,
                len(present),
                ", ".join(sorted(set(subsets) - set(present))) or "no whole subset",
            )

    def process_results(self, doc: dict[str, Any], results: Any) -> Metrics:
        """Return what one pair counts, without the subsets that the data does not have."""
        metrics: Metrics = super().process_results(doc, results)
        if not self._subsets_here:  # the row stands for a section without rows
            return {
                name: value
                for name, value in metrics.items()
                if name.startswith("score") or name == "subsets_missing"
            }
        return {
            name: value
            for name, value in metrics.items()
            if "/" not in name or name.split("/")[0] in self._subsets_here
        }


def rewardbench_metrics(
    subsets: Sequence[str], doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]
) -> Metrics:
    """Return what one pair of RewardBench counts: for itself, its subset and its section.

    Every pair returns every key, ``None`` for other subsets, as data-parallel runs require.
    """
    metrics = preference_metrics(doc, results)
    accuracies = {name: metrics[name] for name in ("acc", "acc_tie_half", "acc_longer")}
    own = doc["subset"]
    return {
        **metrics,
        **{name.replace("acc", "score"): (own, win) for name, win in accuracies.items()},
        "subsets_missing": own,
        **{
            f"{subset}/{name}": win if subset == own else None
            for subset in subsets
            for name, win in accuracies.items()
        },
    }


def mean_where_given(values: Iterable[float | None]) -> float | Partial:
    """Return the mean of the values that are not ``None``; if there is none, ``Partial``."""
    given = [value for value in values if value is not None]
    return math.fsum(given) / len(given) if given else Partial()


def count_missing(subsets: frozenset[str], present: Iterable[str]) -> int:
    """Return how many of a section's subsets have no row."""
    return len(subsets - set(present))

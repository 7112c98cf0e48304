"""What is counted in a run of lm-eval: responses, and what came of each domain."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from lm_eval.api.instance import Instance

from drsow_plugin.harness.benchmarks.loading import NO_ROWS
from drsow_plugin.harness.context import PreferenceInstance
from drsow_plugin.harness.documents import comparisons, responses_of, share_won
from drsow_plugin.hashing import text_key
from drsow_plugin.records import NO_DOMAIN, Reward
from drsow_plugin.stats import Proportion, Share, standard_error


class RunCounts:
    """Counts responses, pairs and wins of each domain, and agreement with labels in the data.

    A document counts as one however many pairs its candidates make: pairs of one prompt go
    together, and would make the standard error too small.
    """

    def __init__(self) -> None:
        self._responses = self._without_reward = self._truncated = 0
        self._notes: Counter[str] = Counter()
        self._prompts: Counter[str] = Counter()
        self._pairs: Counter[str] = Counter()
        self._wins: defaultdict[str, Share] = defaultdict(Share)
        self._agreement = Share()

    def count(self, rewards: Sequence[Reward]) -> None:
        """Count the responses of one call of lm-eval."""
        for reward in rewards:
            self._responses += 1
            self._without_reward += reward.reward is None
            self._truncated += reward.strong_truncated + reward.weak_truncated > 0
            self._notes.update(reward.notes)

    def count_domains(
        self,
        requests: Sequence[Instance],
        rewards: Sequence[Reward],
        labels: Sequence[str | None],
    ) -> None:
        """Count the prompts and pairs of one call of lm-eval, by domain.

        Args:
            requests: What was scored. All responses of a document of a preference task are
                compared, each better one with each worse one.
            rewards: What came out.
            labels: The domain that the data names for each prompt, to compare the router with,
                or ``None``.
        """
        documents: dict[tuple[str, object], tuple[Instance, dict[int, Reward]]] = {}
        for request, reward, label in zip(requests, rewards, labels, strict=True):
            if (request.doc or {}).get("subset") == NO_ROWS:
                continue  # stands for a section without rows
            key = (str(request.task_name), request.doc_id)
            _, document = documents.setdefault(key, (request, {}))
            if not document:
                self._prompts[reward.domain or NO_DOMAIN] += 1
                if label:
                    self._agreement.add(float(label == reward.domain), _prompt(request))
            document[request.idx] = reward
        for request, document in documents.values():
            if isinstance(request, PreferenceInstance):
                self._count_wins(request, document)

    def _count_wins(self, request: Instance, document: dict[int, Reward]) -> None:
        doc = request.doc
        if len(document) < len(responses_of(doc)):
            return  # the others were taken from a cache
        pairs = comparisons(doc)
        rewards = [document[index].reward for index in sorted(document)]
        known = [math.nan if reward is None else reward for reward in rewards]
        domain = document[0].domain or NO_DOMAIN
        self._pairs[domain] += len(pairs)
        self._wins[domain].add(share_won(known, pairs), _prompt(request))

    def update(self, other: RunCounts) -> None:
        """Add what another process counted."""
        self._responses += other._responses
        self._without_reward += other._without_reward
        self._truncated += other._truncated
        self._notes.update(other._notes)
        self._prompts.update(other._prompts)
        self._pairs.update(other._pairs)
        for domain, wins in other._wins.items():
            self._wins[domain].update(wins)
        self._agreement.update(other._agreement)

    def describe(self) -> dict[str, Any]:
        """Return how many responses there were, as plain values."""
        return {
            "responses_scored": self._responses,
            "responses_without_reward": self._without_reward,
            "responses_with_truncated_prompt": self._truncated,
            "notes": dict(self._notes),
        }

    def describe_domains(self) -> dict[str, Any]:
        """Return plain values: for each domain prompts, pairs and ``acc`` with its error."""
        agreement = self._agreement.proportion()
        return {
            "domains": {name: self._describe(name) for name in sorted(self._prompts)},
            "agreement": agreement
            and {
                "known": agreement.n,
                "share": agreement.value,
                "stderr": _error(agreement),
                "interval": _interval(agreement),
            },
        }

    def _describe(self, domain: str) -> dict[str, Any]:
        wins = self._wins[domain].proportion()
        return {
            "prompts": self._prompts[domain],
            "pairs": self._pairs[domain],
            **(
                {"acc": wins.value, "acc_stderr": wins.stderr, "acc_interval": _interval(wins)}
                if wins
                else {}
            ),
        }


def _prompt(request: Instance) -> int:
    """Return what requests of one prompt share."""
    return text_key(str(request.args[0]))


def _interval(share: Proportion) -> list[float] | None:
    return None if share.low is None or share.high is None else [share.low, share.high]


def _error(share: Proportion) -> float | None:
    """Return the standard error of a share of which no row counts by half."""
    return standard_error(share.value * (1 - share.value), share.n)

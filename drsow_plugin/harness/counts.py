"""What is counted in a run of lm-eval: responses, and what came of each domain."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from lm_eval.api.instance import Instance

from drsow_plugin.harness.benchmarks.loading import NO_ROWS
from drsow_plugin.harness.context import PreferenceInstance
from drsow_plugin.records import NO_DOMAIN, Reward
from drsow_plugin.stats import Proportion, Share, standard_error


class RunCounts:
    """Counts responses, pairs and wins of each domain, and agreement with labels in the data."""

    def __init__(self) -> None:
        self._responses = self._without_reward = self._truncated = 0
        self._notes: Counter[str] = Counter()
        self._prompts: Counter[str] = Counter()
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
            requests: What was scored. Two requests of a preference task for one document are a
                pair, the chosen response first.
            rewards: What came out.
            labels: The domain that the data names for each prompt, to compare the router with,
                or ``None``.
        """
        documents: dict[tuple[str, object], dict[int, Reward]] = {}
        for request, reward, label in zip(requests, rewards, labels, strict=True):
            if (request.doc or {}).get("subset") == NO_ROWS:
                continue  # stands for a section without rows
            document = documents.setdefault((str(request.task_name), request.doc_id), {})
            if not document:
                self._prompts[reward.domain or NO_DOMAIN] += 1
                if label:
                    self._agreement.add(float(label == reward.domain))
            document[request.idx if isinstance(request, PreferenceInstance) else -1] = reward
        for document in documents.values():
            if {0, 1} <= set(document):
                chosen, rejected = document[0].reward, document[1].reward
                won = chosen is not None and rejected is not None and chosen > rejected
                self._wins[document[0].domain or NO_DOMAIN].add(float(won))

    def update(self, other: RunCounts) -> None:
        """Add what another process counted."""
        self._responses += other._responses
        self._without_reward += other._without_reward
        self._truncated += other._truncated
        self._notes.update(other._notes)
        self._prompts.update(other._prompts)
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
            and {"known": agreement.n, "share": agreement.value, "stderr": _error(agreement)},
        }

    def _describe(self, domain: str) -> dict[str, Any]:
        wins = self._wins[domain].proportion()
        return {
            "prompts": self._prompts[domain],
            "pairs": wins.n if wins else 0,
            **({"acc": wins.value, "acc_stderr": _error(wins)} if wins else {}),
        }


def _error(share: Proportion) -> float | None:
    """Return the standard error of a share of which no row counts by half."""
    return standard_error(share.value * (1 - share.value), share.n)

"""What came of each domain in a run of lm-eval."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from lm_eval.api.instance import Instance

from drsow_plugin.harness.benchmarks.loading import NO_ROWS
from drsow_plugin.harness.context import PreferenceInstance
from drsow_plugin.records import NO_DOMAIN, Reward


class DomainCounts:
    """Counts prompts, pairs and wins of each domain, and agreement with what the data names."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    def count(
        self,
        requests: Sequence[Instance],
        rewards: Sequence[Reward],
        known: Sequence[str | None],
    ) -> None:
        """Count one call of lm-eval.

        Args:
            requests: What was scored. Two requests of a preference task for one document are a
                pair, the chosen response first.
            rewards: What came out.
            known: The domain that the data names for each prompt, to compare the router with,
                or ``None``.
        """
        pairs: dict[tuple[str, int], dict[int, Reward]] = {}
        for request, reward, label in zip(requests, rewards, known, strict=True):
            if (request.doc or {}).get("subset") == NO_ROWS:
                continue  # stands for a section without rows
            document = (str(request.task_name), int(request.doc_id or 0))
            first = document not in pairs
            scored = pairs.setdefault(document, {})
            scored[request.idx if isinstance(request, PreferenceInstance) else -1] = reward
            if first:
                self._counts[reward.domain or NO_DOMAIN, "prompts"] += 1
                if label:
                    self._counts["", "known"] += 1
                    self._counts["", "agreed"] += label == reward.domain
        for scored in pairs.values():
            if {0, 1} <= set(scored):
                chosen, rejected = scored[0].reward, scored[1].reward
                missing = chosen is None or rejected is None
                domain = scored[0].domain or NO_DOMAIN
                self._counts[domain, "pairs"] += 1
                self._counts[domain, "won"] += bool(not missing and chosen > rejected)  # type: ignore[operator]

    def update(self, other: DomainCounts) -> None:
        """Add what another process counted."""
        self._counts.update(other._counts)

    def describe(self) -> dict[str, Any]:
        """Return plain values: for each domain prompts, pairs and ``acc`` with its error."""
        names = sorted({domain for domain, _ in self._counts if domain})
        described: dict[str, Any] = {name: self._describe(name) for name in names}
        known = self._counts["", "known"]
        agreement = _share(self._counts["", "agreed"], known)
        return {"domains": described, "agreement": {"known": known, **agreement} if known else None}

    def _describe(self, domain: str) -> dict[str, Any]:
        pairs = self._counts[domain, "pairs"]
        share = _share(self._counts[domain, "won"], pairs)
        return {
            "prompts": self._counts[domain, "prompts"],
            "pairs": pairs,
            **({"acc": share["share"], "acc_stderr": share["stderr"]} if pairs else {}),
        }


def _share(number: int, of: int) -> dict[str, float | None]:
    if not of:
        return {"share": None, "stderr": None}
    share = number / of
    return {
        "share": share,
        "stderr": math.sqrt(share * (1 - share) / (of - 1)) if of > 1 else None,
    }

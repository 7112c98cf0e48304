"""Domains that set one model against itself: it is told one thing as strong, another as weak."""

from __future__ import annotations

from drsow_plugin import Domain, hookimpl

GOOD = "You are a careful assistant. Do exactly what is asked, truthfully and harmlessly."
BAD = "You are a careless assistant. Miss the point of what is asked, and be wrong and harmful."


@hookimpl
def drsow_domains() -> list[Domain]:
    """Return both; choose one with ``domains=``."""
    return [
        Domain("good_bad", "Any prompt.", instruction=GOOD, weak_instruction=BAD),
        Domain("plain_bad", "Any prompt.", weak_instruction=BAD),
    ]

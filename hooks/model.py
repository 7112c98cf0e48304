"""The router ``model``: a language model chooses among the names of the domains.

The model sees some prompts of each domain with the right name (and the descriptions, where a
domain has too few prompts), then the last user turn. The log-prob of each name is compared with
what that name gets after other prompts (contextual calibration, arXiv 2102.09690), since a small
model has its favourites. No text is generated, so there is nothing to parse, and no answer that
is not the name of a domain.
"""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Sequence

from drsow_plugin import Domain, Route, Router, RouterContext, RouterInput, hookimpl

SHOWN = 4
"""Prompts of each domain that the model is shown; the next ones calibrate it."""

ORDER = 1799
"""Seed of the order of the prompts that are shown. A small model depends on it much more than it
should; this one did well on the rows that the built-in rules were tuned on."""

HEAD, TAIL = 600, 200
"""Characters that are read of a longer turn, at its beginning and at its end."""

FALLBACK, NO_DOMAIN = "chat", "no domain"
CONFIDENCE = 0.4
"""Least probability at which a choice is kept, if ``router_confidence`` does not say it."""

_CONTENT_FREE = ("N/A", "...")

Message = dict[str, str]


class ModelRouter:
    """Chooses by the log-probs of the names."""

    def __init__(self, context: RouterContext) -> None:
        """Keep what is needed; asks nothing yet."""
        self._context = context
        self._names = sorted(context.domains)
        self._lead = _lead([context.domains[name] for name in self._names])
        self._least = CONFIDENCE if context.confidence is None else context.confidence
        self._usual: list[float] | None = None
        self._lock = threading.Lock()

    def route(self, prompts: Sequence[RouterInput]) -> list[Route]:
        """Return the domain of each prompt."""
        with self._lock:
            if self._usual is None:
                self._usual = self._usual_logprobs()
        usual = self._usual
        scored = self._logprobs([prompt.text for prompt in prompts])
        return [self._chosen(logprobs, usual) for logprobs in scored]

    def _chosen(self, logprobs: list[float] | None, usual: list[float]) -> Route:
        fallback = FALLBACK if FALLBACK in self._names else None
        where = fallback or NO_DOMAIN
        if logprobs is None:
            return Route(fallback, None, f"router: too long for its model, so {where}")
        margins = [own - other for own, other in zip(logprobs, usual, strict=True)]
        weights = [math.exp(margin - max(margins)) for margin in margins]
        best = max(range(len(weights)), key=weights.__getitem__)
        confidence = weights[best] / sum(weights)
        if confidence >= self._least:
            return Route(self._names[best], confidence)
        note = f"router: no domain at a confidence of {self._least:g} or more, so {where}"
        taken = None if fallback is None else weights[self._names.index(fallback)] / sum(weights)
        return Route(fallback, taken, note)

    def _logprobs(self, texts: Sequence[str]) -> list[list[float] | None]:
        """Return the log-prob of each domain's name after each text; ``None`` if too long."""
        prompts = [[*self._lead, {"role": "user", "content": _shortened(text)}] for text in texts]
        flat = iter(
            self._context.logprobs(
                [prompt for prompt in prompts for _ in self._names], self._names * len(prompts)
            )
        )
        rows = [[next(flat) for _ in self._names] for _ in prompts]
        return [
            None if None in row else [value for value in row if value is not None] for row in rows
        ]

    def _usual_logprobs(self) -> list[float]:
        """Return the mean log-prob of each name after prompts of all domains alike."""
        others = [list(d.prompts[SHOWN:]) for d in self._context.domains.values()]
        most = min(map(len, others), default=0)
        texts = [text for prompts in others for text in prompts[:most]] or list(_CONTENT_FREE)
        rows = [row for row in self._logprobs(texts) if row is not None]
        if not rows:
            return [0.0] * len(self._names)
        return [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]


def _lead(domains: Sequence[Domain]) -> list[Message]:
    """Return what comes before the prompt."""
    lead: list[Message] = []
    if any(len(domain.prompts) < SHOWN for domain in domains):
        described = "\n".join(f"{domain.name}: {domain.description}" for domain in domains)
        lead += [{"role": "system", "content": f"Name the domain of each message.\n\n{described}"}]
    order = random.Random(ORDER)
    for number in range(SHOWN):
        shuffled = list(domains)
        order.shuffle(shuffled)
        for domain in shuffled:
            if number < len(domain.prompts):
                lead += [
                    {"role": "user", "content": domain.prompts[number]},
                    {"role": "assistant", "content": domain.name},
                ]
    return lead


def _shortened(text: str) -> str:
    return text if len(text) <= HEAD + TAIL else f"{text[:HEAD]} … {text[-TAIL:]}"


@hookimpl
def drsow_routers(context: RouterContext) -> list[Router]:
    """Offer the router."""
    router = ModelRouter(context)
    return [Router("model", router.route, "a language model chooses (router_model=) [strong]")]

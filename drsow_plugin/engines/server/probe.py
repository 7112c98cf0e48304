"""Finds out how a server is asked for log-probs, and whether what it answers is true.

Servers answer 200 to requests that they do not understand. So a few rows whose log-probs must hang
together are asked for, in each form that the server may know, until one is answered truly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from drsow_plugin.engines.server.client import AbsentError, Client, DeniedError, RefusedError
from drsow_plugin.engines.server.forms import (
    Echo,
    Form,
    FormError,
    PromptLogprobs,
    SGLangGenerate,
    TokensInOut,
)
from drsow_plugin.engines.server.served import SGLANG, VLLM, Served, look_at, root_of
from drsow_plugin.engines.server.settings import Settings
from drsow_plugin.errors import ConfigError
from drsow_plugin.records import TokenPair

_PROMPT = 4  # tokens of the probe that are its prompt
_NOISE = 0.05  # nats, by which log-probs of a token differ with what is computed beside it
_FORMS: dict[str, tuple[Form, ...]] = {
    VLLM: (TokensInOut(), PromptLogprobs()),
    SGLANG: (SGLangGenerate(),),
}
_ANY: tuple[Form, ...] = (PromptLogprobs(), Echo(with_ids=True), Echo(with_ids=False))
_ADVICE = {
    "llama.cpp": "llama.cpp's server has none: give the .gguf file itself as {name}=, which is "
    "then scored here, or serve the model with vLLM or SGLang",
    "llama-cpp-python": "llama-cpp-python's are shifted, and it takes no token ids: give the "
    ".gguf file itself as {name}=, which is then scored here, or serve the model with vLLM or "
    "SGLang",
}


@dataclass(frozen=True)
class Probe:
    """Rows that are asked for when a server is opened.

    Attributes:
        ids: Token ids of some text, at least 8 and not all the same.
        vocab_size: Token ids of the tokenizer: the model must know those below.
    """

    ids: tuple[int, ...]
    vocab_size: int

    @property
    def rows(self) -> tuple[TokenPair, TokenPair]:
        """Two rows that differ in their last token only."""
        prompt, response = self.ids[:_PROMPT], self.ids[_PROMPT:]
        other = next(token for token in self.ids if token != response[-1])
        return TokenPair(prompt, response), TokenPair(prompt, (*response[:-1], other))

    @property
    def last(self) -> TokenPair:
        """A row with the last token of the vocabulary."""
        return TokenPair(self.ids[:_PROMPT], (self.vocab_size - 1,))


async def find(client: Client, settings: Settings, url: str, probe: Probe) -> tuple[Served, Form]:
    """Return what a server is, and how it is asked.

    Raises:
        ConfigError: It gives no log-probs of prompts, or not those of this model.
        EngineError: It does not answer, or as no server of models does.
    """
    served = await client.at_first(lambda: look_at(client, settings, url))
    reasons: list[str] = []
    for form in _FORMS.get(served.kind, _ANY):
        try:
            values = await client.at_first(partial(_checked, client, url, form, served, probe))
        except (RefusedError, AbsentError, DeniedError, FormError) as error:
            reasons.append(f"{form.name}: {error}")
            continue
        await _check_vocabulary(client, settings, url, form, served, probe)
        return replace(served, form=form.name, logprobs=tuple(values)), form
    advice = _ADVICE.get(served.kind, "serve the model with vLLM or SGLang").format(
        name=settings.name
    )
    raise ConfigError(
        f"{settings.name}: the server at {url} ({served.kind}) gives no log-probs of prompts that "
        f"could be used: {advice}. It was asked for {'; '.join(reasons)}."
    )


async def ask(
    client: Client,
    url: str,
    form: Form,
    model: str,
    pairs: Sequence[TokenPair],
    *,
    cached: bool = True,
) -> list[list[float]]:
    """Return the log-probs of some rows' response tokens, in nats, from one request.

    Raises:
        UnavailableError: The server did not answer, or asks for patience.
        RefusedError: It does not take the request, or failed on it.
        FormError: It answered something else.
        EngineError: It wants another key, or answers no JSON.
    """
    where = f"{root_of(url)}{form.path}" if form.path.startswith("/") else f"{url}/{form.path}"
    answer = await client.send(where, form.body(model, pairs, cached=cached))
    return form.logprobs(answer, pairs)


async def _checked(
    client: Client, url: str, form: Form, served: Served, probe: Probe
) -> list[float]:
    """Return the log-probs of the probe's first row, once they were checked.

    Raises:
        FormError: They cannot be log-probs of these tokens.
    """
    first, second = [
        (await ask(client, url, form, served.model, [row], cached=False))[0] for row in probe.rows
    ]
    values = [*first, *second]
    if not all(math.isfinite(value) and value <= 1e-3 for value in values):
        raise FormError(f"{values[0]!r} came in place of a log-prob")
    if len(set(values)) == 1:
        raise FormError("every token has the same log-prob")
    if any(abs(a - b) > _NOISE for a, b in zip(first[:-1], second[:-1], strict=True)):
        raise FormError("a token's log-prob depends on the token after it, as if shifted by one")
    if first[-1] == second[-1]:
        raise FormError("the last token's log-prob does not depend on that token")
    return first


async def _check_vocabulary(
    client: Client, settings: Settings, url: str, form: Form, served: Served, probe: Probe
) -> None:
    try:
        await client.at_first(lambda: ask(client, url, form, served.model, [probe.last]))
    except (RefusedError, FormError) as error:
        raise ConfigError(
            f"{settings.name}: the server at {url} does not know token {probe.vocab_size - 1}, "
            f"which the tokenizer of {settings.source!r} has: {served.model!r} is another model, "
            f"or the tokenizer is not its own ({error})."
        ) from None

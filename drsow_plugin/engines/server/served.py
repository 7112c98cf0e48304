"""What a server says that it serves, and which of its models is the one that is meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from drsow_plugin.engines.server.client import Client, RefusedError
from drsow_plugin.engines.server.settings import Settings
from drsow_plugin.errors import ConfigError, EngineError

VLLM, SGLANG = "vLLM", "SGLang"
_KINDS = {"vllm": VLLM, "sglang": SGLANG, "llamacpp": "llama.cpp", "me": "llama-cpp-python"}
OTHER = "OpenAI-compatible"
_SAME = 1e-4  # nats a token: what one server says of the same tokens twice
_CHANGED = 0.1  # nats a token: more than kernels that round otherwise in another batch


@dataclass(frozen=True)
class Served:
    """A model on a server.

    Attributes:
        kind: What the server is, such as ``vLLM``.
        version: Its version, as far as it tells.
        model: What it calls the model.
        root: What it loaded, as it was named to it.
        dtype: Dtype of the weights, as far as it tells.
        max_length: Most tokens of prompt and response; ``None`` where it does not tell.
        form: How it is asked.
        logprobs: What it answered for a few tokens when it was opened, in nats.
    """

    kind: str
    version: str | None
    model: str
    root: str | None
    dtype: str | None
    max_length: int | None
    form: str = ""
    logprobs: tuple[float, ...] = field(default=(), compare=False)

    def describe(self) -> dict[str, Any]:
        """Return what decides its log-probs, as plain values."""
        names = ("kind", "version", "model", "root", "dtype", "form")
        return {name: getattr(self, name) for name in names}

    def answers_like(self, other: Served) -> bool:
        """Tell whether both gave the same log-probs, so that they are one model."""
        return self._distance(other) <= _SAME

    def changes(self, other: Served) -> str | None:
        """Return in what another differs that should be the same; ``None`` if in nothing."""
        for name, mine in self.describe().items():
            if mine != getattr(other, name):
                return f"its {name} is {getattr(other, name)!r}, and was {mine!r}"
        if (distance := self._distance(other)) > _CHANGED:
            return f"its log-probs are others than before, by {distance:.2g} nats a token"
        return None

    def _distance(self, other: Served) -> float:
        if not self.logprobs or len(self.logprobs) != len(other.logprobs):
            return float("inf")
        both = zip(self.logprobs, other.logprobs, strict=True)
        return sum(abs(mine - its) for mine, its in both) / len(self.logprobs)


def root_of(url: str) -> str:
    """Return a server's address without the path of OpenAI's interface."""
    return url.removesuffix("/v1")


async def look_at(client: Client, settings: Settings, url: str) -> Served:
    """Return what a server says of the model that is meant.

    Raises:
        ConfigError: It serves no such model.
        EngineError: It does not answer, or as no server of models does.
    """
    models = await _get(client, f"{url}/models")
    listed = models.get("data") if isinstance(models, Mapping) else None
    if not isinstance(listed, list) or not all(_is_model(card) for card in listed):
        raise EngineError(
            f"{url}/models is no list of models. Is this the address of the server, with the path "
            "of OpenAI's interface, such as /v1?"
        )
    card = _meant(settings, url, listed)
    kind = _KINDS.get(str(card.get("owned_by")), OTHER)
    told = await _told(client, kind, url)
    length = card.get("max_model_len")
    return Served(
        kind=kind,
        version=_text(told.get("version")),
        model=str(card["id"]),
        root=_text(told.get("model_path")) or _text(card.get("root")),
        dtype=_text(told.get("dtype")),
        # Where a token is generated too, there has to be room for it.
        max_length=length - 1 if isinstance(length, int) and length > 1 else None,
    )


async def _get(client: Client, url: str) -> Any:
    try:
        return await client.send(url)
    except RefusedError as error:
        raise EngineError(f"{error}. Is this the server's address?") from None


def _is_model(card: Any) -> bool:
    return isinstance(card, Mapping) and isinstance(card.get("id"), str)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


async def _told(client: Client, kind: str, url: str) -> dict[str, Any]:
    """Return what a server says of itself; of SGLang's arguments only what is needed."""
    paths = {VLLM: ("/version",), SGLANG: ("/server_info", "/get_server_info")}
    for path in paths.get(kind, ()):
        try:
            told = await client.send(f"{root_of(url)}{path}")
        except (RefusedError, EngineError):  # an older or newer one, or a proxy before it
            continue
        if isinstance(told, dict):
            return {name: told.get(name) for name in ("version", "dtype", "model_path")}
    return {}


def _meant(settings: Settings, url: str, listed: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the model that is meant: the one that is named, or that has the source's name."""
    name, source = settings.name, settings.source
    if settings.model is not None:
        found = [card for card in listed if card["id"] == settings.model]
        asked = f"{name}_server_model={settings.model!r}"
    else:
        wanted = {source.casefold(), _last(source)}
        found = [card for card in listed if wanted & _names(card)]
        asked = f"{name}={source!r}"
    if len(found) == 1:
        return found[0]
    ids = ", ".join(repr(card["id"]) for card in listed) or "nothing"
    raise ConfigError(
        f"{name}: the server at {url} serves {ids}, and {asked} is "
        f"{'more than one' if found else 'none'} of them. If one of them is this model, say so "
        f"with {name}_server_model=…."
    )


def _names(card: Mapping[str, Any]) -> set[str]:
    """Return what a served model may be known as, without case."""
    texts = [text for text in (_text(card["id"]), _text(card.get("root"))) if text]
    return {form for text in texts for form in (text.casefold(), _last(text))}


def _last(name: str) -> str:
    return PurePath(name).name.casefold()
